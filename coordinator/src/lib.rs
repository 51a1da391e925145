//! The coordinator: registry, dependency graph, leases, the routing table.
//!
//! What it decides is decided by `mesh_engine::engine`; here is what carries that out: one task that
//! owns the engine ([`actor`]), the store that it writes to ([`store`]), the table that it publishes
//! ([`feed`]) and the gRPC services ([`grpc`]). It is on no data path: without it calls go on.

mod actor;
mod audit;
mod clock;
mod config;
mod feed;
mod grpc;
mod handle;
mod joining;
mod metrics;
mod run;
mod store;
mod transitions;

pub use config::{Config, DEFAULT_ADMIN_PORT, DEFAULT_PORT, RunConfig};
pub use run::{RunError, run};

#[cfg(test)]
mod tests;
