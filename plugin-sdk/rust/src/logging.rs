//! The plugin's log: events of `tracing` go to the mesh, or to stderr while no agent is there.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context as LayerContext;

use crate::attachment::Attachment;
use crate::calls::LogLevel;
use crate::context::CallState;
use crate::wire::{PluginBody, common, frame, shortened};

/// What is logged when `RUST_LOG` does not say.
const DEFAULT_FILTER: &str = "info";

/// Libraries that carry the log away. What they tell of every frame would be a frame again, and so on
/// for ever: of them only warnings and errors are taken.
const CARRIERS: &[&str] = &[
    "h2",
    "hyper",
    "hyper_util",
    "opentelemetry",
    "opentelemetry_sdk",
    "opentelemetry-otlp",
    "tokio_util",
    "tonic",
    "tower",
];

thread_local! {
    /// The call whose handler runs on this thread right now.
    static CURRENT: RefCell<Option<Arc<CallState>>> = const { RefCell::new(None) };
}

/// Runs `poll`, one step of a handler, with its call as the current one.
pub(crate) fn within<T>(call: &Arc<CallState>, poll: impl FnOnce() -> T) -> T {
    /// Puts back what was current, also when the handler panics.
    struct Back(Option<Arc<CallState>>);
    impl Drop for Back {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let _back = Back(CURRENT.replace(Some(call.clone())));
    poll()
}

/// Where the lines of one plugin go: to the session that it has now.
#[derive(Clone, Default)]
pub(crate) struct Sink {
    inner: Arc<SinkState>,
}

#[derive(Default)]
struct SinkState {
    attachment: RwLock<Option<Arc<Attachment>>>,
    /// Lines that found no room since the last one that did.
    lost: AtomicU64,
}

impl Sink {
    /// Sends lines to this session from now on, or to stderr.
    pub(crate) fn set(&self, attachment: Option<Arc<Attachment>>) {
        let current = self.inner.attachment.write();
        *current.unwrap_or_else(PoisonError::into_inner) = attachment;
    }

    fn write(&self, call: Option<&CallState>, line: common::Log) {
        let attachment = match call {
            Some(call) => Some(call.attachment.clone()),
            None => {
                let current = self.inner.attachment.read();
                current.unwrap_or_else(PoisonError::into_inner).clone()
            }
        };
        let Some(attachment) = attachment else {
            print(&line);
            return;
        };
        let lost = self.inner.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let note = common::Log {
                level: LogLevel::Warning.number(),
                message: format!("{lost} log lines were lost: they came faster than they could go"),
                ..common::Log::default()
            };
            if !attachment.send_lossy(frame(0, PluginBody::Log(note.into()))) {
                self.inner.lost.fetch_add(lost, Ordering::Relaxed);
            }
        }
        let id = call.map_or(0, |call| call.id);
        if !attachment.send_lossy(frame(id, PluginBody::Log(line.into()))) {
            self.inner.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A layer of `tracing_subscriber` that sends events to the mesh's log: within a handler as lines of
/// its call, with the caller's trace; to stderr while the plugin is not attached. Lines that find no
/// room are counted, and the count is logged.
///
/// [`Plugin::run`](crate::Plugin::run) installs it by itself, unless the program has set a subscriber.
///
/// ```
/// use plugmesh_sdk::Plugin;
/// use tracing_subscriber::layer::SubscriberExt;
/// let plugin = Plugin::new("demo", "1.0.0");
/// let subscriber = tracing_subscriber::registry().with(plugin.log_layer());
/// # let _ = subscriber;
/// ```
pub struct LogLayer {
    sink: Sink,
}

impl LogLayer {
    pub(crate) fn new(sink: Sink) -> Self {
        Self { sink }
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        let metadata = event.metadata();
        if is_carrier(metadata) {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *metadata.level() {
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warning,
            Level::INFO => LogLevel::Info,
            Level::DEBUG | Level::TRACE => LogLevel::Debug,
        };
        // A destructor may log after the thread's own storage is gone.
        let call = CURRENT.try_with(|current| current.borrow().clone());
        let call = call.ok().flatten();
        let trace = call.as_ref().map(|call| {
            let telemetry = call.attachment.telemetry;
            telemetry.current(call.parent()).into()
        });
        let line = common::Log {
            level: level.number(),
            message: shortened(fields.message),
            logger: metadata.target().to_owned(),
            fields: if fields.others.is_empty() {
                bytes::Bytes::new()
            } else {
                Value::Object(fields.others).to_string().into()
            },
            trace,
        };
        self.sink.write(call.as_deref(), line);
    }
}

/// Whether something belongs to what carries logs and spans away, and is no warning.
pub(crate) fn is_carrier(metadata: &tracing::Metadata<'_>) -> bool {
    let target = metadata.target();
    let library = target
        .split_once("::")
        .map_or(target, |(library, _)| library);
    *metadata.level() > Level::WARN && CARRIERS.contains(&library)
}

/// Which events are wanted: `RUST_LOG`, or the default when it is not set.
pub(crate) fn filter() -> Targets {
    let given = std::env::var("RUST_LOG").unwrap_or_default();
    let wanted = match given.parse::<Targets>() {
        Ok(targets) if !given.is_empty() => Some(targets),
        Ok(_) => None,
        Err(error) => {
            print_line(
                "WARNING",
                &format!(
                    "RUST_LOG: {given:?} is no filter ({error}); write for example info,my_plugin=debug"
                ),
            );
            None
        }
    };
    wanted.unwrap_or_else(|| DEFAULT_FILTER.parse().unwrap_or_default())
}

/// Prints a line for the person who started the program, or for the agent that did.
pub(crate) fn print_line(level: &str, text: &str) {
    // Nobody can be told when stderr is gone.
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{level} {text}\n"));
}

fn print(line: &common::Log) {
    let level = LogLevel::from_number(line.level).to_string();
    let fields = String::from_utf8_lossy(&line.fields);
    let space = if fields.is_empty() { "" } else { " " };
    let text = format!("{}: {}{space}{fields}", line.logger, line.message);
    print_line(&level.to_ascii_uppercase(), &text);
}

/// Collects the fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", value) => self.message = value.to_string(),
            (name, value) => {
                self.others.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a string fails only when the value's own Debug does.
        let _ = write!(text, "{value:?}");
        self.set(field, shortened(text).into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, shortened(value.to_owned()).into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }
}
