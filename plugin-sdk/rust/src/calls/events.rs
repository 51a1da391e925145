//! What a caller hears of a call, and what a provider knows of its caller.

use std::fmt;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::error::CallError;
use crate::payload::Payload;
use crate::wire::common;

/// What a caller hears of a call.
///
/// ```
/// use plugmesh_sdk::{CallEvent, Context, Json, Target, ToolError};
/// async fn count(ctx: Context) -> Result<usize, ToolError> {
///     let mut call = ctx.call(Target::service("logs.tail"), Json("app.log")).await?;
///     let mut lines = 0;
///     while let Some(event) = call.next().await {
///         match event {
///             CallEvent::Chunk(_) => lines += 1,
///             CallEvent::End(end) => drop(end?),
///             _ => {}
///         }
///     }
///     Ok(lines)
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum CallEvent {
    /// A message of a streaming answer.
    Chunk(Bytes),
    /// How far it is; only when the call asked for it.
    Progress(Progress),
    /// A line of the provider's log that belongs to this call.
    Log(LogLine),
    /// The end; nothing follows.
    End(Result<Payload, CallError>),
}

/// How far a call has come.
///
/// ```
/// use plugmesh_sdk::{CallEvent, Progress};
/// fn percent(event: CallEvent) -> Option<f64> {
///     match event {
///         CallEvent::Progress(Progress { done, total: Some(total), .. }) => Some(100.0 * done / total),
///         _ => None,
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// How much is done; grows.
    pub done: f64,
    /// How much there is in all, if known.
    pub total: Option<f64>,
    /// One line for a person; may be empty.
    pub message: String,
}

impl From<common::Progress> for Progress {
    fn from(wire: common::Progress) -> Self {
        Self {
            done: wire.progress,
            total: (wire.total > 0.0).then_some(wire.total),
            message: wire.message,
        }
    }
}

/// A line of a log.
///
/// ```
/// use plugmesh_sdk::{CallEvent, LogLevel};
/// fn is_fault(event: &CallEvent) -> bool {
///     matches!(event, CallEvent::Log(line) if line.level >= LogLevel::Error)
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LogLine {
    /// How grave.
    pub level: LogLevel,
    /// The text.
    pub message: String,
    /// The module or logger that wrote it; may be empty.
    pub logger: String,
    /// Fields.
    pub fields: Map<String, Value>,
}

impl From<common::Log> for LogLine {
    fn from(wire: common::Log) -> Self {
        Self {
            level: LogLevel::from_number(wire.level),
            message: wire.message,
            logger: wire.logger,
            fields: serde_json::from_slice(&wire.fields).unwrap_or_default(),
        }
    }
}

/// How grave a log line is (RFC 5424, as MCP has it).
///
/// ```
/// use plugmesh_sdk::LogLevel;
/// assert!(LogLevel::Debug < LogLevel::Error);
/// assert_eq!(LogLevel::Warning.to_string(), "warning");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// For those who look for a fault.
    Debug = 1,
    /// What goes on.
    Info = 2,
    /// Of note.
    Notice = 3,
    /// May become a fault.
    Warning = 4,
    /// A fault.
    Error = 5,
    /// A fault that needs somebody now.
    Critical = 6,
}

impl LogLevel {
    pub(crate) fn from_number(number: i32) -> Self {
        match number {
            1 => Self::Debug,
            3 => Self::Notice,
            4 => Self::Warning,
            5 => Self::Error,
            6 => Self::Critical,
            _ => Self::Info,
        }
    }

    pub(crate) fn number(self) -> i32 {
        self as i32
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        })
    }
}

/// Who makes a call; what is not known is empty.
///
/// ```
/// use plugmesh_sdk::{Context, ToolError};
/// async fn greet(ctx: Context) -> Result<String, ToolError> {
///     Ok(format!("Hello {}!", ctx.caller().plugin))
/// }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caller {
    /// The calling plugin; empty: a client of a gateway.
    pub plugin: String,
    /// The calling plugin's instance (UUID).
    pub instance: String,
    /// The node or gateway that the call entered by.
    pub node: String,
}

impl From<common::Caller> for Caller {
    fn from(wire: common::Caller) -> Self {
        Self {
            plugin: wire.plugin,
            instance: wire.instance,
            node: wire.node,
        }
    }
}

/// W3C Trace Context; empty texts mean that there is none.
///
/// ```
/// use plugmesh_sdk::{Context, NoArgs, Plugin, Tool};
/// let plugin = Plugin::new("demo", "1.0.0").tool(Tool::new("trace"), async |_: NoArgs, ctx: Context| {
///     Ok(ctx.trace().traceparent)
/// });
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceContext {
    /// The `traceparent` header.
    pub traceparent: String,
    /// The `tracestate` header.
    pub tracestate: String,
}

impl From<common::TraceContext> for TraceContext {
    fn from(wire: common::TraceContext) -> Self {
        Self {
            traceparent: wire.traceparent,
            tracestate: wire.tracestate,
        }
    }
}

impl From<TraceContext> for common::TraceContext {
    fn from(trace: TraceContext) -> Self {
        Self {
            traceparent: trace.traceparent,
            tracestate: trace.tracestate,
        }
    }
}
