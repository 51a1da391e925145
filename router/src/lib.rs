//! The capability router: from a wish ("call tool:add") to an instance, through failures, to an end.
//!
//! It holds a snapshot of the routing table, selects an instance, makes the call over the bus (or on
//! its own node, without leaving it), and tries another instance when a call was provably not
//! processed. It knows nothing of HTTP, MCP or plugins' processes.

mod attempt;
mod call;
mod config;
mod driver;
mod flight;
mod local;
mod request;
mod router;
mod stats;
mod store;

pub use call::CallStream;
pub use config::{RouterConfig, SpanLink};
pub use driver::RouterDriver;
pub use local::{LocalCall, LocalHost};
pub use mesh_bus::{CallEvent, CallInput, CallOutput, MessageSender, MessageSource, messages};
pub use request::CallRequest;
pub use router::{NodeLoad, Router};
pub use stats::PluginStats;
pub use store::{TableStore, TableStoreDriver, TableStoreError};

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
