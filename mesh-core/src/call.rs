//! What travels with a call beside its payload: who calls, in which trace, and what is logged.

use std::fmt;

use serde::{Deserialize, Serialize};

/// W3C Trace Context; empty texts mean that there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct TraceContext {
    /// The `traceparent` header.
    pub traceparent: String,
    /// The `tracestate` header.
    pub tracestate: String,
}

impl TraceContext {
    /// Whether there is no trace.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.traceparent.is_empty()
    }
}

/// On whose behalf a call is made; empty texts are unknown or do not apply.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Caller {
    /// The calling plugin; empty: a client of a gateway.
    pub plugin: String,
    /// The calling plugin's instance.
    pub instance: String,
    /// The node or gateway that the call entered by.
    pub node: String,
}

/// How grave a log line is (RFC 5424, without emergency and alert).
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// For those who look for a fault.
    Debug,
    /// What goes on.
    #[default]
    Info,
    /// Of note.
    Notice,
    /// May become a fault.
    Warning,
    /// A fault.
    Error,
    /// A fault that needs somebody now.
    Critical,
}

impl LogLevel {
    /// The level as MCP and syslog write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
