//! The MCP server: what clients ask, answered from the catalog or passed to plugins.

pub mod calls;
pub mod errors;
pub mod handler;
mod lists;
pub mod logging;
pub mod notify;
mod outbox;
pub mod sessions;
mod shard;
mod trace;
mod work;

pub use self::shard::{Parts, Shard, Shared};
pub use self::trace::Link;
pub use self::work::GatewayHandler;
