//! The gateway's front door: real HTTP, a real broker, and a coordinator and a node that are played.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking"
)]

mod bounds;
mod coordinator;
mod fake_mesh;
mod http;
mod modern;
mod nats;
mod node;
mod refusals;
mod sessions;
