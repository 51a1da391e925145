//! What all tasks of the data path share, behind one lock: sessions and who waits for their calls.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use mesh_core::id::InstanceId;
use mesh_core::manifest::Manifest;
use mesh_proto::attach::PeerInfo;
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admission::{Situation, Usage, admit};
use super::call::{CallerKey, InFlight, ReplyPath, Taken};
use super::held::Held;
use super::load::Load;
use super::out::OutQueue;
use crate::metrics::PluginMeters;
use crate::session::ids::IdHasher;
use crate::session::{Machine, Pulse, Stage};
use mesh_core::error::{ErrorCode, MeshError, Place};

/// Names one session for as long as the agent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionKey {
    index: usize,
    serial: u64,
}

/// One plugin's stream.
#[derive(Debug)]
pub(super) struct Session {
    serial: u64,
    /// Who opened it.
    pub(super) peer: PeerInfo,
    pub(super) machine: Machine<InFlight>,
    pub(super) out: OutQueue,
    /// Ends the task that reads the stream.
    pub(super) stop: CancellationToken,
    /// Set once the handshake is accepted.
    pub(super) plugin: Option<Attached>,
    /// Why it takes no new calls.
    pub(super) draining: Option<String>,
    /// Drained has come.
    pub(super) drained: bool,
    /// Told whenever a call ends or Drained comes, while it drains.
    pub(super) calmer: Arc<Notify>,
    pub(super) load: Load,
    /// Whether the plugin gives signs of life.
    pub(super) pulse: Pulse,
}

/// What is known of a plugin after the handshake.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) instance: InstanceId,
    pub(super) manifest: Arc<Manifest>,
    pub(super) concurrency: u32,
    /// The token of a process that this agent started.
    pub(super) launch_token: Option<String>,
    pub(super) meters: PluginMeters,
}

/// What is behind the lock.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) sessions: Sessions,
    pub(super) calls: Calls,
    /// The agent stops.
    pub(super) draining: bool,
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slots: Slab<Session>,
    by_instance: HashMap<InstanceId, SessionKey, BuildHasherDefault<IdHasher>>,
    serials: u64,
}

/// What is known of all running calls together.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) callers: Callers,
    /// Numbers that were given to calls.
    numbered: u64,
    pub(super) in_flight: usize,
    /// No running call's deadline is before this.
    pub(super) next_deadline: Option<Instant>,
}

/// Which running call each caller on the bus waits for. What the callers are named stands with the calls
/// alone: a copy of each name would be a visible part of a call's cost.
#[derive(Debug, Default)]
pub(super) struct Callers {
    calls: HashTable<Waited>,
    hasher: RandomState,
}

/// A running call that a caller on the bus waits for.
#[derive(Debug)]
struct Waited {
    /// Of the caller.
    hash: u64,
    /// Its number among all calls.
    number: u64,
    key: SessionKey,
    id: u64,
}

impl Callers {
    /// By which a caller is looked for.
    pub(super) fn hash(&self, caller: &CallerKey) -> u64 {
        self.hasher.hash_one(caller)
    }

    /// A call has begun: the hash of its caller, its number, its session and its id there.
    pub(super) fn insert(&mut self, hash: u64, number: u64, (key, id): (SessionKey, u64)) {
        let call = Waited {
            hash,
            number,
            key,
            id,
        };
        self.calls.insert_unique(hash, call, |call| call.hash);
    }

    /// The call of that number has ended.
    pub(super) fn remove(&mut self, caller: &CallerKey, number: u64) {
        let found = self
            .calls
            .find_entry(self.hash(caller), |call| call.number == number);
        if let Ok(call) = found {
            call.remove();
        }
    }

    /// Where the call of a caller runs.
    pub(super) fn find(
        &self,
        caller: &CallerKey,
        sessions: &mut Sessions,
    ) -> Option<(SessionKey, u64)> {
        let is_it = |call: &Waited| {
            let session = sessions.get(call.key);
            let running = session.and_then(|session| session.machine.call(call.id));
            running.is_some_and(|it| matches!(&it.reply, ReplyPath::Bus(key) if key == caller))
        };
        let found = self.calls.find(self.hash(caller), is_it)?;
        Some((found.key, found.id))
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }
}

/// Whether two streams come from the same process or address, as far as can be told.
fn is_same(one: &PeerInfo, other: &PeerInfo) -> bool {
    match (one, other) {
        (PeerInfo::Tcp(one), PeerInfo::Tcp(other)) => one.ip() == other.ip(),
        _ => one == other,
    }
}

impl Calls {
    /// The number of a call that begins.
    pub(super) fn number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }

    /// A call began. True: its deadline is before all others.
    pub(super) fn begun(&mut self, deadline: Instant) -> bool {
        self.in_flight += 1;
        let first = self.next_deadline.is_none_or(|next| deadline < next);
        if first {
            self.next_deadline = Some(deadline);
        }
        first
    }
}

