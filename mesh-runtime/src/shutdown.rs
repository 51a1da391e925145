//! The wish to stop, and the signals that bring it.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::Tasks;

/// The exit code of a process that a second signal ends at once.
pub const FORCED_EXIT_CODE: i32 = 130;

/// Tells the parts of a process that it shall stop. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Not yet triggered.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Triggers on SIGTERM and SIGINT; a second signal ends the process at once with
    /// [`FORCED_EXIT_CODE`].
    ///
    /// # Errors
    /// When the system refuses a signal handler.
    pub fn on_signals(&self, tasks: &Tasks) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (shutdown, stop) = (self.clone(), tasks.token());
        tasks.spawn("signals", async move {
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                    () = stop.cancelled() => return,
                };
                if shutdown.is_triggered() {
                    tracing::warn!(signal = name, "a second signal: leaving at once");
                    std::process::exit(FORCED_EXIT_CODE);
                }
                tracing::info!(signal = name, "stopping; a second signal leaves at once");
                shutdown.trigger();
            }
        });
        Ok(())
    }

    /// Wishes to stop. Further calls do nothing.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    /// Resolves once stopping is wished.
    pub async fn wait(&self) {
        self.token.cancelled().await;
    }

    /// Whether stopping is wished.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        self.token.is_cancelled()
    }

    /// The wish as a token, for what takes one.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}
