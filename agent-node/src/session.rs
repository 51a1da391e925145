//! One plugin's session, decided purely: frames of the plugin in, actions out.
//!
//! Nothing in this folder reads a clock, waits or sends. It knows the plugin protocol and its order;
//! it must not know NATS, gRPC, processes or who waits for a call: what belongs to a call of the host
//! is an opaque value that comes back when the call ends.

mod action;
mod answers;
pub(crate) mod handshake;
mod health;
pub(crate) mod ids;
pub(crate) mod limits;
mod machine;
mod own;
mod pulse;
pub(crate) mod refusal;
mod schema;

pub(crate) use action::{Action, End, Severity};
pub(crate) use health::HealthChange;
pub(crate) use machine::{Coming, Machine, Stage};
pub(crate) use pulse::{Beat, Pulse};

#[cfg(test)]
mod tests;
