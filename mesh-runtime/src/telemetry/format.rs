//! Log lines: text for people or one JSON object per line, both with the trace and span ids of the
//! span that they are written in.

use std::fmt::{self, Debug, Write};
use std::io::IsTerminal;

use opentelemetry::trace::TraceContextExt;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;

/// The layer that writes log lines to stderr.
pub(super) fn layer<S>(format: LogFormat) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let colours = format == LogFormat::Text
        && std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .fmt_fields(NoFields)
        .event_format(Line { format })
}

/// Spans are exported, not logged: writing down their fields would be for nothing.
struct NoFields;

impl FormatFields<'_> for NoFields {
    fn format_fields<R: RecordFields>(&self, _: Writer<'_>, _: R) -> fmt::Result {
        Ok(())
    }
}

struct Line {
    format: LogFormat,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields.add_trace();
        match self.format {
            LogFormat::Text => text(&mut writer, event, &fields),
            LogFormat::Json => json(&mut writer, event, fields),
        }
    }
}

fn text(writer: &mut Writer<'_>, event: &Event<'_>, fields: &Fields) -> fmt::Result {
    let level = event.metadata().level();
    SystemTime.format_time(writer)?;
    if writer.has_ansi_escapes() {
        write!(writer, " \x1b[{}m{level:>5}\x1b[0m", colour(*level))?;
    } else {
        write!(writer, " {level:>5}")?;
    }
    write!(writer, " {}: {}", event.metadata().target(), fields.message)?;
    for (name, value) in &fields.rest {
        match value {
            // A text without blanks needs no quotes to be read.
            Value::String(text) if !text.is_empty() && !text.contains([' ', '"', '\n']) => {
                write!(writer, " {name}={text}")?;
            }
            other => write!(writer, " {name}={other}")?,
        }
    }
    writeln!(writer)
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

fn json(writer: &mut Writer<'_>, event: &Event<'_>, fields: Fields) -> fmt::Result {
    let mut time = String::new();
    SystemTime.format_time(&mut Writer::new(&mut time))?;
    let mut line = Map::new();
    line.insert("timestamp".to_owned(), time.into());
    line.insert("level".to_owned(), event.metadata().level().as_str().into());
    line.insert("target".to_owned(), event.metadata().target().into());
    line.insert("message".to_owned(), fields.message.into());
    for (name, value) in fields.rest {
        // A field of the event never hides one of the line's own.
        let taken = line.contains_key(&name);
        line.insert(if taken { format!("field.{name}") } else { name }, value);
    }
    writeln!(writer, "{}", Value::Object(line))
}

/// What an event carries.
#[derive(Default)]
struct Fields {
    message: String,
    rest: Vec<(String, Value)>,
}

impl Fields {
    /// Ids of the entered span; there is none while spans are not exported.
    fn add_trace(&mut self) {
        let context = opentelemetry::Context::current();
        let span = context.span();
        let span = span.span_context();
        if span.is_valid() {
            self.add("trace_id", span.trace_id().to_string());
            self.add("span_id", span.span_id().to_string());
        }
    }

    fn add(&mut self, name: &str, value: impl Into<Value>) {
        self.rest.push((name.to_owned(), value.into()));
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.add(field.name(), value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field.name(), value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message.clear();
            // Writing to a String can't fail.
            let _ = write!(self.message, "{value:?}");
        } else {
            self.add(field.name(), format!("{value:?}"));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, log: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .fmt_fields(NoFields)
            .event_format(Line { format });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_has_time_level_target_message_and_fields() {
        let line = written(LogFormat::Text, || {
            tracing::info!(target: "gateway", port = 8087, path = "/a", why = "two words", "ready");
        });
        assert!(
            line.ends_with("  INFO gateway: ready port=8087 path=/a why=\"two words\"\n"),
            "{line}"
        );
    }

    #[test]
    fn a_line_break_in_a_field_does_not_break_the_line() {
        let line = written(LogFormat::Text, || tracing::info!(text = "a\nb", "said"));
        assert_eq!(line.lines().count(), 1, "{line}");
    }

    #[test]
    fn json_is_one_object_with_fields_beside_the_message() {
        let line = written(LogFormat::Json, || {
            tracing::warn!(target: "gateway", level = 3, busy = true, "too {}", "slow");
        });
        let object: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["level"], "WARN");
        assert_eq!(object["field.level"], 3);
        assert_eq!(object["target"], "gateway");
        assert_eq!(object["message"], "too slow");
        assert_eq!(object["busy"], true);
        assert!(object["timestamp"].as_str().unwrap().ends_with('Z'));
        assert_eq!(object.get("trace_id"), None);
    }
}
