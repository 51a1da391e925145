//! The bus: everything that moves between nodes, over NATS. No other crate knows NATS.
//!
//! [`Bus`] carries calls (one multiplexer over one inbox, [`PendingCall`]), takes them on a node
//! ([`NodeInbox`]) and passes load beacons. [`RegistryStore`] keeps the registry in a JetStream
//! key-value bucket, on a connection of its own. Nothing here spawns: each part comes with a driver
//! whose `run` the caller spawns.

mod bus;
mod config;
mod connect;
mod driver;
mod error;
mod event;
mod load;
mod node;
mod outbox;
mod pending;
mod shared;
mod slot;
mod slots;
mod stats;
mod store;
mod wire;

pub use bus::Bus;
pub use config::{BusConfig, BusLimits};
pub use driver::BusDriver;
pub use error::{BusBusy, BusError};
pub use event::{CallEvent, CallOutput};
pub use load::Loads;
pub use node::{NodeInbox, ReplyTo};
pub use pending::PendingCall;
pub use stats::BusStats;
pub use store::{RegistryStore, StoreConfig, StoreDriver, StoreError, StoreEvent, StoreFollower};
