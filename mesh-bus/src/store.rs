//! The registry's store: a JetStream key-value bucket, written by compare-and-set and followed as a
//! snapshot and its changes.
//!
//! It has a connection of its own, so that neither the traffic of calls stalls it nor it that. A
//! connection lives for one session; whatever goes wrong ends the session, and the next one starts
//! from nothing: connection, bucket, snapshot. That leaves no state of the client library to be wrong
//! about (its watches can go deaf for a minute without an error when a NATS node dies).

pub(crate) mod bucket;
mod follow;
mod snapshot;
mod write;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mesh_core::id::MeshName;
use tokio::sync::{Notify, mpsc};

use crate::config::BusConfig;
use crate::connect::Connector;
use crate::error::BusError;
use bucket::Bucket;

/// Events that wait for a slow follower before the store waits for it.
const FOLLOWER_QUEUE: usize = 1_024;

/// How the bucket is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreConfig {
    /// Copies of the bucket in a NATS cluster, 1 to 5; used when the bucket is created.
    pub replicas: usize,
}

/// Why a write failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The key's sequence is not the expected one. Nothing was written.
    #[error("key {key} was changed by another: it is at sequence {current}, not {expected}")]
    Conflict {
        /// The key.
        key: String,
        /// The sequence that was expected.
        expected: u64,
        /// The sequence that the key has, or that of its deletion; 0: nothing is known of it.
        current: u64,
    },
    /// The store can't be reached, or has no leader. Nothing was written.
    #[error("the registry's store is not reachable: {why}")]
    Unavailable {
        /// What NATS says.
        why: String,
    },
    /// The write was sent, and neither an answer nor a reading says whether it was stored.
    #[error("it is not known whether key {key} was written: {why}; follow the store to see")]
    Unknown {
        /// The key.
        key: String,
        /// What NATS says.
        why: String,
    },
    /// The key or value is not valid. Nothing was written.
    #[error("key {key:?} can't be written: {why}")]
    Invalid {
        /// The key, shortened to 80 characters.
        key: String,
        /// The rule that it breaks.
        why: &'static str,
    },
}

/// What happens in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreEvent {
    /// Forget everything: a snapshot follows. A changed epoch is a new bucket.
    Reset {
        /// The bucket's creation in milliseconds since 1970.
        epoch: u64,
        /// The sequence of the last change that is in the snapshot. It may be a deletion that the
        /// store has forgotten since, so that no entry has it.
        last: u64,
    },
    /// A key has a value (or `None`: it was deleted) since a sequence. Sequences grow within an
    /// epoch; those of a snapshot have gaps, those of later changes have none.
    Entry {
        /// The key.
        key: String,
        /// Its value; `None`: deleted.
        value: Option<Bytes>,
        /// The sequence of the change in the bucket.
        sequence: u64,
        /// When it was stored, in milliseconds since 1970, by the store's clock.
        at_ms: u64,
    },
    /// All that was stored until now has been told.
    Current,
    /// What has been told may be old: the store can't be reached. `Reset` follows when it can.
    Lost,
}

/// The registry's store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RegistryStore {
    shared: Arc<StoreShared>,
}

#[derive(Debug)]
struct StoreShared {
    connector: Connector,
    mesh: MeshName,
    config: StoreConfig,
    /// The bucket of the session at hand; none while there is no session.
    bucket: Mutex<Option<Bucket>>,
    followers: Mutex<Vec<mpsc::Sender<StoreEvent>>>,
    /// Followers that ever came, and what else asks for a snapshot.
    joined: AtomicU64,
    join: Notify,
}

