//! Callers, trace contexts and log levels. Calls themselves stay wire types on the hot path.

use mesh_core::call::{Caller, LogLevel, TraceContext};

use crate::common;

impl common::Credit {
    /// So many more chunks; how many there were in all is not counted.
    #[must_use]
    pub fn of(chunks: u32) -> Self {
        Self {
            chunks,
            ..Self::default()
        }
    }
}

impl From<TraceContext> for common::TraceContext {
    fn from(own: TraceContext) -> Self {
        Self {
            traceparent: own.traceparent,
            tracestate: own.tracestate,
        }
    }
}

impl From<common::TraceContext> for TraceContext {
    fn from(wire: common::TraceContext) -> Self {
        Self {
            traceparent: wire.traceparent,
            tracestate: wire.tracestate,
        }
    }
}

impl From<Caller> for common::Caller {
    fn from(own: Caller) -> Self {
        Self {
            plugin: own.plugin,
            instance: own.instance,
            node: own.node,
        }
    }
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

impl From<LogLevel> for common::LogLevel {
    fn from(own: LogLevel) -> Self {
        match own {
            LogLevel::Debug => Self::Debug,
            LogLevel::Info => Self::Info,
            LogLevel::Notice => Self::Notice,
            LogLevel::Warning => Self::Warning,
            LogLevel::Error => Self::Error,
            LogLevel::Critical => Self::Critical,
        }
    }
}

/// A line without a level tells what goes on.
impl From<common::LogLevel> for LogLevel {
    fn from(wire: common::LogLevel) -> Self {
        match wire {
            common::LogLevel::Debug => Self::Debug,
            common::LogLevel::Unspecified | common::LogLevel::Info => Self::Info,
            common::LogLevel::Notice => Self::Notice,
            common::LogLevel::Warning => Self::Warning,
            common::LogLevel::Error => Self::Error,
            common::LogLevel::Critical => Self::Critical,
        }
    }
}