impl Sessions {
    pub(super) fn open(
        &mut self,
        node: &str,
        peer: &PeerInfo,
        out: OutQueue,
        stop: CancellationToken,
    ) -> SessionKey {
        self.serials += 1;
        let serial = self.serials;
        let index = self.slots.insert(Session {
            serial,
            peer: peer.clone(),
            machine: Machine::new(node),
            out,
            stop,
            plugin: None,
            draining: None,
            drained: false,
            calmer: Arc::new(Notify::new()),
            load: Load::default(),
            pulse: Pulse::new(Instant::now()),
        });
        SessionKey { index, serial }
    }

    pub(super) fn get(&mut self, key: SessionKey) -> Option<&mut Session> {
        let session = self.slots.get_mut(key.index)?;
        (session.serial == key.serial).then_some(session)
    }

    pub(super) fn of_instance(&mut self, instance: InstanceId) -> Option<&mut Session> {
        let key = self.key_of(instance)?;
        self.get(key)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Session> {
        self.slots.iter().map(|(_, session)| session)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = (SessionKey, &mut Session)> {
        self.slots.iter_mut().map(|(index, session)| {
            let serial = session.serial;
            (SessionKey { index, serial }, session)
        })
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Streams whose Hello was not accepted yet: all, and those of one peer.
    pub(super) fn strangers(&self, peer: &PeerInfo) -> (usize, usize) {
        let strangers = || self.all().filter(|session| session.plugin.is_none());
        let of_peer = strangers().filter(|session| is_same(&session.peer, peer));
        (strangers().count(), of_peer.count())
    }

    pub(super) fn key_of(&self, instance: InstanceId) -> Option<SessionKey> {
        self.by_instance.get(&instance).copied()
    }

    /// The handshake was accepted. False: the stream has ended meanwhile.
    pub(super) fn attach(&mut self, key: SessionKey, plugin: Attached, place: Place) -> bool {
        let instance = plugin.instance;
        let Some(session) = self.get(key) else {
            return false;
        };
        session.machine.accept(place);
        session.plugin = Some(plugin);
        self.by_instance.insert(instance, key);
        true
    }

    /// The stream has ended.
    pub(super) fn close(&mut self, key: SessionKey) -> Option<Session> {
        self.get(key)?;
        let session = self.slots.try_remove(key.index)?;
        if let Some(plugin) = &session.plugin
            && self.by_instance.get(&plugin.instance) == Some(&key)
        {
            self.by_instance.remove(&plugin.instance);
        }
        Some(session)
    }
}

impl State {
    /// Where the call of a caller on the bus runs.
    pub(super) fn caller(&mut self, caller: &CallerKey) -> Option<(SessionKey, u64)> {
        self.calls.callers.find(caller, &mut self.sessions)
    }

    /// Whether a call is of a plugin beside it that finishes its own calls while the agent stops: those
    /// would break without it.
    pub(super) fn is_needed(&mut self, call: &Taken) -> bool {
        let Taken::Whole(call) = call else {
            return false;
        };
        if !self.draining {
            return false;
        }
        let caller = call.caller.as_ref();
        let caller = caller.and_then(|caller| caller.instance.parse().ok());
        let session = caller.and_then(|instance| self.sessions.of_instance(instance));
        session.is_some_and(|session| session.machine.in_flight() > 0)
    }

    /// Decides whether a call to an instance is taken. `needed`: although the agent stops.
    pub(super) fn admit(
        &mut self,
        instance: InstanceId,
        needed: bool,
        bus_is_congested: bool,
        node: &str,
        max_in_flight: usize,
        held: &Held,
    ) -> Result<SessionKey, MeshError> {
        let (used, agent_draining) = (self.calls.in_flight, self.draining && !needed);
        let key = self.sessions.key_of(instance);
        let Some((key, session)) = key.and_then(|key| Some((key, self.sessions.get(key)?))) else {
            let text = "the instance is not (or no longer) attached to this node";
            return Err(MeshError::new(ErrorCode::InstanceGone, text).at(Place {
                instance: instance.to_string(),
                node: node.to_owned(),
                ..Place::default()
            }));
        };
        let concurrency = session.plugin.as_ref().map_or(0, |it| it.concurrency);
        let situation = Situation {
            agent_draining,
            draining: session.draining.as_deref().filter(|_| !needed),
            ready: session.machine.stage() == Stage::Ready,
            hangs: session.pulse.hangs(),
            agent: Usage {
                used,
                limit: max_in_flight,
            },
            instance: Usage {
                used: session.machine.in_flight(),
                limit: concurrency as usize,
            },
            bytes: Usage {
                used: held.bytes(),
                limit: held.most,
            },
            bus_is_congested,
            queue_has_room: session.out.has_room(),
            mean_latency: session.load.mean_latency(),
        };
        let Err(error) = admit(&situation) else {
            return Ok(key);
        };
        if error.code == ErrorCode::Overloaded {
            session.load.shed();
        }
        if let Some(plugin) = &session.plugin {
            plugin.meters.refused(error.code.name());
        }
        Err(error.at(session.machine.place().clone()))
    }
}
