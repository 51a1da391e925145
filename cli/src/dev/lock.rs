//! One `dev` per data folder: a lock file that holds the owner's process id.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::exit::Failure;

/// The lock; the system lets go of it when the process ends, however it does.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock of a data folder.
///
/// # Errors
/// When another process has it, with its id; when it can't be written.
pub fn take(data: &Path) -> Result<Lock, Failure> {
    let path = data.join("dev.lock");
    let refused = |error: std::io::Error| {
        Failure::cant_create(format!(
            "{} can't be written: {error}; choose another folder with --data",
            path.display()
        ))
    };
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(&path).map_err(refused)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            // Only for the message; the lock itself says enough.
            let _ = file.read_to_string(&mut owner);
            return Err(Failure::unavailable(format!(
                "another `plugmesh dev` (process {}) runs already on {}; stop it, or choose another \
                 folder with --data",
                owner.trim(),
                data.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(refused(error)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(refused)?;
    Ok(Lock { _file: file })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_who_has_it_and_gets_it_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let first = take(folder.path()).unwrap();
        let message = take(folder.path()).unwrap_err().message;
        let owner = format!("process {}", std::process::id());
        assert!(message.contains(&owner), "{message}");
        drop(first);
        assert!(take(folder.path()).is_ok());
    }
}
