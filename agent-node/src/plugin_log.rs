//! Lines that plugins write end up in the log of the mesh.

use std::borrow::Cow;

use mesh_core::error::Place;
use mesh_proto::common;
use tokio::time::Instant;

use crate::rate_gate::{Pass, RateGate};

/// Longest text of one line, in bytes; the rest is cut.
const MAX_TEXT: usize = 8 * 1024;

/// Cuts what is too long to be passed on.
pub(crate) fn shorten(log: &mut common::Log) {
    shorten_text(&mut log.message);
    shorten_text(&mut log.logger);
    if log.fields.len() > MAX_TEXT {
        // JSON that is cut is no JSON.
        let bytes = log.fields.len();
        log.fields = format!(r#"{{"left_out":"{bytes} bytes, {MAX_TEXT} are passed on"}}"#).into();
    }
}

/// Cuts a text that is too long to be passed on.
pub(crate) fn shorten_text(text: &mut String) {
    let length = cut(text).len();
    text.truncate(length);
}

/// Writes a line that a plugin sent over its stream, before which so many were left out.
pub(crate) fn write(dropped: u64, place: &Place, log: &common::Log) {
    tell_dropped(dropped, &place.plugin, &place.instance);
    let fields = String::from_utf8_lossy(&log.fields);
    let trace = log.trace.as_ref().map(|trace| trace_id(&trace.traceparent));
    let (message, logger) = (clean(cut(&log.message)), clean(&log.logger));
    let logger = &*logger;
    let (plugin, instance) = (place.plugin.as_str(), place.instance.as_str());
    // Each level is a call site of its own, which the filter can switch off.
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: "plugin",
                plugin,
                instance,
                logger = (!logger.is_empty()).then_some(logger),
                trace_id = trace.filter(|trace| !trace.is_empty()),
                fields = (!fields.is_empty()).then(|| clean(cut(&fields))).as_deref(),
                "{message}"
            )
        };
    }
    match log.level() {
        common::LogLevel::Debug => line!(debug),
        common::LogLevel::Unspecified | common::LogLevel::Info | common::LogLevel::Notice => {
            line!(info);
        }
        common::LogLevel::Warning => line!(warn),
        common::LogLevel::Error | common::LogLevel::Critical => line!(error),
    }
}

/// Writes a line that a plugin's process wrote to its standard output or error.
pub(crate) fn write_output(gate: &mut RateGate, plugin: &str, stream: &str, line: &str) {
    let Pass::Yes { dropped } = gate.pass(Instant::now()) else {
        return;
    };
    tell_dropped(dropped, plugin, "");
    tracing::info!(target: "plugin", plugin, stream, "{}", clean(cut(line)));
}

fn tell_dropped(dropped: u64, plugin: &str, instance: &str) {
    if dropped > 0 {
        tracing::warn!(
            plugin,
            instance = (!instance.is_empty()).then_some(instance),
            dropped,
            "the plugin logs too much: lines were left out"
        );
    }
}

/// The trace id within a `traceparent` (W3C Trace Context: version-trace-parent-flags).
fn trace_id(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).unwrap_or_default()
}

/// Writes control characters out, so that a plugin can forge no line and move no cursor.
fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let written = text.chars().flat_map(|c| {
        let escaped = c.is_control().then(|| c.escape_default());
        let plain = escaped.is_none().then_some(c);
        escaped.into_iter().flatten().chain(plain)
    });
    Cow::Owned(written.collect())
}

fn cut(text: &str) -> &str {
    if text.len() <= MAX_TEXT {
        return text;
    }
    let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let text = "é".repeat(MAX_TEXT);
        assert_eq!(cut(&text).len(), MAX_TEXT);
        assert_eq!(cut("short"), "short");
    }

    #[test]
    fn a_text_cannot_forge_a_line() {
        assert_eq!(clean("one\n\u{1b}[31mé"), "one\\n\\u{1b}[31mé");
        assert_eq!(clean("plain"), "plain");
    }

    #[test]
    fn a_line_that_is_passed_on_is_no_longer_than_one_that_is_written() {
        let mut log = common::Log {
            message: "x".repeat(200_000),
            fields: vec![b'1'; 20_000].into(),
            ..common::Log::default()
        };
        shorten(&mut log);
        assert_eq!(log.message.len(), MAX_TEXT);
        assert_eq!(
            log.fields,
            r#"{"left_out":"20000 bytes, 8192 are passed on"}"#
        );
    }

    #[test]
    fn the_trace_id_is_found_in_a_traceparent() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(trace_id(parent), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(trace_id("garbage"), "");
    }
}
