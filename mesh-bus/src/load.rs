//! Load beacons: how busy every instance is, about once a second, lossy.

use futures::StreamExt;
use mesh_core::subject::parse_node_load;
use mesh_proto::control::LoadBeacon;
use prost::Message;

use crate::link::Subscriber;

/// The beacons of all nodes of the mesh.
#[derive(Debug)]
pub struct Loads {
    pub(crate) subscriber: Subscriber,
}

impl Loads {
    /// The next beacon; `None` when the connection is closed for good. Safe to cancel. Beacons that
    /// can't be read, or that speak for another node than their subject names, are left out.
    pub async fn next(&mut self) -> Option<LoadBeacon> {
        loop {
            let message = self.subscriber.next().await?;
            let Ok(beacon) = LoadBeacon::decode(message.payload) else {
                continue;
            };
            match parse_node_load(&message.subject) {
                Some((node, generation))
                    if node.as_str() == beacon.node && generation.0 == beacon.generation =>
                {
                    return Some(beacon);
                }
                _ => {}
            }
        }
    }
}
