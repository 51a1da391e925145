//! What a gateway holds for its clients at once, in calls and in bytes, and what one call holds of it.
//!
//! Overload: a request that finds no room is refused with "not processed, retry after"; nothing waits
//! for room. Answers always find some, because their calls were made already: they only keep further
//! requests out.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use mesh_core::error::MeshError;
use prometheus_client::metrics::gauge::Gauge;

use super::body::Running;

/// Requests up to this size find the last quarter of the room, so that slow uploads of large ones
/// can't keep them out.
const SMALL: usize = 64 * 1024;

/// No room for a request: so many bytes are held already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom(pub usize);

/// The room of a gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Room {
    held: Arc<AtomicUsize>,
    most: usize,
    gauge: Gauge,
}

impl Room {
    /// Nothing is held of at most `most` bytes.
    #[must_use]
    pub fn new(most: usize, gauge: Gauge) -> Self {
        Self {
            held: Arc::default(),
            most,
            gauge,
        }
    }

    /// A share of nothing yet.
    #[must_use]
    pub fn share(&self) -> Share {
        Share {
            room: self.clone(),
            bytes: AtomicUsize::new(0),
        }
    }
}

/// Bytes that one request holds until this is dropped.
#[derive(Debug)]
pub struct Share {
    room: Room,
    bytes: AtomicUsize,
}

impl Share {
    /// Takes more, if there is room for it.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn try_add(&self, bytes: usize) -> Result<(), NoRoom> {
        let most = self.room.most;
        let large = self.bytes.load(Ordering::Relaxed) + bytes > SMALL;
        let most = if large { most - most / 4 } else { most };
        let held = self.room.held.load(Ordering::Relaxed);
        if held + bytes > most {
            return Err(NoRoom(held));
        }
        self.add(bytes);
        Ok(())
    }

    /// Takes more in any case.
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.room.held.fetch_add(bytes, Ordering::Relaxed);
        self.room.gauge.inc_by(signed(bytes));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.room.held.fetch_sub(bytes, Ordering::Relaxed);
        self.room.gauge.dec_by(signed(bytes));
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// One call: what it holds, and why it was not processed, if so. It travels with the request through
/// the MCP library, and stays with the answer until that is sent.
pub struct Ticket {
    share: Share,
    refused: OnceLock<MeshError>,
    _running: Running,
}

impl Ticket {
    /// The ticket of a call that has begun.
    #[must_use]
    pub fn new(share: Share, running: Running) -> Self {
        Self {
            share,
            refused: OnceLock::new(),
            _running: running,
        }
    }

    /// The call has an answer of so many bytes.
    pub fn answered(&self, bytes: usize) {
        self.share.add(bytes);
    }

    /// The call was not processed, because nobody takes it for now.
    pub fn refuse(&self, error: &MeshError) {
        // A call ends once.
        let _ = self.refused.set(error.clone());
    }

    /// Why the call was not processed.
    #[must_use]
    pub fn refused(&self) -> Option<&MeshError> {
        self.refused.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_requests_leave_room_for_small_ones_and_answers_always_fit() {
        let gauge = Gauge::default();
        let room = Room::new(1 << 20, gauge.clone());
        let large = room.share();
        assert_eq!(large.try_add(700 << 10), Ok(()));
        assert_eq!(room.share().try_add(100 << 10), Err(NoRoom(700 << 10)));
        let small = room.share();
        assert_eq!(small.try_add(60 << 10), Ok(()));
        small.add(1 << 20);
        assert_eq!(
            room.share().try_add(1),
            Err(NoRoom((1 << 20) + (760 << 10)))
        );
        drop(small);
        assert_eq!(room.share().try_add(60 << 10), Ok(()));
        drop(large);
        assert_eq!(gauge.get(), 0);
    }
}
