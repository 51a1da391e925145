//! The way to the coordinators: the table that they publish, and changes that they make.
//!
//! They are on no data path: without them calls go on from the last table, and only changes fail.

mod admin;
mod follow;

use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::{MeshName, NodeId};

pub use self::admin::Change;
pub use self::follow::follow;

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
