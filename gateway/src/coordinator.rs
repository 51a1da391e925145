//! The way to the coordinators: the table that they publish, and changes that they make.
//!
//! They are on no data path: without them calls go on from the last table, and only changes fail.

mod admin;
mod follow;

use std::time::Duration;

use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::{MeshName, NodeId};
use tonic::transport::{Channel, Endpoint};

pub use self::admin::Change;
pub use self::follow::follow;

/// Time that a coordinator may take to be connected to.
const CONNECT: Duration = Duration::from_secs(3);

/// A coordinator that does not answer a ping within this is gone.
const PING: Duration = Duration::from_secs(5);

/// The coordinators, in the order in which they are tried. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Coordinators {
    addresses: Vec<String>,
    mesh: MeshName,
    name: NodeId,
}

impl Coordinators {
    /// Of the configuration.
    #[must_use]
    pub fn new(addresses: Vec<String>, mesh: MeshName, name: NodeId) -> Self {
        Self {
            addresses,
            mesh,
            name,
        }
    }

    /// The addresses, for people.
    fn listed(&self) -> String {
        self.addresses.join(", ")
    }

    fn unreachable(&self, why: &str) -> MeshError {
        let text = format!(
            "no coordinator answers at {} ({why}): start one, or correct gateway.coordinators; \
             plugins go on meanwhile",
            self.listed()
        );
        MeshError::new(ErrorCode::NoCoordinator, text)
    }
}

/// Connects to one coordinator.
async fn connect(address: &str) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(address.to_owned())?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .keep_alive_while_idle(true)
        .connect()
        .await
}

/// The innermost reason of an error: the outer ones say only "transport error".
fn root(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
