//! What `dev` says while it runs: to stdout for people; to stderr when stdout is for a program.

use crate::exit::Failure;
use crate::output::{self, Output};

/// Where lines go.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    output: Output,
}

impl Console {
    /// Lines in the given form.
    pub fn new(output: Output) -> Self {
        Self { output }
    }

    /// Says a line. Nobody is told when it can't be written: the mesh goes on.
    pub fn say(self, text: impl AsRef<str>) {
        match self.output {
            Output::Json => output::note(text),
            Output::Table | Output::Dot => {
                let _ = output::line_or_nothing(text);
            }
        }
    }

    /// Whether stdout is for a program.
    pub fn is_json(self) -> bool {
        self.output == Output::Json
    }

    /// Writes a value to stdout as one line of JSON.
    ///
    /// # Errors
    /// When stdout can't be written.
    pub fn json_line(self, value: &impl serde::Serialize) -> Result<(), Failure> {
        output::json_line(value)
    }
}
