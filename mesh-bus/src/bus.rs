//! The handle that everybody holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_nats::Subject;
use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::{Generation, InstanceId, MeshName, NodeId};
use mesh_core::subject;
use mesh_proto::control::node_reply::Body;
use mesh_proto::{common, control};
use prost::Message;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{BusConfig, BusLimits};
use crate::connect::{Connector, LinkEvents};
use crate::driver::{BusDriver, Closer};
use crate::error::{BusBusy, BusError};
use crate::link::{Link, Refused, Subscriber};
use crate::load::Loads;
use crate::node::{self, NodeInbox, ReplyTo};
use crate::outbox::{Credit, Frame, LIBRARY_QUEUE};
use crate::pending::PendingCall;
use crate::shared::Shared;
use crate::slot::Target;
use crate::slots::{Effects, Slots};
use crate::stats::{BusStats, Reading, add};
use crate::upload::{CallInput, Upload};
use crate::wire;

/// A process's connection for calls and beacons. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bus {
    shared: Arc<Shared>,
    limits: BusLimits,
}

impl Bus {
    /// Prepares the connection with the default limits. It is made, and made again, in the
    /// background: wait for it with [`Bus::connected`]. Must be called within a tokio runtime, which
    /// then carries the connection.
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
        let events = Arc::new(LinkEvents::default());
        let client = Connector::new(&config)?
            .connect_lazily(events.clone(), LIBRARY_QUEUE)
            .await?;
        Self::over(client.into(), events, config.mesh, limits).await
    }

    /// The bus over a connection.
    pub(crate) async fn over(
        link: Link,
        events: Arc<LinkEvents>,
        mesh: MeshName,
        limits: BusLimits,
    ) -> Result<(Self, BusDriver), BusError> {
        let owner = fastrand::u64(..);
        let inbox: Subject = subject::inbox_all(&mesh, owner).as_str().into();
        let probe_subject: Subject = subject::probe(&mesh, owner).as_str().into();
        let inbox = link.subscribe(inbox).await?;
        let probe = link.subscribe(probe_subject.clone()).await?;
        let slots = Slots::new(mesh.clone(), owner, limits);
        let shared = Arc::new(Shared::new(mesh, link, events, slots));
        let driver = BusDriver {
            shared: Closer(shared.clone()),
            inbox,
            probe,
            probe_subject,
        };
        Ok((Self { shared, limits }, driver))
    }

    /// Whether the connection stands and its subscriptions are known to have landed.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.shared.watch_up()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &BusStats {
        &self.shared.stats
    }

    /// Reads all counters, for whoever shows metrics: name, what it counts, value. Nothing once the
    /// bus is gone.
    pub fn counters(&self) -> impl Fn() -> Vec<Reading> + Send + Sync + use<> {
        let shared = Arc::downgrade(&self.shared);
        move || match shared.upgrade() {
            Some(shared) => shared.stats.all(),
            None => Vec::new(),
        }
    }

    /// As [`Bus::counters`], for what goes up and down.
    pub fn gauges(&self) -> impl Fn() -> Vec<Reading> + Send + Sync + use<> {
        let shared = Arc::downgrade(&self.shared);
        move || {
            let Some(shared) = shared.upgrade() else {
                return Vec::new();
            };
            let calls = shared.slots().live() as u64;
            vec![
                ("calls_in_flight", "Calls in flight from here", calls),
                (
                    "connected",
                    "Connections to NATS that stand",
                    shared.is_up().into(),
                ),
            ]
        }
    }

    /// Calls in flight in this process, those included whose end their caller has not taken yet.
    #[must_use]
    pub fn calls_in_flight(&self) -> usize {
        self.shared.slots().live()
    }

    /// Sends a call to an instance, now and until a deadline. `call.payload`, `call.more` and `call.messages` are set here, and the
    /// time left is sent beside the call. A payload over [`BusLimits::chunk_bytes`] follows in chunks, then the messages, as
    /// the node gives credit.
    ///
    /// # Errors
    /// Not processed in each case: DISCONNECTED (a call is never kept for later), OVERLOADED,
    /// TOO_LARGE, EXPIRED.
    pub fn begin_call(
        &self,
        node: &NodeId,
        generation: Generation,
        instance: InstanceId,
        mut call: common::Call,
        input: impl Into<CallInput>,
        (now, deadline): (Instant, Instant),
    ) -> Result<PendingCall, MeshError> {
        let input = input.into();
        let target = Target {
            node: node.clone(),
            generation,
            instance,
        };
        let time_left = self.admit(&target, input.payload.len(), deadline, now)?;
        let shared = &self.shared;
        let refuse_busy = |message: &str| {
            add(&shared.stats.refused_busy, 1);
            MeshError::new(ErrorCode::Overloaded, message)
        };
        let mut slots = shared.slots();
        if slots.closed {
            return Err(disconnected(shared, &target));
        }
        let opened = slots.open(target, shared.micros(now), shared.micros(deadline));
        drop(slots);
        let Some(ticket) = opened else {
            return Err(refuse_busy(
                "this process has too many calls in flight; try again later",
            ));
        };
        let (part, credit) = (self.limits.chunk_bytes, self.limits.initial_credit);
        let upload = Upload::begin(&mut call, input, part, credit, || {
            shared.message_waker(ticket.index, ticket.call_id)
        });
        // From here on the slot is freed by its drop.
        let mut pending = PendingCall::new(shared.clone(), ticket.index, ticket.call_id);
        if let Err(refused) = shared.send(wire::call(&ticket, instance, &call, time_left)) {
            pending.forget();
            return Err(match refused {
                Refused::Closed => disconnected_error(),
                Refused::TooLarge => MeshError::new(
                    ErrorCode::TooLarge,
                    "NATS does not take the call's frame; its max_payload must be at least 256 KiB",
                ),
            });
        }
        add(&shared.stats.calls, 1);
        if let Some(upload) = upload {
            shared.slots().upload(ticket.index, ticket.call_id, upload);
            shared.outbox.work.notify_one();
        }
        if ticket.earliest {
            shared.timer.notify_one();
        }
        Ok(pending)
    }

    /// Whether a call may be sent; the time that it has left, in microseconds.
    fn admit(
        &self,
        target: &Target,
        bytes: usize,
        deadline: Instant,
        now: Instant,
    ) -> Result<u64, MeshError> {
        let shared = &self.shared;
        if !shared.is_up() || !shared.link.is_connected() {
            return Err(disconnected(shared, target));
        }
        if bytes > self.limits.max_payload {
            let message = format!(
                "the payload has {bytes} bytes and may have at most {}: send less at a time, or raise \
                 router.max_payload (64MiB at most)",
                self.limits.max_payload
            );
            return Err(MeshError::new(ErrorCode::TooLarge, message).at(target.place()));
        }
        if shared.outbox.congested() {
            add(&shared.stats.refused_busy, 1);
            let message = "the connection to NATS is congested; try again later";
            return Err(MeshError::new(ErrorCode::Overloaded, message).at(target.place()));
        }
        let left = deadline.saturating_duration_since(now).as_micros();
        match u64::try_from(left).unwrap_or(u64::MAX) {
            0 => {
                let message = "the deadline had passed before the call was sent";
                Err(MeshError::new(ErrorCode::Expired, message).at(target.place()))
            }
            left => Ok(left),
        }
    }

    /// Ends all calls to matching places with OUTCOME_UNKNOWN: their instance is known to be gone.
    pub fn end_calls(&self, gone: impl Fn(&NodeId, Generation, InstanceId) -> bool) {
        let mut effects = Effects::default();
        self.shared.slots().end_where(
            "the instance went away while the call was in flight",
            |target| gone(&target.node, target.generation, target.instance),
            &mut effects,
        );
        self.shared.carry_out(&mut effects);
    }

    /// The nodes whose calls were ended because no sign of life came of them, and none came since; and those
    /// that seem to be silent as well. Of whoever serves a call, these are the last choice.
    #[must_use]
    pub fn lost_nodes(&self) -> Vec<(NodeId, Generation)> {
        self.shared.slots().peers.lost()
    }

    /// Counts up whenever [`Bus::lost_nodes`] changes; cheap enough to be asked for each call.
    #[must_use]
    pub fn lost_changes(&self) -> u64 {
        self.shared.lost_changes.load(Ordering::Acquire)
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
        let calls = subject::node_calls(&self.shared.mesh, node, generation);
        let calls: Subject = calls.as_str().into();
        let subscriber = self.subscribe(calls.clone()).await?;
        let mut inbox = NodeInbox::new(self.shared.clone(), subscriber);
        inbox.landed(&calls).await;
        Ok(inbox)
    }

    async fn subscribe(&self, subject: Subject) -> Result<Subscriber, BusError> {
        self.shared.link.subscribe(subject).await
    }

    /// Sends a reply: without waiting, and in order with all other replies. Results and errors are
    /// always taken (a call has one of them), and so are credits: one that finds another of its call
    /// waiting is added to it. Chunks are refused while there are 2 MiB on their way out already.
    /// Progress and Log frames are left out and counted as soon as more than a few frames wait, so
    /// that a flood of them keeps nobody else's calls from being sent.
    ///
    /// While there is no connection replies are kept, and sent when it is back.
    ///
    /// # Errors
    /// [`BusBusy`] for a chunk that was not taken: wait with [`Bus::reply_room`] and send it again,
    /// or end the call with an error.
    pub fn reply(&self, to: &ReplyTo, reply: control::NodeReply) -> Result<(), BusBusy> {
        let shared = &self.shared;
        let sent = match reply.body {
            Some(Body::Chunk(_)) if shared.outbox.full_of_bulk() => return Err(BusBusy),
            Some(Body::Progress(_) | Body::Log(_)) if shared.outbox.crowded() => {
                add(&shared.stats.notices_dropped, 1);
                return Ok(());
            }
            // What it says of chunks before it is said of this place among them.
            Some(Body::Credit(credit)) if credit.sent == 0 => shared.send_credit(
                &to.0,
                Credit {
                    call_id: reply.call_id,
                    chunks: credit.chunks,
                },
            ),
            _ => shared.send(node::frame(to, &reply)),
        };
        add(&shared.stats.replies, 1);
        if sent.is_err() {
            // A closed connection, or a frame that NATS does not take.
            add(&shared.stats.replies_lost, 1);
        }
        Ok(())
    }

    /// Whether more waits to be sent than may: a node then takes no new calls, since their ends would wait,
    /// too. What is said to callers meanwhile is bounded by their patience: a node of which nothing comes
    /// gets no more calls within about a second.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.shared.outbox.congested()
    }

    /// Waits until chunks are taken. A node that awaits this before it reads more from a plugin
    /// pushes back on it.
    pub async fn reply_room(&self) {
        self.shared.outbox.room().await;
    }

    /// Tells everybody how busy a node is. Lost when there is no connection.
    pub fn publish_load(&self, node: &NodeId, generation: Generation, load: &control::LoadBeacon) {
        if !self.shared.is_up() {
            return;
        }
        let subject = subject::node_load(&self.shared.mesh, node, generation);
        let frame = Frame::to(&subject.as_str().into(), load.encode_to_vec());
        // A closed connection: nobody hears it.
        let _ = self.shared.send(frame);
    }

    /// Hears how busy all nodes are.
    ///
    /// # Errors
    /// [`BusError::Closed`].
    pub async fn loads(&self) -> Result<Loads, BusError> {
        let subject = subject::all_loads(&self.shared.mesh);
        let subscriber = self.subscribe(subject.as_str().into()).await?;
        Ok(Loads {
            shared: self.shared.clone(),
            subscriber,
        })
    }
}

