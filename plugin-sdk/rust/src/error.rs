//! Why a call failed, why a handler failed, and why a plugin could not run.

use std::fmt;
use std::time::Duration;

use crate::code::ErrorCode;
use crate::wire::{common, shortened};

/// A call that ended with an error: what failed, where, and what to do about it.
///
/// ```
/// use plugmesh_sdk::{CallError, ErrorCode};
/// let error = CallError::new(ErrorCode::NoProvider, "no plugin provides tool:add");
/// assert_eq!(error.to_string(), "no plugin provides tool:add (no_provider)");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallError {
    /// What went wrong.
    pub code: ErrorCode,
    /// One line for a person: what failed and what to do.
    pub message: String,
    /// Where it failed, as far as is known.
    pub place: Box<Place>,
    /// For [`ErrorCode::Overloaded`]: how long to wait before trying again.
    pub retry_after: Option<Duration>,
}

/// Where something runs; what is not known is empty.
///
/// ```
/// use plugmesh_sdk::{CallError, ErrorCode};
/// let error = CallError::new(ErrorCode::Internal, "a bug");
/// assert_eq!(error.place.plugin, "");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The plugin's name.
    pub plugin: String,
    /// The plugin's version.
    pub version: String,
    /// The instance (UUID).
    pub instance: String,
    /// The node.
    pub node: String,
}

impl CallError {
    /// An error of no known place.
    ///
    /// ```
    /// use plugmesh_sdk::{CallError, ErrorCode};
    /// assert_eq!(CallError::new(ErrorCode::Expired, "too late").code, ErrorCode::Expired);
    /// ```
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            place: Box::default(),
            retry_after: None,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.message, self.code)?;
        if !self.place.plugin.is_empty() {
            write!(f, ", plugin {}", self.place.plugin)?;
        }
        if !self.place.version.is_empty() {
            write!(f, " {}", self.place.version)?;
        }
        if !self.place.node.is_empty() {
            write!(f, ", node {}", self.place.node)?;
        }
        f.write_str(")")
    }
}

impl std::error::Error for CallError {}

// In a frame an error is kept in a box.
impl From<Box<common::Error>> for CallError {
    fn from(wire: Box<common::Error>) -> Self {
        (*wire).into()
    }
}

impl From<CallError> for Box<common::Error> {
    fn from(error: CallError) -> Self {
        Self::new(error.into())
    }
}

impl From<common::Error> for CallError {
    fn from(wire: common::Error) -> Self {
        let wait = wire.retry_after_ms;
        Self {
            code: ErrorCode::from_number(wire.code),
            message: wire.message,
            place: Box::new(Place {
                plugin: wire.plugin,
                version: wire.version,
                instance: wire.instance,
                node: wire.node,
            }),
            retry_after: (wait > 0).then(|| Duration::from_millis(wait.into())),
        }
    }
}

impl From<CallError> for common::Error {
    fn from(error: CallError) -> Self {
        let wait = error.retry_after.map_or(0, |wait| wait.as_millis());
        Self {
            code: error.code.number(),
            message: shortened(error.message),
            plugin: error.place.plugin,
            version: error.place.version,
            instance: error.place.instance,
            node: error.place.node,
            retry_after_ms: wait.try_into().unwrap_or(u32::MAX),
            ..Self::default()
        }
    }
}

/// Why a handler could not do what it was asked.
///
/// Any error turns into one by `?`. From a tool it becomes a result with `isError`, which a language
/// model reads and reacts to; from other handlers it ends the call with
/// [`ErrorCode::PluginFailed`].
///
/// ```
/// use plugmesh_sdk::ToolError;
/// fn parse(text: &str) -> Result<f64, ToolError> {
///     let number: f64 = text.parse()?;
///     if number < 0.0 {
///         return Err(ToolError::new("the number must not be negative"));
///     }
///     Ok(number)
/// }
/// assert_eq!(parse("x").unwrap_err().message(), "invalid float literal");
/// assert_eq!(parse("-1").unwrap_err().message(), "the number must not be negative");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolError {
    message: String,
    code: Option<ErrorCode>,
}

impl ToolError {
    /// A failure with its reason.
    ///
    /// ```
    /// assert_eq!(plugmesh_sdk::ToolError::new("division by zero").message(), "division by zero");
    /// ```
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: None,
        }
    }

    /// Ends the call with an error of the mesh instead of a result that says so.
    ///
    /// ```
    /// use plugmesh_sdk::{ErrorCode, ToolError};
    /// let error = ToolError::with_code(ErrorCode::NotFound, "there is no note 7");
    /// assert_eq!(error.code(), Some(ErrorCode::NotFound));
    /// ```
    #[must_use]
    pub fn with_code(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: Some(code),
        }
    }

    /// The reason.
    ///
    /// ```
    /// assert_eq!(plugmesh_sdk::ToolError::new("no").message(), "no");
    /// ```
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The code that the call ends with, if one was given.
    ///
    /// ```
    /// assert_eq!(plugmesh_sdk::ToolError::new("no").code(), None);
    /// ```
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        self.code
    }

    /// The error that ends a call whose result has no place for failures.
    pub(crate) fn into_call_error(self) -> CallError {
        CallError::new(self.code.unwrap_or(ErrorCode::PluginFailed), self.message)
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for ToolError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::new(message)
    }
}

impl From<ToolError> for Box<dyn std::error::Error + Send + Sync> {
    fn from(error: ToolError) -> Self {
        error.message.into()
    }
}

impl From<ToolError> for Box<dyn std::error::Error> {
    fn from(error: ToolError) -> Self {
        error.message.into()
    }
}

/// Why a plugin could not run. Printed in both ways (`{}` and `{:?}`) it is a text for a person, so
/// that `main` may return it.
///
/// ```
/// use plugmesh_sdk::Plugin;
/// let error = Plugin::new("Bad Name", "one").check().unwrap_err();
/// let text = format!("{error:?}");
/// assert!(text.contains("name: ") && text.contains("version: "), "{text}");
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The plugin was put together wrongly; every mistake is listed with its field.
    #[error("the plugin is not valid:{}", list(.0))]
    InvalidPlugin(
        /// Field and problem of each mistake.
        Vec<(String, String)>,
    ),
    /// The address of the agent is not one.
    #[error(
        "PLUGMESH_AGENT: {given:?} is not an agent's address: {why}; write for example unix:///run/plugmesh/attach.sock or http://127.0.0.1:7410"
    )]
    Address {
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: String,
    },
    /// The mesh refused the plugin, and would refuse it again.
    #[error("the mesh refused the plugin: {0}")]
    Refused(CallError),
    /// The operating system refused something.
    #[error("cannot {doing}: {reason}")]
    System {
        /// What was to be done.
        doing: &'static str,
        /// What the system says.
        reason: std::io::Error,
    },
}

impl Error {
    /// The exit code of a program that ends because of this: 65 when starting it again would fail in
    /// the same way, else 71.
    ///
    /// ```
    /// let error = plugmesh_sdk::Plugin::new("", "1.0.0").check().unwrap_err();
    /// assert_eq!(error.exit_code(), 65);
    /// ```
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::InvalidPlugin(_) | Self::Address { .. } | Self::Refused(_) => 65,
            Self::System { .. } => 71,
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One mistake stays on the line, several get a line each.
fn list(mistakes: &[(String, String)]) -> String {
    let separator = if mistakes.len() > 1 { "\n  " } else { " " };
    let mut text = String::new();
    for (field, problem) in mistakes {
        text.push_str(separator);
        text.push_str(field);
        text.push_str(": ");
        text.push_str(problem);
    }
    text
}
