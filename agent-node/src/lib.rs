//! The agent-node: hosts the plugins of one machine and joins them to the mesh.
//!
//! - [`Config`], [`RunConfig`] and [`run`]: what a process needs to be an agent.
//! - `session`: one plugin's session, decided purely.
//! - `data`: the data path: calls from the bus to plugins and from plugins to the router.
//! - `attach`: the sockets that plugins attach to.
//! - `control`: the session with a coordinator.
//! - `supervisor`: the plugins' processes.
//! - [`embedded`]: the data path alone, for simulations.
//! - `roster`: what is known of every instance, which the coordinator is told.
//!
//! It must not know the coordinator's or the gateway's insides, and knows NATS only as a bus.

mod attach;
mod config;
mod control;
mod data;
mod drain;
pub mod embedded;
mod error;
mod generation;
mod launch;
mod metrics;
mod permissions;
mod plugin_log;
mod rate_gate;
mod roster;
mod run;
mod session;
mod spans;
mod supervisor;

pub use config::{Config, PluginLaunch, RunConfig};
pub use error::AgentError;
pub use run::run;
