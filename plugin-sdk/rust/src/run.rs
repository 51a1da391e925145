//! Keeps a plugin attached: one session after the other, until it is told to stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::connect::{Address, Connector};
use crate::definition::Definition;
use crate::error::Error;
use crate::logging::{self, Sink};
use crate::session::{self, Ended};
use crate::signals::{Signals, Stop, Stopper};
use crate::telemetry::Telemetry;

/// After a connection that was lost: soon, as agents restart quickly.
const LOST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// After a refusal that may heal, such as a configuration that the operator mends.
const REFUSED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// A session that lasted so long was a good one: the next attempt after it is soon again.
const STABLE: Duration = Duration::from_secs(10);

/// What stays the same from session to session.
pub(crate) struct Runner {
    pub definition: Arc<Definition>,
    pub log: Sink,
    pub telemetry: Telemetry,
    pub connector: Connector,
    /// Where the connector leads, for people.
    pub host: String,
    /// The token that the host put into the environment; empty when it did not start the plugin.
    pub launch_token: String,
    /// Whether to print what becomes of the sessions.
    pub verbose: bool,
}

/// Runs a plugin as a program: environment, subscriber, signals.
pub(crate) async fn run(definition: Definition, log: Sink) -> Result<(), Error> {
    let address = Address::from_environment()?;
    let subscriber = Subscriber::install(&definition, &log);
    let runner = Runner {
        definition: Arc::new(definition),
        log,
        telemetry: Telemetry::from_environment(),
        host: address.to_string(),
        launch_token: std::env::var("PLUGMESH_LAUNCH_TOKEN").unwrap_or_default(),
        verbose: true,
        connector: Connector::Agent(address),
    };
    let (stopper, stop) = Stopper::new();
    let ended = async {
        // Before anything is said: who reads it may send one at once.
        let signals = Signals::listen().map_err(|reason| Error::System {
            doing: "listen for signals",
            reason,
        })?;
        tokio::select! {
            ended = runner.run(stop) => ended,
            () = signals.watch(stopper) => Ok(()),
        }
    }
    .await;
    subscriber.shutdown().await;
    ended
}

impl Runner {
    /// Prints what goes wrong.
    fn warn(&self, line: &str) {
        if self.verbose {
            logging::print_line("WARNING", line);
        }
    }

    /// Prints what goes on, for the person who started the plugin. An agent that did knows it.
    pub(crate) fn tell(&self, line: &str) {
        if self.verbose && self.launch_token.is_empty() {
            logging::print_line("INFO", line);
        }
    }

    /// Attaches again and again.
    pub(crate) async fn run(&self, mut stop: Stop) -> Result<(), Error> {
        let mut lost = Backoff::new(LOST.0, LOST.1);
        let mut refused = Backoff::new(REFUSED.0, REFUSED.1);
        let mut previous = String::new();
        // What was printed last: the same line again and again helps nobody.
        let mut told = String::new();
        loop {
            let begun = Instant::now();
            let ended = session::run(self, &mut previous, &mut stop).await;
            if begun.elapsed() > STABLE {
                lost.reset();
                refused.reset();
            }
            self.log.set(None);
            let (line, wait) = match ended {
                Ended::Stopped => return Ok(()),
                // Not at once: a host that is about to end may ask for it, too.
                Ended::Reattach => (String::new(), lost.wait(fastrand::f64())),
                Ended::Refused { error, for_good } => {
                    if for_good {
                        return Err(Error::Refused(error));
                    }
                    let line = format!("the mesh refused the plugin: {error}");
                    (line, refused.wait(fastrand::f64()))
                }
                Ended::Unreachable(why) => {
                    let line = format!("cannot reach the agent at {}: {why}", self.host);
                    (line, lost.wait(fastrand::f64()))
                }
                Ended::Lost(why) => {
                    told.clear();
                    let line = format!("lost the agent at {}: {why}", self.host);
                    (line, lost.wait(fastrand::f64()))
                }
            };
            if !line.is_empty() && line != told {
                self.warn(&format!("{line}; trying again"));
                told = line;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stop.requested() => return Ok(()),
            }
        }
    }
}

/// What was installed for the time that the program runs.
struct Subscriber {
    #[cfg(feature = "otel")]
    exporter: Option<crate::telemetry::Exporter>,
}

impl Subscriber {
    /// Installs the log layer, and the exporter when an endpoint is set, unless the program has set a
    /// subscriber.
    fn install(definition: &Definition, log: &Sink) -> Self {
        #[cfg(feature = "otel")]
        use tracing_subscriber::filter::FilterFn;
        use tracing_subscriber::layer::{Layer, SubscriberExt};

        #[cfg(not(feature = "otel"))]
        let _ = definition;
        let layer = logging::LogLayer::new(log.clone()).with_filter(logging::filter());
        let registry = tracing_subscriber::registry().with(layer);
        #[cfg(feature = "otel")]
        {
            let exporter = exporter(definition);
            let spans = exporter.as_ref().map(|exporter| {
                // Not what RUST_LOG says: a trace without the spans of calls is torn.
                let wanted = FilterFn::new(|metadata| {
                    *metadata.level() <= tracing::Level::INFO && !logging::is_carrier(metadata)
                });
                crate::telemetry::layer(exporter).with_filter(wanted)
            });
            // It fails when the program has a subscriber, which then is the one to use. An absent layer
            // would make libraries create spans that nobody looks at.
            let _ = match spans {
                Some(spans) => tracing::subscriber::set_global_default(registry.with(spans)),
                None => tracing::subscriber::set_global_default(registry),
            };
            Self { exporter }
        }
        #[cfg(not(feature = "otel"))]
        {
            let _ = tracing::subscriber::set_global_default(registry);
            Self {}
        }
    }

    /// Sends the spans that are left.
    async fn shutdown(self) {
        #[cfg(feature = "otel")]
        if let Some(exporter) = self.exporter {
            // On another thread, as this one must go on for the exporter to get rid of them.
            crate::tasks::blocking(move || exporter.shutdown()).await;
        }
    }
}

#[cfg(feature = "otel")]
fn exporter(definition: &Definition) -> Option<crate::telemetry::Exporter> {
    if !Telemetry::from_environment().is_exporting() {
        return None;
    }
    let manifest = &definition.manifest;
    match crate::telemetry::Exporter::start(&manifest.name, &manifest.version) {
        Ok(exporter) => Some(exporter),
        Err(why) => {
            let text = format!("OTEL_EXPORTER_OTLP_ENDPOINT: spans cannot be exported: {why}");
            logging::print_line("WARNING", &text);
            None
        }
    }
}
