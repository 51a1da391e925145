//! Whether agents and followers may join: not where the registry's store can't be reached.
//!
//! Who joins a coordinator that can store nothing is not known to the others, and gets no changes. So
//! it is told to go on to the next one. Those who are here already stay: they would find no better
//! place while the broker itself is down. A short loss is nobody's business.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::error::{ErrorCode, MeshError};
use mesh_engine::engine::StoreState;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How long the store may be out of reach before nobody may join.
const PATIENCE: Duration = Duration::from_secs(5);

/// How it is with the store, and since when.
#[derive(Debug, Clone, Copy)]
struct Standing {
    store: StoreState,
    since: Instant,
}

/// The actor says how it stands, the services ask. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Joining {
    standing: Arc<watch::Sender<Standing>>,
}

impl Joining {
    /// Nothing is known yet.
    pub(crate) fn new() -> Self {
        let standing = Standing {
            store: StoreState::Starting,
            since: Instant::now(),
        };
        Self {
            standing: Arc::new(watch::Sender::new(standing)),
        }
    }

    /// Says how it is with the store.
    pub(crate) fn set(&self, store: StoreState) {
        self.standing.send_if_modified(|standing| {
            let changed = standing.store != store;
            if changed {
                *standing = Standing {
                    store,
                    since: Instant::now(),
                };
            }
            changed
        });
    }

    /// Waits for a store that is expected at any moment.
    ///
    /// # Errors
    /// It is out of reach for too long.
    pub(crate) async fn may_join(&self) -> Result<(), MeshError> {
        let mut following = self.standing.subscribe();
        loop {
            let Standing { store, since } = *following.borrow_and_update();
            let until = since + PATIENCE;
            match store {
                StoreState::Current => return Ok(()),
                StoreState::Lost if Instant::now() < until => return Ok(()),
                StoreState::Lost => return Err(lost()),
                StoreState::Starting => match timeout_at(until, following.changed()).await {
                    Ok(Ok(())) => {}
                    // The sender is held here.
                    Ok(Err(_)) | Err(_) => return Err(never_reached()),
                },
            }
        }
    }
}

fn never_reached() -> MeshError {
    MeshError::new(
        ErrorCode::Disconnected,
        "this coordinator has not reached the registry's store in NATS yet, so nobody can join: ask \
         another coordinator, or this one again; see whether NATS runs with JetStream, and nats.url",
    )
}

fn lost() -> MeshError {
    MeshError::new(
        ErrorCode::Disconnected,
        "this coordinator has lost the registry's store in NATS, so nobody can join: ask another \
         coordinator, or this one again; see whether NATS runs with JetStream, and nats.url",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_comes_early_is_served_as_soon_as_the_store_is_there() {
        let joining = Joining::new();
        let later = async {
            tokio::task::yield_now().await;
            joining.set(StoreState::Current);
        };
        let (joined, ()) = tokio::join!(joining.may_join(), later);
        assert_eq!(joined, Ok(()));
        joining.set(StoreState::Lost);
        assert_eq!(joining.may_join().await, Ok(()), "a short loss");
    }
}
