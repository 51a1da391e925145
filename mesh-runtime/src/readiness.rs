//! Readiness: a process is ready when each of its parts said so, until it is to stop.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What `/ready` tells of one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The part.
    pub name: String,
    /// Whether it can work.
    pub ready: bool,
    /// Why not, for a person. When ready: empty, or what a person should know.
    pub detail: String,
}

/// What `/ready` tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Every part is ready.
    pub ready: bool,
    /// The parts in the order of their latches.
    pub checks: Vec<Check>,
}

/// Collects the readiness of a process's parts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness {
    checks: Arc<Mutex<Vec<Check>>>,
    changed: watch::Sender<()>,
    stopping: CancellationToken,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            checks: Arc::default(),
            changed: watch::Sender::new(()),
            stopping: CancellationToken::new(),
        }
    }
}

impl Readiness {
    /// No parts yet: ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No parts yet; not ready from when `stopping` is cancelled.
    #[must_use]
    pub fn until(stopping: CancellationToken) -> Self {
        Self {
            stopping,
            ..Self::default()
        }
    }

    /// Adds a part that is not ready until its latch says so. Take all latches before the first
    /// part starts, so that the process is not called ready too early.
    #[must_use]
    pub fn latch(&self, name: &str) -> ReadyLatch {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.push(Check {
            name: name.to_owned(),
            ready: false,
            detail: "starting".to_owned(),
        });
        let index = checks.len() - 1;
        drop(checks);
        self.changed.send_replace(());
        ReadyLatch {
            readiness: self.clone(),
            index,
        }
    }

    /// How it stands.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut checks = self
            .checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if self.stopping.is_cancelled() {
            checks.push(Check {
                name: "running".to_owned(),
                ready: false,
                detail: "the process is stopping".to_owned(),
            });
        }
        Report {
            ready: checks.iter().all(|check| check.ready),
            checks,
        }
    }

    /// Whether every part is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        !self.stopping.is_cancelled() && checks.iter().all(|check| check.ready)
    }

    /// Resolves once every part is ready.
    pub async fn ready(&self) {
        let mut changed = self.changed.subscribe();
        while !self.is_ready() {
            // The sender lives in self, so waiting can't fail.
            let _ = changed.changed().await;
        }
    }

    fn set(&self, index: usize, ready: bool, detail: String) {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(check) = checks.get_mut(index) else {
            return;
        };
        if (check.ready, &check.detail) == (ready, &detail) {
            return;
        }
        check.ready = ready;
        check.detail = detail;
        drop(checks);
        self.changed.send_replace(());
    }
}

/// One part's say in the readiness of its process.
#[derive(Debug)]
pub struct ReadyLatch {
    readiness: Readiness,
    index: usize,
}

impl ReadyLatch {
    /// The part can work.
    pub fn set_ready(&self) {
        self.readiness.set(self.index, true, String::new());
    }

    /// The part can work, and what a person should know about it all the same.
    pub fn set_ready_with(&self, note: impl Into<String>) {
        self.readiness.set(self.index, true, note.into());
    }

    /// The part can't work, and why.
    pub fn set_not_ready(&self, detail: impl Into<String>) {
        self.readiness.set(self.index, false, detail.into());
    }

    /// The part can work while a connection stands; `down` says why it can't otherwise. Returns once
    /// nobody tells of the connection any more, or `stop` is cancelled.
    pub async fn follow(self, mut up: watch::Receiver<bool>, down: &str, stop: CancellationToken) {
        loop {
            if *up.borrow_and_update() {
                self.set_ready();
            } else {
                self.set_not_ready(down);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = up.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_all_its_parts_are() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let (bus, table) = (readiness.latch("bus"), readiness.latch("table"));
        assert!(!readiness.is_ready());
        bus.set_ready();
        assert!(!readiness.is_ready());
        table.set_ready();
        assert!(readiness.is_ready());
        bus.set_not_ready("the broker is not reachable");
        let report = readiness.report();
        assert!(!report.ready);
        assert_eq!(
            report.checks,
            [
                Check {
                    name: "bus".to_owned(),
                    ready: false,
                    detail: "the broker is not reachable".to_owned(),
                },
                Check {
                    name: "table".to_owned(),
                    ready: true,
                    detail: String::new(),
                },
            ]
        );
    }

    #[tokio::test]
    async fn waiting_ends_when_the_last_part_is_ready() {
        let readiness = Readiness::new();
        let latch = readiness.latch("bus");
        let waiting = readiness.clone();
        let wait = tokio::spawn(async move { waiting.ready().await });
        latch.set_ready();
        assert!(wait.await.is_ok());
    }

    #[test]
    fn a_process_that_is_to_stop_is_not_ready() {
        let stopping = CancellationToken::new();
        let readiness = Readiness::until(stopping.clone());
        assert!(readiness.is_ready());
        stopping.cancel();
        assert!(!readiness.is_ready());
        let report = readiness.report();
        assert!(!report.ready && report.checks[0].detail.contains("stopping"));
    }
}
