//! The shell of a role's process: telemetry, signals, the service, and an ordered end.

use std::future::Future;
use std::time::Duration;

use mesh_runtime::config::LogFormat;
use mesh_runtime::{Context, Tasks, Telemetry, TelemetryConfig, heap};

use crate::exit::{self, Failure};

/// Time that tasks get to end once the service has.
const GRACE: Duration = Duration::from_secs(10);

/// Runs a service on a single-threaded runtime in this thread until it ends or a signal comes; a
/// second signal ends the process at once with [`exit::INTERRUPTED`].
///
/// # Errors
/// What the service failed with, or that a part of it panicked.
pub fn run<S, F>(
    config: &TelemetryConfig,
    role: &str,
    name: &str,
    service: S,
) -> Result<(), Failure>
where
    S: FnOnce(Context) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    heap::share_one();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("no runtime: {error}; check `ulimit -n`")))?;
    runtime.block_on(async {
        let telemetry = Telemetry::init(config, role, name)
            .map_err(|error| Failure::new(exit::CONFIG, error.to_string()))?;
        let context = Context::new(telemetry.telemetry());
        // Of their own, so that a second signal is heard to the very end.
        let signals = Tasks::new();
        context
            .shutdown
            .on_signals(&signals)
            .map_err(|error| Failure::failed(format!("signals can't be handled: {error}")))?;
        let stop = context.tasks.token();
        context.tasks.spawn("heap", heap::give_back(stop));
        tracing::info!(role, name, version = env!("CARGO_PKG_VERSION"), "starting");
        let served = service(context.clone()).await;
        let mut ended = end(&context, served).await;
        if let Err(failure) = &mut ended
            && config.log_format == LogFormat::Json
        {
            // Who reads JSON reads it to the last line: nothing else is said.
            let error = std::mem::take(&mut failure.message);
            tracing::error!(error, exit_code = failure.code, "failed");
        }
        telemetry.shutdown().await;
        signals.cancel();
        ended
    })
}

/// Ends what still runs, and says what went wrong.
async fn end(context: &Context, served: Result<(), Failure>) -> Result<(), Failure> {
    context.shutdown.trigger();
    context.tasks.cancel();
    let report = context.tasks.join(GRACE).await;
    served?;
    if !report.panicked.is_empty() {
        let names = report.panicked.join(", ");
        return Err(Failure::failed(format!(
            "these parts panicked, which is a bug: {names}"
        )));
    }
    tracing::info!("stopped");
    Ok(())
}