impl StoreShared {
    fn bucket(&self) -> MutexGuard<'_, Option<Bucket>> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn followers(&self) -> MutexGuard<'_, Vec<mpsc::Sender<StoreEvent>>> {
        self.followers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a snapshot.
    fn read_anew(&self) {
        self.joined.fetch_add(1, Ordering::Release);
        self.join.notify_one();
    }

    /// Tells all followers, waiting for those that are slow: the subscription holds the changes
    /// that come meanwhile, and should it overflow, the gap is seen.
    async fn tell(&self, event: &StoreEvent) {
        let followers = self.followers().clone();
        let mut gone = false;
        for follower in followers {
            gone |= follower.send(event.clone()).await.is_err();
        }
        if gone {
            self.followers().retain(|follower| !follower.is_closed());
        }
    }
}

/// The task behind a [`RegistryStore`].
#[derive(Debug)]
pub struct StoreDriver {
    shared: Arc<StoreShared>,
}

impl StoreDriver {
    /// Connects, follows and connects again, until `stop` ends. Followers then end.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let sessions = async {
            let mut told = String::new();
            // Not all begin with the first server, and none begins anew with the one that it lost.
            for turn in fastrand::usize(..1 << 16).. {
                let why = follow::session(&self.shared, turn).await;
                *self.shared.bucket() = None;
                // Once for each reason, not for each try.
                if why != told {
                    tracing::warn!(%why, "there is no registry's store; it is tried again");
                    told = why;
                }
                tokio::time::sleep(Duration::from_millis(fastrand::u64(100..=250))).await;
            }
        };
        tokio::select! {
            () = stop => {}
            () = sessions => {}
        }
        *self.shared.bucket() = None;
        self.shared.followers().clear();
    }
}

/// The store as one follower sees it.
#[derive(Debug)]
pub struct StoreFollower {
    events: mpsc::Receiver<StoreEvent>,
}

impl StoreFollower {
    /// The next event; `None` when the driver has stopped. Safe to cancel. To be taken without long
    /// pauses: the store waits for its slowest follower.
    pub async fn next(&mut self) -> Option<StoreEvent> {
        self.events.recv().await
    }
}

impl RegistryStore {
    /// Prepares the store; the connection is made, and the bucket when there is none, by the driver.
    ///
    /// # Errors
    /// [`BusError`] when addresses or credentials can't be read.
    pub fn open(config: BusConfig, store: StoreConfig) -> Result<(Self, StoreDriver), BusError> {
        let shared = Arc::new(StoreShared {
            connector: Connector::new(&config)?,
            mesh: config.mesh,
            config: store,
            bucket: Mutex::default(),
            followers: Mutex::default(),
            joined: AtomicU64::new(0),
            join: Notify::new(),
        });
        let driver = StoreDriver {
            shared: shared.clone(),
        };
        Ok((Self { shared }, driver))
    }

    /// Writes a key if its sequence is `expected` (0: there is no such key, or it was deleted).
    /// Keys are of `[a-z0-9.-]`. Returns the new sequence.
    ///
    /// # Errors
    /// [`StoreError`]; after `Conflict` take the newest value from the follower and decide again.
    pub async fn put(&self, key: &str, expected: u64, value: Bytes) -> Result<u64, StoreError> {
        let bucket = self.reachable()?;
        self.judged(bucket.write(key, expected, Some(value)).await)
    }

    /// Deletes a key if its sequence is `expected`. Returns the sequence of the deletion.
    ///
    /// # Errors
    /// [`StoreError`], as for [`RegistryStore::put`].
    pub async fn delete(&self, key: &str, expected: u64) -> Result<u64, StoreError> {
        let bucket = self.reachable()?;
        self.judged(bucket.write(key, expected, None).await)
    }

    fn judged(&self, written: Result<u64, StoreError>) -> Result<u64, StoreError> {
        if let Err(StoreError::Conflict {
            expected, current, ..
        }) = &written
            && current < expected
        {
            // What was told of the key is gone; of what is purged nobody is told.
            self.shared.read_anew();
        }
        written
    }

    fn reachable(&self) -> Result<Bucket, StoreError> {
        let bucket = self.shared.bucket().clone();
        bucket.ok_or_else(|| StoreError::Unavailable {
            why: "there is no connection to NATS".to_owned(),
        })
    }

    /// Follows the store: what is in it, then every change. A new follower makes the store begin
    /// anew, with a `Reset`, for all of them.
    #[must_use]
    pub fn follow(&self) -> StoreFollower {
        let (sender, events) = mpsc::channel(FOLLOWER_QUEUE);
        self.shared.followers().push(sender);
        self.shared.read_anew();
        StoreFollower { events }
    }
}
