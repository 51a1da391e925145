//! When the program is told to stop.

use std::sync::Arc;

use tokio::sync::watch;

/// Tells the session that the plugin shall stop.
#[derive(Clone)]
pub(crate) struct Stop {
    requested: watch::Receiver<Option<Arc<str>>>,
}

/// Makes plugins stop.
pub(crate) struct Stopper {
    sender: watch::Sender<Option<Arc<str>>>,
}

impl Stopper {
    pub(crate) fn new() -> (Self, Stop) {
        let (sender, requested) = watch::channel(None);
        (Self { sender }, Stop { requested })
    }

    /// Asks for the stop; `reason` is for a person.
    pub(crate) fn stop(&self, reason: &str) {
        self.sender.send_replace(Some(reason.into()));
    }

    /// Whether nobody listens any more.
    pub(crate) async fn unheard(&self) {
        self.sender.closed().await;
    }
}

impl Stop {
    /// Waits for the request and gives its reason. Never ends when nobody can ask any more.
    pub(crate) async fn requested(&mut self) -> Arc<str> {
        match self.requested.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_else(|| "".into()),
            Err(_) => std::future::pending().await,
        }
    }
}

impl Signals {
    /// Stops the plugin on SIGTERM and Ctrl-C; on the second of these the program ends at once with
    /// exit code 130.
    pub(crate) async fn watch(mut self, stopper: Stopper) {
        let name = self.next().await;
        stopper.stop(name);
        tokio::select! {
            _ = self.next() => std::process::exit(130),
            () = stopper.unheard() => {}
        }
    }
}

/// SIGTERM and Ctrl-C, from when they are listened to.
#[cfg(unix)]
pub(crate) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "Ctrl-C",
        }
    }
}

#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> &'static str {
        match tokio::signal::ctrl_c().await {
            Ok(()) => "Ctrl-C",
            Err(_) => std::future::pending().await,
        }
    }
}
