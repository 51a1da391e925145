//! Load beacons: how busy every instance is, about once a second, lossy.

use mesh_proto::control;

/// The beacons of all nodes of the mesh.
#[derive(Debug)]
pub struct Loads {}

impl Loads {
    /// The next beacon; `None` when the connection is closed for good. Safe to cancel.
    pub async fn next(&mut self) -> Option<control::LoadBeacon> {
        unimplemented!()
    }
}
