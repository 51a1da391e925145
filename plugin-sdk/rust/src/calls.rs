//! Calls of the plugin to other capabilities: the table of those in flight.

mod begin;
mod events;
mod sender;
mod slot;
mod stream;
mod target;

pub use events::{CallEvent, Caller, LogLevel, LogLine, Progress, TraceContext};
pub use sender::RequestSender;
pub use stream::CallStream;
pub use target::Target;

pub(crate) use begin::{Terms, begin, session_ended};
pub(crate) use slot::{Slot, add_credit};
pub(crate) use target::Request;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;

use crate::error::CallError;
use crate::wire::common;

/// What a caller sends of a call.
#[derive(Debug, Clone)]
pub(crate) enum Signal {
    /// The call itself, with the first part of its payload.
    Begin(Box<common::Call>),
    /// A part of the payload.
    Part {
        bytes: bytes::Bytes,
        sequence: u64,
        last: bool,
    },
    /// A message after the payload.
    Message { bytes: bytes::Bytes, sequence: u64 },
    /// So many more chunks may come.
    Credit(u32),
}

/// The chunk that a signal is sent as; the credit of another.
pub(crate) fn chunk(
    bytes: bytes::Bytes,
    sequence: u64,
    last: bool,
    fragment: bool,
) -> common::Chunk {
    common::Chunk {
        payload: bytes,
        last,
        sequence,
        fragment,
    }
}

/// The other end of the calls: the plugin's host, or the plugin when a test is the host.
pub(crate) trait Peer: Send + Sync {
    /// The calls of this end that are in flight.
    fn table(&self) -> &Table;
    /// Sends a signal; an error means that the session has ended.
    fn signal(&self, id: u64, signal: Signal) -> BoxFuture<'_, Result<(), CallError>>;
    /// No message follows; this is the place of the one that would. Never waits.
    fn end_messages(&self, id: u64, sequence: u64);
    /// Forgets a call, and cancels it if it has not ended. Never waits.
    fn abandon(&self, id: u64, cancel: bool);
}

/// The calls in flight of one end of a session, by id.
pub(crate) struct Table {
    next: AtomicU64,
    /// `None` once the session has ended.
    slots: Mutex<Option<HashMap<u64, Arc<Slot>>>>,
}

impl Table {
    /// Ids count from `first` in steps of two, so that both ends never take the same.
    pub(crate) fn new(first: u64) -> Self {
        Self {
            next: AtomicU64::new(first),
            slots: Mutex::new(Some(HashMap::new())),
        }
    }

    /// A new id, with its slot in place before the call is sent; `None` when the session has ended.
    pub(crate) fn open(&self, slot: Arc<Slot>) -> Option<u64> {
        let id = self.next.fetch_add(2, Ordering::Relaxed);
        self.lock().as_mut()?.insert(id, slot);
        Some(id)
    }

    pub(crate) fn get(&self, id: u64) -> Option<Arc<Slot>> {
        self.lock().as_ref()?.get(&id).cloned()
    }

    pub(crate) fn remove(&self, id: u64) -> Option<Arc<Slot>> {
        self.lock().as_mut()?.remove(&id)
    }

    /// Ends all calls with this error, and takes no more.
    pub(crate) fn close(&self, error: &CallError) {
        let slots = self.lock().take();
        for slot in slots.into_iter().flatten() {
            slot.1.end(Err(error.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashMap<u64, Arc<Slot>>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
