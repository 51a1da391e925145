//! From the command line to a command, and from its result to the exit code.

use std::future::Future;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use crate::args::{Cli, Command};
use crate::exit::{self, Failure};
use crate::output::{self, Output};
use crate::{commands, dev, tied};

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match dispatch(cli.command, cli.output) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(failure) => {
            complain(&failure, cli.output);
            ExitCode::from(failure.code)
        }
    }
}

/// Help and version are no errors; all else is, with the code for it.
fn usage(error: &clap::Error) -> ExitCode {
    // Nothing is left to do when it can't be printed.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() {
        exit::USAGE
    } else {
        exit::OK
    })
}

fn complain(failure: &Failure, output: Output) {
    match output {
        _ if failure.message.is_empty() => {}
        Output::Json => {
            let error = json!({ "error": failure.message, "exit_code": failure.code });
            output::note(error.to_string());
        }
        Output::Table | Output::Dot => {
            for line in failure.message.lines() {
                output::note(format!("error: {line}"));
            }
        }
    }
}

fn dispatch(command: Command, output: Output) -> Result<(), Failure> {
    if output == Output::Dot && !matches!(command, Command::Graph(_)) {
        let message = "--output dot: only `graph` draws; write table or json";
        return Err(Failure::new(exit::USAGE, message));
    }
    match command {
        Command::Dev(args) => dev::run(args, output),
        Command::Coordinator(args) => commands::coordinator::run(&args),
        Command::Agent(args) => commands::agent::run(&args),
        Command::Gateway(args) => commands::gateway::run(&args),
        Command::Plugins(args) => client(commands::plugins::run(args, output)),
        Command::Plugin(args) => client(commands::plugin::run(args, output)),
        Command::Enable(args) => client(commands::change::enable(args, output)),
        Command::Disable(args) => client(commands::change::disable(args, output)),
        Command::Unload(args) => client(commands::change::unload(args, output)),
        Command::Split(args) => client(commands::split::run(args, output)),
        Command::Rollout(args) => client(commands::rollout::run(args, output)),
        Command::Impact(args) => client(commands::impact::run(args, output)),
        Command::Nodes(args) => client(commands::nodes::run(args, output)),
        Command::Coordinators(args) => client(commands::coordinators::run(args, output)),
        Command::Graph(args) => client(commands::graph::run(args, output)),
        Command::Registry(args) => client(commands::registry::run(args, output)),
        Command::History(args) => client(commands::history::run(args, output)),
        Command::Watch(args) => client(commands::watch::run(args, output)),
        Command::Tools(args) => client(commands::tools::run(args, output)),
        Command::Call(args) => client(commands::call::run(args, output)),
        Command::New(args) => commands::new::run(&args, output),
        Command::Doctor(args) => client(commands::doctor::run(args, output)),
        Command::Config(args) => commands::config::run(&args, output),
        Command::Completions(args) => commands::completions::run(&args),
        Command::ExecTied(args) => tied::exec(args.parent, &args.command),
    }
}

/// Runs a command that asks others; Ctrl-C ends it.
fn client(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("no runtime: {error}; check `ulimit -n`")))?;
    let result = runtime.block_on(async {
        tokio::select! {
            result = command => result,
            _ = tokio::signal::ctrl_c() => Err(Failure::new(exit::INTERRUPTED, "interrupted")),
        }
    });
    // A look-up of a name may still hold a thread.
    runtime.shutdown_background();
    result
}
