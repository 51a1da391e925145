//! How a process reaches the broker, and what it allows on the way.

use std::path::PathBuf;

use mesh_core::id::MeshName;

use crate::connect;
use crate::error::BusError;

/// How a process reaches the broker.
#[derive(Debug, Clone)]
pub struct BusConfig {
    /// Addresses such as `nats://127.0.0.1:4222`, separated by commas.
    pub urls: String,
    /// A NATS credentials file (`.creds`); `None`: no credentials.
    pub credentials: Option<PathBuf>,
    /// The name that the broker shows for this connection; for people.
    pub client_name: String,
    /// The mesh; it is part of every subject.
    pub mesh: MeshName,
}

impl BusConfig {
    /// Everything in it that connecting would refuse; empty: nothing. The credentials file is read,
    /// no connection is made.
    #[must_use]
    pub fn check(&self) -> Vec<BusError> {
        let servers = connect::servers(self).err();
        let credentials = connect::credentials(self).err();
        servers.into_iter().chain(credentials).collect()
    }
}

/// What the bus allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusLimits {
    /// Largest payload of a call or of its result in bytes, all chunks together.
    pub max_payload: usize,
    /// Largest payload of one frame in bytes; what is larger is cut into chunks.
    pub chunk_bytes: usize,
    /// Chunks that may be on their way before the receiver gives more credit.
    pub initial_credit: u32,
    /// Bytes of large results that are put together in this process at once. Past it the nodes get credit for
    /// one of them at a time, so there may be one more, and of each other what the first credit allows.
    pub max_gathered: usize,
    /// Calls in flight in this process; further ones are refused with OVERLOADED.
    pub max_calls: usize,
}

impl Default for BusLimits {
    fn default() -> Self {
        Self {
            max_payload: 64 << 20,
            chunk_bytes: 128 << 10,
            initial_credit: 64,
            max_gathered: 256 << 20,
            max_calls: 65_536,
        }
    }
}
