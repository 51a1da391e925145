//! Load beacons: how busy every instance is, several times a second, lossy. Each is a sign of life of its
//! node.

use std::sync::Arc;

use futures::StreamExt;
use mesh_core::subject::parse_node_load;
use mesh_proto::control::LoadBeacon;
use prost::Message;
use tokio::time::Instant;

use crate::link::Subscriber;
use crate::shared::Shared;

/// The beacons of all nodes of the mesh.
#[derive(Debug)]
pub struct Loads {
    pub(crate) shared: Arc<Shared>,
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
                    let now = self.shared.micros(Instant::now());
                    let mut slots = self.shared.slots();
                    slots.peers.heard_of(&node, generation, now);
                    return Some(beacon);
                }
                _ => {}
            }
        }
    }
}
