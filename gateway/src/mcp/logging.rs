//! Log lines of plugins as MCP messages, and the level from which on a client wants them.

// MCP 2026-07-28 deprecates logging, and clients of both versions still use it.
#![expect(deprecated, reason = "clients still ask for logs")]

use std::sync::atomic::{AtomicU8, Ordering};

use mesh_proto::common;
use rmcp::model::{LoggingLevel, LoggingMessageNotificationParam};
use serde_json::{Map, Value};

/// The level of a session until its client sets one.
const INITIAL: LoggingLevel = LoggingLevel::Info;

/// How grave a level is; greater is graver.
#[must_use]
pub fn gravity(level: LoggingLevel) -> u8 {
    match level {
        LoggingLevel::Debug => 0,
        LoggingLevel::Info => 1,
        LoggingLevel::Notice => 2,
        LoggingLevel::Warning => 3,
        LoggingLevel::Error => 4,
        LoggingLevel::Critical => 5,
        LoggingLevel::Alert => 6,
        LoggingLevel::Emergency => 7,
    }
}

/// The level of one session.
#[derive(Debug)]
pub struct SessionLevel(AtomicU8);

impl Default for SessionLevel {
    fn default() -> Self {
        Self(AtomicU8::new(gravity(INITIAL)))
    }
}

impl SessionLevel {
    /// The client wants messages of this level and above from now on.
    pub fn set(&self, level: LoggingLevel) {
        self.0.store(gravity(level), Ordering::Relaxed);
    }

    /// The least gravity that the client wants.
    #[must_use]
    pub fn least(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The level of a line on the wire.
#[must_use]
pub fn level_of(log: &common::Log) -> LoggingLevel {
    match common::LogLevel::try_from(log.level) {
        Ok(common::LogLevel::Debug) => LoggingLevel::Debug,
        Ok(common::LogLevel::Notice) => LoggingLevel::Notice,
        Ok(common::LogLevel::Warning) => LoggingLevel::Warning,
        Ok(common::LogLevel::Error) => LoggingLevel::Error,
        Ok(common::LogLevel::Critical) => LoggingLevel::Critical,
        _ => LoggingLevel::Info,
    }
}

/// The message for the client. `plugin` stands before the logger's name, so that a person sees whose
/// line it is. The data is the text, or an object of the text and the plugin's fields.
#[must_use]
pub fn message(log: common::Log, plugin: &str) -> LoggingMessageNotificationParam {
    let level = level_of(&log);
    let fields = serde_json::from_slice::<Map<String, Value>>(&log.fields).unwrap_or_default();
    let data = if fields.is_empty() {
        Value::String(log.message)
    } else {
        let message = [("message".to_owned(), Value::String(log.message))];
        Value::Object(message.into_iter().chain(fields).collect())
    };
    let logger = if log.logger.is_empty() {
        plugin.to_owned()
    } else {
        format!("{plugin}/{}", log.logger)
    };
    LoggingMessageNotificationParam::new(level, data).with_logger(logger)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use serde_json::json;

    fn log(level: common::LogLevel, fields: &str) -> common::Log {
        common::Log {
            level: level.into(),
            message: "text".to_owned(),
            logger: "db".to_owned(),
            fields: fields.to_owned().into(),
            trace: None,
        }
    }

    #[test]
    fn a_line_becomes_a_message_that_names_its_plugin() {
        let message = message(log(common::LogLevel::Warning, ""), "time");
        assert_eq!(
            serde_json::to_value(message).unwrap(),
            json!({ "level": "warning", "logger": "time/db", "data": "text" })
        );
    }

    #[test]
    fn fields_stand_beside_the_text() {
        let message = message(log(common::LogLevel::Error, "{\"a\":1}"), "time");
        assert_eq!(message.data, json!({ "message": "text", "a": 1 }));
    }

    #[test]
    fn a_session_starts_at_info_and_changes_by_wish() {
        let level = SessionLevel::default();
        assert!(gravity(LoggingLevel::Info) >= level.least());
        assert!(gravity(LoggingLevel::Debug) < level.least());
        level.set(LoggingLevel::Error);
        assert!(gravity(LoggingLevel::Warning) < level.least());
    }
}
