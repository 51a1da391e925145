//! What the actor wants of a store: writing by compare-and-set, and following.
//!
//! The mesh's own is `mesh_bus::RegistryStore`; tests bring one in memory.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use mesh_bus::{RegistryStore, StoreError, StoreEvent, StoreFollower};
use mesh_core::revision::Timestamp;
use mesh_engine::engine::{Event, WriteError, WriteId};
use mesh_engine::record::Key;

/// A write that has no answer after this is given up; whether it was stored is seen by following.
const ANSWER: Duration = Duration::from_secs(10);

/// Where records are kept. Cheap to clone.
pub(crate) trait Store: Clone + Send + Sync + 'static {
    /// Writes (or with `None` deletes) a key whose sequence is `expected`; gives its new sequence.
    fn write(
        &self,
        key: String,
        expected: u64,
        value: Option<Bytes>,
    ) -> BoxFuture<'static, Result<u64, StoreError>>;
}

/// What is told of the store.
pub(crate) trait Follow: Send + 'static {
    /// The next event; `None` at the end. Safe to cancel.
    fn next(&mut self) -> impl Future<Output = Option<StoreEvent>> + Send;
}

impl Store for RegistryStore {
    fn write(
        &self,
        key: String,
        expected: u64,
        value: Option<Bytes>,
    ) -> BoxFuture<'static, Result<u64, StoreError>> {
        let store = self.clone();
        Box::pin(async move {
            match value {
                Some(value) => store.put(&key, expected, value).await,
                None => store.delete(&key, expected).await,
            }
        })
    }
}

impl Follow for StoreFollower {
    fn next(&mut self) -> impl Future<Output = Option<StoreEvent>> + Send {
        Self::next(self)
    }
}

/// Carries out one write; gives the event that tells the engine how it went, and a word for it.
pub(crate) async fn write(
    store: impl Store,
    (write, key): (WriteId, Key),
    expected: u64,
    value: Option<Bytes>,
) -> (Event, &'static str) {
    let writing = store.write(key.to_string(), expected, value);
    let (error, outcome) = match tokio::time::timeout(ANSWER, writing).await {
        Ok(Ok(sequence)) => {
            let written = Event::Written {
                write,
                key,
                sequence,
            };
            return (written, "stored");
        }
        Ok(Err(StoreError::Conflict { .. })) => (WriteError::Conflict, "conflict"),
        Ok(Err(StoreError::Unavailable { why })) => (WriteError::Unavailable(why), "unavailable"),
        Ok(Err(StoreError::Unknown { why, .. })) => (WriteError::Unknown(why), "unknown"),
        Ok(Err(StoreError::Invalid { why, .. })) => {
            (WriteError::Refused(why.to_owned()), "refused")
        }
        Err(_) => {
            let why = format!("no answer within {} s", ANSWER.as_secs());
            (WriteError::Unknown(why), "unknown")
        }
    };
    (Event::WriteFailed { write, key, error }, outcome)
}

/// What the engine is told of the store.
pub(crate) fn event(told: StoreEvent) -> Event {
    match told {
        StoreEvent::Reset { epoch, last } => Event::StoreReset { epoch, last },
        StoreEvent::Entry {
            key,
            value,
            sequence,
            at_ms,
        } => Event::Stored {
            key,
            value: value.map(Into::into),
            sequence,
            at: Timestamp(at_ms),
        },
        StoreEvent::Current => Event::StoreCurrent,
        StoreEvent::Lost => Event::StoreLost,
    }
}
