//! FNV-1a with 64 bits: not for secrets, but the same in every process and release, which names that
//! clients keep need.

use std::io;

use serde::Serialize;

/// The hash so far; feed it through [`io::Write`].
pub struct Digest(u64);

impl Digest {
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Adds a value by its JSON.
    pub fn add_json(&mut self, value: &impl Serialize) {
        // Neither writing into a hash nor turning an MCP model into JSON can fail.
        let _ = serde_json::to_writer(&mut *self, value);
    }

    pub fn value(&self) -> u64 {
        self.0
    }
}

impl io::Write for Digest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
