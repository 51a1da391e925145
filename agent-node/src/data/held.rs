//! Bytes that an agent holds of calls: first frames, chunks and answers that wait for plugins, for callers
//! on the node or for the bus, and payloads of calls of plugins, which may have to be sent again. Past its bounds new calls are shed; what belongs to running calls has room up to
//! a multiple of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Frames of running calls may go so far beyond an instance's bound, and half as far as this beyond that
/// of the agent: a call that is given up half-way has cost more than one that was shed.
const RUNNING: usize = 8;

/// All bytes that are held, and their bounds. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    bytes: Arc<AtomicUsize>,
    /// Of the whole agent.
    pub(super) most: usize,
    /// Of what waits for one instance.
    pub(super) most_of_instance: usize,
}

impl Held {
    pub(super) fn new(most: usize, most_of_instance: usize) -> Self {
        Self {
            bytes: Arc::default(),
            most,
            most_of_instance,
        }
    }

    /// How many there are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether one instance's queue of so many bytes takes no more of running calls.
    pub(super) fn is_hard_full(&self, of_instance: usize) -> bool {
        self.is_instance_hard_full(of_instance)
            || self.bytes() >= self.most.saturating_mul(RUNNING / 2)
    }

    /// The same, whatever is held of others.
    pub(super) fn is_instance_hard_full(&self, of_instance: usize) -> bool {
        of_instance >= self.most_of_instance.saturating_mul(RUNNING)
    }

    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn sub(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes of one owner, until it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    held: Held,
    bytes: usize,
}

impl Charge {
    pub(super) fn new(held: &Held) -> Self {
        Self {
            held: held.clone(),
            bytes: 0,
        }
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.held.add(bytes);
    }

    /// There are so many now.
    pub(super) fn set(&mut self, bytes: usize) {
        if bytes != self.bytes {
            self.held.sub(std::mem::take(&mut self.bytes));
            self.add(bytes);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.held.sub(self.bytes);
    }
}
