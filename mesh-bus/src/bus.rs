//! The handle that everybody holds.

use bytes::Bytes;
use mesh_core::error::MeshError;
use mesh_core::id::{Generation, InstanceId, NodeId};
use mesh_proto::{common, control};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{BusConfig, BusLimits};
use crate::driver::BusDriver;
use crate::error::{BusBusy, BusError};
use crate::load::Loads;
use crate::node::{NodeInbox, ReplyTo};
use crate::pending::PendingCall;
use crate::stats::BusStats;

/// A process's connection for calls and beacons. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bus {}

impl Bus {
    /// Prepares the connection with the default limits. It is made, and made again, in the
    /// background: wait for it with [`Bus::connected`].
    ///
    /// # Errors
    /// [`BusError`] when addresses or credentials can't be read.
    pub async fn connect(config: BusConfig) -> Result<(Self, BusDriver), BusError> {
        Self::connect_with(config, BusLimits::default()).await
    }

    /// As [`Bus::connect`], with limits.
    ///
    /// # Errors
    /// [`BusError`] when addresses or credentials can't be read.
    pub async fn connect_with(
        config: BusConfig,
        limits: BusLimits,
    ) -> Result<(Self, BusDriver), BusError> {
        let _ = (config, limits);
        unimplemented!()
    }

    /// Whether the connection stands and its subscriptions are known to have landed.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        unimplemented!()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &BusStats {
        unimplemented!()
    }

    /// Limits.
    #[must_use]
    pub fn limits(&self) -> BusLimits {
        unimplemented!()
    }

    /// Calls in flight in this process.
    #[must_use]
    pub fn calls_in_flight(&self) -> usize {
        unimplemented!()
    }

    /// Sends a call to an instance. `call.payload`, `call.more` and `call.time_left_us` are set here.
    ///
    /// # Errors
    /// Not processed in each case: DISCONNECTED, OVERLOADED, TOO_LARGE, EXPIRED.
    pub fn begin_call(
        &self,
        node: &NodeId,
        generation: Generation,
        instance: InstanceId,
        call: common::Call,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<PendingCall, MeshError> {
        let _ = (node, generation, instance, call, payload, deadline);
        unimplemented!()
    }

    /// Ends all calls to matching places with OUTCOME_UNKNOWN: their instance is known to be gone.
    pub fn end_calls(&self, gone: impl Fn(&NodeId, Generation, InstanceId) -> bool) {
        let _ = gone;
        unimplemented!()
    }

    /// Takes the calls of one generation of a node. Returns when the subscription has landed, or at
    /// once when there is no connection yet (it lands with the connection then).
    ///
    /// # Errors
    /// [`BusError::Closed`].
    pub async fn serve_node(
        &self,
        node: &NodeId,
        generation: Generation,
    ) -> Result<NodeInbox, BusError> {
        let _ = (node, generation);
        unimplemented!()
    }

    /// Sends a reply: without waiting, and in order with all other replies. Results, errors and
    /// credits are always taken (there are no more of them than calls); Progress and Log frames are
    /// left out (and counted) when the connection is congested; Chunks are refused then.
    ///
    /// # Errors
    /// [`BusBusy`] for a chunk that was not taken: wait with [`Bus::reply_room`] and send it again.
    pub fn reply(&self, to: &ReplyTo, reply: control::NodeReply) -> Result<(), BusBusy> {
        let _ = (to, reply);
        unimplemented!()
    }

    /// Waits until the connection is not congested. A node that awaits this before it reads more
    /// from its plugins pushes back on them.
    pub async fn reply_room(&self) {
        unimplemented!()
    }

    /// Tells everybody how busy a node is. Lost when there is no connection.
    pub fn publish_load(&self, node: &NodeId, generation: Generation, load: &control::LoadBeacon) {
        let _ = (node, generation, load);
        unimplemented!()
    }

    /// Hears how busy all nodes are.
    ///
    /// # Errors
    /// [`BusError::Closed`].
    pub async fn loads(&self) -> Result<Loads, BusError> {
        unimplemented!()
    }
}
