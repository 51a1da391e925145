//! What runs, in a file of the data folder, for other commands: `doctor` reads it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn file(data: &Path) -> PathBuf {
    data.join("run.json")
}

/// Writes what runs. It is a help, and no error when it can't be written.
pub fn write(data: &Path, state: &Value) {
    let new = data.join("run.json.new");
    let written = fs::write(&new, format!("{state}\n")).and_then(|()| fs::rename(new, file(data)));
    if let Err(error) = written {
        tracing::debug!(%error, "run.json can't be written");
    }
}

/// What runs from a data folder; nothing when its `dev` has ended, however it did.
pub fn read(data: &Path) -> Option<Value> {
    let state: Value = serde_json::from_str(&fs::read_to_string(file(data)).ok()?).ok()?;
    let pid = state.get("pid").and_then(Value::as_i64)?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
    rustix::process::test_kill_process(pid).ok()?;
    Some(state)
}

/// Nothing runs any more.
pub fn forget(data: &Path) {
    // It may never have been written.
    let _ = fs::remove_file(file(data));
}
