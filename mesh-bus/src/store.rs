//! The registry's store: a JetStream key-value bucket, written by compare-and-set and followed as a
//! snapshot and its changes.

use std::future::Future;

use bytes::Bytes;

use crate::config::BusConfig;
use crate::error::BusError;

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
    #[error("key {key} was changed by another: sequence {current} instead of {expected}")]
    Conflict {
        /// The key.
        key: String,
        /// The sequence that was expected.
        expected: u64,
        /// The sequence that the key has; 0: there is no such key.
        current: u64,
    },
    /// The store can't be reached, or has no leader. Nothing was written.
    #[error("the registry's store is not reachable: {why}")]
    Unavailable {
        /// What NATS says.
        why: String,
    },
    /// The write was sent and neither an answer nor a reading says whether it was stored.
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
    },
    /// A key has a value (or `None`: it was deleted) since a sequence. Sequences grow; once
    /// `Current` was said, they grow by one.
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
pub struct RegistryStore {}

/// The task behind a [`RegistryStore`].
#[derive(Debug)]
pub struct StoreDriver {}

impl StoreDriver {
    /// Runs until `stop` ends.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        stop.await;
    }
}

/// The store as one follower sees it.
#[derive(Debug)]
pub struct StoreFollower {}

impl StoreFollower {
    /// The next event; `None` when the driver has stopped. Safe to cancel.
    pub async fn next(&mut self) -> Option<StoreEvent> {
        unimplemented!()
    }
}

impl RegistryStore {
    /// Prepares the store; the connection is made by the driver.
    ///
    /// # Errors
    /// [`BusError`] when addresses or credentials can't be read.
    pub fn open(config: BusConfig, store: StoreConfig) -> Result<(Self, StoreDriver), BusError> {
        let _ = (config, store);
        unimplemented!()
    }

    /// Writes a key if its sequence is `expected` (0: there is no such key, or it was deleted).
    /// Keys are of `[a-z0-9.-]`. Returns the new sequence.
    ///
    /// # Errors
    /// [`StoreError`]; after `Conflict` take the newest value from the follower and decide again.
    pub async fn put(&self, key: &str, expected: u64, value: Bytes) -> Result<u64, StoreError> {
        let _ = (key, expected, value);
        unimplemented!()
    }

    /// Deletes a key if its sequence is `expected`. Returns the sequence of the deletion.
    ///
    /// # Errors
    /// [`StoreError`], as for [`RegistryStore::put`].
    pub async fn delete(&self, key: &str, expected: u64) -> Result<u64, StoreError> {
        let _ = (key, expected);
        unimplemented!()
    }

    /// Follows the store: what is in it, then every change.
    #[must_use]
    pub fn follow(&self) -> StoreFollower {
        unimplemented!()
    }
}
