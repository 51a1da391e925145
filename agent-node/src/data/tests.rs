//! The data path with real streams over a Unix socket, without a broker: calls come from the router.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed test may panic"
)]

mod calls;
mod giving_up;
pub(crate) mod harness;
mod own;
mod trouble;
