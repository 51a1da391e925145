//! `plugmesh completions SHELL`.

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};
use crate::exit::Failure;
use crate::output;

/// Prints completions for a shell.
///
/// # Errors
/// When stdout can't be written.
pub fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "plugmesh", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end())
}
