//! The gateway: the composite provider of a mesh, and its front door for MCP clients.
//!
//! [`run`] is the service. [`composite`] makes one catalog of all plugins' capabilities; [`mcp`] serves
//! it to clients over the transport in [`http`]; [`manage`] holds the gateway's own tools;
//! [`coordinator`] follows the routing table and passes changes on.

pub mod composite;
mod config;
pub mod coordinator;
pub mod http;
pub mod manage;
pub mod mcp;
pub mod metrics;
mod publish;
mod run;

pub use self::config::{Config, DEFAULT_PORT, RunConfig};
pub use self::run::{RunError, example_call, example_curl, run};
