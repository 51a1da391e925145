//! How the program ends: an exit code that means something, and one line that says why.

use mesh_core::error::{ErrorCode, MeshError};

/// It went well.
pub const OK: u8 = 0;
/// It failed; the line on stderr says why.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// What was given or named is not right, such as a name that nobody has (EX_DATAERR).
pub const DATA: u8 = 65;
/// Something that is needed is not there or does not answer (EX_UNAVAILABLE).
pub const UNAVAILABLE: u8 = 69;
/// A file or folder can't be written (EX_CANTCREAT).
pub const CANT_CREATE: u8 = 73;
/// The configuration is wrong (EX_CONFIG).
pub const CONFIG: u8 = 78;
/// A signal ended it before it was done.
pub const INTERRUPTED: u8 = 130;

/// What `plugmesh --help` says of exit codes.
pub const HELP: &str = "\
Exit codes:
    0  it went well
    1  it failed; the line on stderr says why
    2  the command line is wrong
   65  what was given or named is not right (no such plugin, bad JSON)
   69  something that is needed does not answer or is not there
   73  a file or folder can't be written
   78  the configuration is wrong; every mistake has a line
  130  interrupted by a signal";

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The program's exit code.
    pub code: u8,
    /// What failed and what to do; one line, or one per mistake.
    pub message: String,
}

impl Failure {
    /// A failure with the code.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// [`FAILED`].
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(FAILED, message)
    }

    /// [`DATA`].
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(DATA, message)
    }

    /// [`UNAVAILABLE`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(UNAVAILABLE, message)
    }

    /// [`CANT_CREATE`].
    pub fn cant_create(message: impl Into<String>) -> Self {
        Self::new(CANT_CREATE, message)
    }
}

impl From<MeshError> for Failure {
    fn from(error: MeshError) -> Self {
        let code = match error.code {
            ErrorCode::InvalidArgument
            | ErrorCode::NotFound
            | ErrorCode::NoProvider
            | ErrorCode::TooLarge => DATA,
            ErrorCode::Unavailable | ErrorCode::Disconnected | ErrorCode::NoCoordinator => {
                UNAVAILABLE
            }
            _ => FAILED,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_has_a_line_for_each_code() {
        for code in [
            OK,
            FAILED,
            USAGE,
            DATA,
            UNAVAILABLE,
            CANT_CREATE,
            CONFIG,
            INTERRUPTED,
        ] {
            assert!(HELP.contains(&format!("{code:>5}  ")), "{code}");
        }
    }
}
