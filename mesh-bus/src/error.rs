//! Why the bus could not be set up, or takes nothing more.

use std::path::PathBuf;

/// Why the bus could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The addresses can't be read.
    #[error("nats.url {urls:?} is not valid: {why}; write for example nats://127.0.0.1:4222")]
    Url {
        /// What was given.
        urls: String,
        /// What is wrong with it.
        why: String,
    },
    /// The credentials can't be read.
    #[error("nats.credentials {}: {why}; give a .creds file that this user can read", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The connection was closed for good.
    #[error("the connection to NATS is closed")]
    Closed,
}

/// The bus takes nothing more for now: the connection is slower than what is put into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the connection to NATS is congested; wait with Bus::reply_room before sending more chunks"
)]
pub struct BusBusy;
