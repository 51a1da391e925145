//! The shell of every process of the mesh: configuration, telemetry, tasks, ordered shutdown,
//! readiness, metrics, the admin endpoints.
//!
//! It knows no service: a service takes a [`Context`] and runs in it.

pub mod admin;
pub mod config;
mod context;
pub mod coordinators;
mod first_request;
pub mod grpc;
pub mod heap;
pub mod http_server;
pub mod metrics;
pub mod net;
pub mod readiness;
pub mod shutdown;
mod stall;
pub mod tasks;
pub mod telemetry;
pub mod trace;

pub use config::{
    ByteSize, HumanDuration, MeshSection, NatsSection, Preference, RouterSection, TelemetryConfig,
};
pub use context::Context;
pub use metrics::Metrics;
pub use readiness::{Readiness, ReadyLatch};
pub use shutdown::Shutdown;
pub use tasks::{JoinReport, Tasks, ThreadHandle};
pub use telemetry::{Telemetry, TelemetryGuard};
