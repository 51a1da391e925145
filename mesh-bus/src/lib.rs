//! The bus: everything that moves between nodes, over NATS. No other crate knows NATS.
//!
//! [`Bus`] carries calls (one multiplexer over one inbox, [`PendingCall`]), takes them on a node
//! ([`NodeInbox`]) and passes load beacons. [`RegistryStore`] keeps the registry in a JetStream
//! key-value bucket, on a connection of its own, and [`AuditLog`] what became of it. Nothing here spawns: each part comes with a driver
//! whose `run` the caller spawns.
//!
//! The traps of NATS, and where each is answered:
//! - requests leak in the library, and a dead responder says nothing: own multiplexer with deadlines,
//!   and questions to the nodes of calls in flight (`slots`, `slot`);
//! - at most once: parts of payloads and answers are numbered and counted (`slot`);
//! - senders wait, and what was sent while disconnected comes late: own queue (`outbox`), calls are
//!   refused without a connection (`bus`), calls given up are found before they are begun (`node`);
//! - full subscriptions drop: counted, and calls in flight are asked after (`connect`, `driver`);
//! - `flush` proves nothing: messages to oneself (`driver`, `node`);
//! - no retry and no jitter by default: both set, 250 ms at most (`connect`);
//! - bulk stalls what shares its connection: credit, bulk held back (`outbox`), JetStream on a
//!   connection of its own (`store`);
//! - watches go deaf or replay, reads are stale, leaders take seconds to be elected: changes by
//!   contiguous sequence with a proof every two seconds, reads from the leader (`store`);
//! - an acknowledgement that is missing: read again before writing again (`store::write`).

mod audit;
mod block;
mod bus;
mod config;
mod connect;
mod driver;
mod error;
mod event;
mod gather;
mod line;
mod link;
mod load;
pub mod memory;
mod messages;
mod node;
mod outbox;
mod peers;
mod pending;
mod shared;
mod slot;
mod slots;
mod stats;
mod store;
mod upload;
mod wire;

pub use audit::{AuditConfig, AuditDriver, AuditError, AuditLog, AuditStored, Notice};
pub use bus::Bus;
pub use config::{BusConfig, BusLimits};
pub use connect::NOT_CONNECTED;
pub use driver::BusDriver;
pub use error::{BusBusy, BusError};
pub use event::{CallEvent, CallOutput};
pub use load::Loads;
pub use messages::{MessageSender, MessageSource, messages};
pub use node::{NodeInbox, ReplyTo};
pub use pending::PendingCall;
pub use stats::{BusStats, Reading};
pub use store::{RegistryStore, StoreConfig, StoreDriver, StoreError, StoreEvent, StoreFollower};
pub use upload::{CallInput, Upload};
