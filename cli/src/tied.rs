//! Children that end with their parent: `plugmesh exec-tied -- CMD…` asks the kernel to kill it when
//! its parent dies, and becomes CMD. So nothing is left behind even when the parent is killed.
//!
//! Linux has this; elsewhere CMD is only started.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::exit::Failure;

/// The name of the hidden command.
pub const COMMAND: &str = "exec-tied";

/// The words that go before a command to tie it to this process.
///
/// # Errors
/// When this program's own path can't be found.
pub fn prefix() -> Result<Vec<String>, Failure> {
    let own = own_path()?;
    let parent = std::process::id().to_string();
    Ok([&own, COMMAND, "--parent", &parent, "--"]
        .map(str::to_owned)
        .to_vec())
}

/// The path of this program.
///
/// # Errors
/// When it can't be found or is not UTF-8.
pub fn own_path() -> Result<String, Failure> {
    let unknown =
        |why: String| Failure::failed(format!("this program's own path can't be found: {why}"));
    std::env::current_exe()
        .map_err(|error| unknown(error.to_string()))?
        .into_os_string()
        .into_string()
        .map_err(|path| unknown(format!("{} is not UTF-8", path.display())))
}

/// Becomes `command`, which the kernel kills when this process's parent ends. `parent` is the process
/// that wants this, as it may have ended before the kernel was asked.
///
/// # Errors
/// Whenever it returns.
pub fn exec(parent: Option<u32>, command: &[OsString]) -> Result<(), Failure> {
    tie(parent)?;
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::new(
            crate::exit::USAGE,
            "exec-tied: no command is given",
        ));
    };
    let error = Command::new(program).args(arguments).exec();
    Err(Failure::failed(format!(
        "{} can't be started: {error}",
        program.display()
    )))
}

#[cfg(target_os = "linux")]
fn tie(parent: Option<u32>) -> Result<(), Failure> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Failure::failed(format!("exec-tied: the kernel refused: {error}")))?;
    let now = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    match parent {
        Some(wanted) if now != Some(wanted) => Err(Failure::failed(format!(
            "exec-tied: process {wanted}, which started this, has ended"
        ))),
        _ => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn tie(_: Option<u32>) -> Result<(), Failure> {
    Ok(())
}
