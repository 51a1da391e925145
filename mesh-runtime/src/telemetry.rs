//! Logs on stderr and, when an endpoint is given, spans by OTLP.
//!
//! Spans are made only while they are exported: without an exporter nothing enables the target
//! [`crate::trace::RPC_TARGET`], and a disabled span costs a load of an atomic.

mod export;
mod format;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, FilterExt, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::config::TelemetryConfig;
use export::Exporter;

/// Spans of this target and those below it are exported.
const SPAN_TARGET: &str = "plugmesh";

/// How long the last spans may take to leave.
const FLUSH: Duration = Duration::from_secs(2);

/// Whether and where to spans are exported. Cheap to clone; passed to those who want to know.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    endpoint: Option<Arc<str>>,
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter can't be read.
    #[error(
        "telemetry.log_level: {given:?} is not a filter: {why}; write error, warn, info, debug, \
         trace, or pairs such as info,gateway=debug"
    )]
    Filter {
        /// What was given.
        given: String,
        /// What the parser says.
        why: String,
    },
    /// The exporter can't be built.
    #[error(
        "telemetry.otlp_endpoint: {given:?} can't be used: {why}; write the address of a collector \
         that takes OTLP over gRPC, such as http://127.0.0.1:4317"
    )]
    Endpoint {
        /// What was given.
        given: String,
        /// What the library says.
        why: String,
    },
    /// Something else in this process logs already.
    #[error("logging is set up already; set it up once per process")]
    AlreadySet,
}

/// Keeps the exporter; end it with [`TelemetryGuard::shutdown`] before the process ends.
#[derive(Debug)]
pub struct TelemetryGuard {
    telemetry: Telemetry,
    exporter: Option<Exporter>,
}

impl Telemetry {
    /// Nothing is exported.
    #[must_use]
    pub fn off() -> Self {
        Self::default()
    }

    /// Sets up logs on stderr, panics as log lines, and the export of spans when the configuration or
    /// the environment (OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT) gives an
    /// endpoint. `role` is such as "gateway", `name` tells instances of the role apart. Takes effect
    /// for the whole process.
    ///
    /// # Errors
    /// [`TelemetryError`] that names the setting.
    pub fn init(
        config: &TelemetryConfig,
        role: &str,
        name: &str,
    ) -> Result<TelemetryGuard, TelemetryError> {
        let filter = log_filter(&config.log_level)?;
        let exporter = export::endpoint(config)
            .map(|endpoint| Exporter::start(&endpoint, role, name))
            .transpose()?;
        tracing_subscriber::registry()
            .with(layers(config, filter, exporter.as_ref()))
            .try_init()
            .map_err(|_| TelemetryError::AlreadySet)?;
        log_panics();
        let endpoint = exporter.as_ref().map(|exporter| exporter.endpoint());
        if let Some(endpoint) = &endpoint {
            tracing::info!(%endpoint, "spans are exported");
        }
        Ok(TelemetryGuard {
            telemetry: Self { endpoint },
            exporter,
        })
    }

    /// Whether spans are exported.
    #[must_use]
    pub fn is_exporting(&self) -> bool {
        self.endpoint.is_some()
    }

    /// Where to spans are exported.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }
}

impl TelemetryGuard {
    /// The handle.
    #[must_use]
    pub fn telemetry(&self) -> Telemetry {
        self.telemetry.clone()
    }

    /// Sends what is not yet sent; takes at most about two seconds, whether or not the endpoint
    /// answers.
    pub async fn shutdown(self) {
        if let Some(exporter) = self.exporter {
            exporter.stop(FLUSH).await;
        }
    }
}

/// Where lines and spans go. Only what is there: an absent layer (`Option`) makes `tracing` ask every
/// time whether somebody wants a span, and take it that somebody does, which costs a part of the
/// processor time of an agent.
fn layers(
    config: &TelemetryConfig,
    filter: EnvFilter,
    exporter: Option<&Exporter>,
) -> Vec<Box<dyn Layer<Registry> + Send + Sync>> {
    let lines = format::layer(config.log_format)
        .with_filter(filter.and(filter_fn(|metadata| metadata.is_event())));
    let spans = exporter.map(|exporter| {
        tracing_opentelemetry::layer()
            .with_tracer(exporter.provider().tracer("plugmesh"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(SPAN_TARGET, LevelFilter::TRACE))
            .boxed()
    });
    spans.into_iter().chain([lines.boxed()]).collect()
}

/// Libraries that write lines for each request, client or connection, at the levels that
/// people leave on. A pair such as `rmcp=debug` in the setting brings them back.
const QUIET: [&str; 2] = ["rmcp=off", "async_nats=warn"];

/// Checks a log level without setting anything up.
///
/// # Errors
/// [`TelemetryError::Filter`] with what is wrong with it.
pub fn check_log_level(text: &str) -> Result<(), TelemetryError> {
    log_filter(text).map(drop)
}

fn log_filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    let refused = |why: String| TelemetryError::Filter {
        given: text.to_owned(),
        why,
    };
    // EnvFilter takes any single word as a target that is to be traced, which a mistyped level is
    // more often than not.
    let words: Vec<&str> = text.split(',').map(str::trim).collect();
    for word in &words {
        let level = word.rsplit('=').next().unwrap_or(word);
        if level.is_empty() || level.parse::<LevelFilter>().is_err() {
            return Err(refused(format!("{level:?} is not a level")));
        }
    }
    // Of two pairs for the same library the later one counts: the setting's.
    let quiet = QUIET.iter().copied().filter(|_| !words.contains(&"off"));
    let all: Vec<&str> = quiet.chain(words.iter().copied()).collect();
    EnvFilter::builder()
        .parse(all.join(","))
        .map_err(|error| refused(error.to_string()))
}

/// Panics become log lines, so that they are in the log of a service and in JSON where that is wished.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let text = panic.payload_as_str().unwrap_or("no text");
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        tracing::error!(place, thread, "panicked: {text}");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_pairs_are_filters_and_other_words_are_not() {
        for good in [
            "info",
            "WARN",
            "info,gateway=debug",
            "off",
            "error, mesh_bus=trace",
        ] {
            assert!(check_log_level(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "loud", "info,gateway", "gateway=loud"] {
            let error = check_log_level(bad).map_err(|error| error.to_string());
            let Err(error) = error else {
                panic!("{bad} was taken");
            };
            assert!(error.starts_with("telemetry.log_level: "), "{error}");
            assert!(error.contains("write error, warn, info"), "{error}");
        }
    }

    #[test]
    fn no_span_is_made_when_none_is_exported() {
        let config = TelemetryConfig::default();
        let filter = log_filter("info").unwrap_or_default();
        let layers = layers(&config, filter, None);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layers), || {
            assert!(tracing::error_span!("of a library").is_disabled());
            assert!(tracing::error_span!(target: "plugmesh::rpc", "own").is_disabled());
        });
    }

    #[test]
    fn without_an_endpoint_nothing_is_exported() {
        assert!(!Telemetry::off().is_exporting());
        assert_eq!(Telemetry::off().endpoint(), None);
    }
}
