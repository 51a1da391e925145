//! The harness: starts real processes of a mesh for one test, and ends them with it.
//!
//! Every test has folders, ports and a `nats-server` of its own, so tests run side by side. Nothing
//! here sleeps for luck: [`wait::until`] polls a condition with a bound.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a harness fails by panicking, with the reason in the message"
)]

pub mod attach;
pub mod chaos;
pub mod grpc;
pub mod http_client;
pub mod load;
pub mod mesh;
pub mod nats;
pub mod netns;
pub mod otlp;
pub mod ports;
pub mod process;
pub mod raw_codec;
pub mod session;
pub mod sim;
pub mod streams;
pub mod transcript;
pub mod wait;
