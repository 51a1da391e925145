//! Answers in parts: what came of one, and the bytes of all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;

/// Bytes of all answers that are being put together in this process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gathered(Arc<AtomicUsize>);

impl Gathered {
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The parts of one answer that have come. Copied: small ones would keep whole read buffers.
#[derive(Debug)]
pub(crate) struct Fragments {
    bytes: BytesMut,
    all: Gathered,
}

impl Fragments {
    pub fn new(all: Gathered) -> Self {
        Self {
            bytes: BytesMut::new(),
            all,
        }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn add(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(part);
        self.all.0.fetch_add(part.len(), Ordering::Relaxed);
    }

    /// All of it; it is counted no more.
    pub fn take(&mut self) -> BytesMut {
        let bytes = std::mem::take(&mut self.bytes);
        self.all.0.fetch_sub(bytes.len(), Ordering::Relaxed);
        bytes
    }
}

impl Drop for Fragments {
    fn drop(&mut self) {
        self.take();
    }
}
