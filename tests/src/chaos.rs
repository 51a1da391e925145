//! Faults of real processes under load, with every call accounted for: at the client that made it, and
//! in a ledger that the plugin writes while it works.
//!
//! `make chaos` and `make soak` run it (`src/bin/chaos/`), and a small version is among the suites.
//! What is checked, and why, is in `docs/chaos.md`.

pub mod account;
pub mod client;
pub mod control;
pub mod fault;
pub mod flood;
pub mod ledger;
pub mod plugin;
pub mod rates;
pub mod rounds;
pub mod wire;
pub mod world;