fn disconnected(shared: &Shared, target: &Target) -> MeshError {
    add(&shared.stats.refused_disconnected, 1);
    disconnected_error().at(target.place())
}

fn disconnected_error() -> MeshError {
    let message = "NATS is not reachable, so the call was not sent; is the server at nats.url up?";
    MeshError::new(ErrorCode::Disconnected, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::atomic::Ordering;

    use super::*;

    #[tokio::test]
    async fn results_that_do_not_leave_are_told_before_they_pile_up() {
        let (bus, _driver) = nowhere().await;
        let to = ReplyTo("x".into());
        let result = |call_id| control::NodeReply {
            call_id,
            body: Some(Body::Result(common::Result {
                payload: vec![0; 100 << 10].into(),
                ..common::Result::default()
            })),
            chunks_before: 0,
        };
        let mut taken = 0;
        while !bus.is_congested() {
            taken += 1;
            assert!(taken < 1_000);
            bus.reply(&to, result(taken)).unwrap();
        }
        // Those of running calls are taken all the same.
        bus.reply(&to, result(taken + 1)).unwrap();
        assert_eq!(bus.stats().replies_lost.load(Ordering::Relaxed), 0);
    }

    async fn nowhere() -> (Bus, BusDriver) {
        let config = BusConfig {
            urls: "nats://127.0.0.1:1".to_owned(),
            credentials: None,
            client_name: "test".to_owned(),
            mesh: mesh_core::id::MeshName::default(),
        };
        Bus::connect(config).await.unwrap()
    }

    #[tokio::test]
    async fn neither_notices_nor_credits_pile_up_while_nothing_leaves() {
        let (bus, _driver) = nowhere().await;
        let to = ReplyTo("x".into());
        let mut waited = 0;
        for n in 0..20_000 {
            let bodies = [
                Body::Credit(common::Credit::of(1)),
                Body::Log(common::Log::default().into()),
                Body::Progress(common::Progress::default()),
            ];
            for body in bodies {
                let reply = control::NodeReply {
                    call_id: 1,
                    body: Some(body),
                    chunks_before: 0,
                };
                bus.reply(&to, reply).unwrap();
            }
            if n == 10_000 {
                waited = bus.stats().queued.load(Ordering::Relaxed);
            }
        }
        assert!(!bus.shared.outbox.congested(), "calls would be refused");
        assert_eq!(bus.stats().queued.load(Ordering::Relaxed), waited);
        let dropped = bus.stats().notices_dropped.load(Ordering::Relaxed);
        assert!(dropped > 30_000, "{dropped}");
        let shown = bus.counters()();
        assert!(
            shown
                .iter()
                .any(|(name, _, value)| (*name, *value) == ("notices_dropped", dropped))
        );
    }
}
