//! The engine: what a coordinator decides. Events in, new state and commands out.
//!
//! Facts live in the store; every state and the whole table follow from them (`registry`), so that
//! all coordinators show the same at the same revision. What agents say and operators want becomes
//! records by one path: whatever may differ from its record is marked, and what differs is written by
//! compare-and-set (`writes`). Leases are kept in memory (`leases`).

mod coming;
mod derive;
mod epochs;
mod event;
mod impact;
mod leases;
mod office;
mod others;
mod publish;
mod records;
mod registry;
mod requests;
mod roles;
mod rollout;
mod sessions;
mod splits;
mod suppose;
mod view;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use self::event::{
    Action, Change, Command, Event, Operation, Outcome, Report, RequestId, SessionId, Tally,
    WriteError, WriteId,
};
use self::leases::Leases;
use self::publish::Publisher;
use self::registry::{Changes, Registry};
use self::requests::Requests;
pub use self::roles::{CoordinatorView, NodeStanding, NodeView};
use self::rollout::Watch;
use self::sessions::Sessions;
pub use self::splits::{SplitShare, SplitView};
pub use self::suppose::{Affected, Impact, Supposition};
pub use self::view::{Counts, GraphNode, GraphView, PluginFilter, PluginView};
use self::writes::Writes;
use crate::record::{Key, RecordError, Stand};
use mesh_core::id::{InstanceId, NodeId, PluginName};
use mesh_core::revision::{Revision, Timestamp};

/// What an engine must know of its coordinator.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The coordinator's name, which no other coordinator of the mesh has.
    pub name: NodeId,
    /// When the coordinator was started, in milliseconds since 1970.
    pub run: u64,
    /// How long a node may be out of reach before it is evicted.
    pub lease: Duration,
    /// How long a plugin that lost a dependency goes on taking calls.
    pub grace: Duration,
}

/// How it is with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreState {
    /// Nothing is known yet.
    Starting,
    /// All that is stored is known.
    Current,
    /// What is known may be old.
    Lost,
}

/// What the store tells from the start, until all is told.
#[derive(Debug)]
struct Staging {
    epoch: u64,
    registry: Registry,
}

/// Where an instance stands and since when. Two clocks are never compared: what is noted is the
/// store's time, and what is waited for is measured by the engine's.
#[derive(Debug, Clone, Copy)]
struct Turned {
    stand: Stand,
    /// By the store's clock.
    at: Timestamp,
    /// By the engine's.
    seen: Timestamp,
}

/// A coordinator's mind.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    store: StoreState,
    /// The bucket's.
    epoch: u64,
    /// The newest table that somebody was seen to have.
    seen: Revision,
    registry: Registry,
    staging: Option<Staging>,
    sessions: Sessions,
    leases: Leases,
    writes: Writes,
    requests: Requests,
    /// Rollouts that go on.
    rollouts: BTreeMap<PluginName, Watch>,
    publisher: Publisher,
    /// Instances whose standing is not noted as it is, or changes with time.
    unsettled: BTreeMap<InstanceId, Turned>,
    out: Vec<Command>,
}

impl Engine {
    /// An engine that knows nothing yet.
    #[must_use]
    pub fn new(config: EngineConfig, now: Timestamp) -> Self {
        Self {
            config,
            store: StoreState::Starting,
            epoch: 0,
            seen: Revision::default(),
            registry: Registry::default(),
            staging: None,
            sessions: Sessions::default(),
            leases: Leases::new(now),
            writes: Writes::default(),
            requests: Requests::default(),
            rollouts: BTreeMap::new(),
            publisher: Publisher::default(),
            unsettled: BTreeMap::new(),
            out: Vec::new(),
        }
    }

    /// Takes one event. `now` never goes back.
    #[must_use]
    pub fn step(&mut self, event: Event, now: Timestamp) -> Vec<Command> {
        match event {
            Event::StoreReset { epoch, last } => {
                let registry = Registry::at(last);
                self.staging = Some(Staging { epoch, registry });
            }
            Event::Stored {
                key,
                value,
                sequence,
                at,
            } => self.stored(&key, value.as_deref(), (sequence, at), now),
            Event::StoreCurrent => self.store_current(now),
            Event::StoreLost => self.store_lost(now),
            Event::Written {
                write,
                key,
                sequence,
            } => self.written(write, &key, sequence),
            Event::WriteFailed { write, key, error } => {
                self.write_failed(write, &key, &error, now);
            }
            Event::AgentOpened {
                session,
                node,
                table,
            } => self.agent_opened(session, node, table, now),
            Event::AgentAnnounced { session, reports } => {
                self.agent_announced(session, reports, now);
            }
            Event::AgentReported { session, report } => self.agent_reported(session, report, now),
            Event::AgentGone { session, instance } => self.agent_gone(session, instance, now),
            Event::AgentHeartbeat { session } => self.heard(session, now),
            Event::AgentCounted { session, counts } => self.agent_counted(session, counts),
            Event::AgentAcknowledged { session, table } => self.acknowledged(session, table, now),
            Event::AgentClosed { session, parting } => self.agent_parted(session, parting, now),
            Event::TableSeen { table } => self.table_seen(table, now),
            Event::Requested { request, operation } => self.requested(request, operation, now),
            Event::Tick => self.tick(now),
        }
        self.settle(now);
        std::mem::take(&mut self.out)
    }

    /// The revision of the last table that was published.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.publisher.published()
    }

    /// How it is with the store.
    #[must_use]
    pub fn store(&self) -> StoreState {
        self.store
    }

    fn is_current(&self) -> bool {
        self.store == StoreState::Current
    }

    fn tick(&mut self, now: Timestamp) {
        self.tick_leases(now);
        self.tick_sessions(now);
        self.tick_writes(now);
        self.tick_requests(now);
        self.tick_rollouts();
        let due: Vec<InstanceId> = self.unsettled.keys().copied().collect();
        self.mark(due.into_iter().map(Key::Instance));
    }

    /// What every event ends with: tell the table, write what differs, answer who was served.
    fn settle(&mut self, now: Timestamp) {
        self.publish(now);
        if self.is_current() {
            self.direct();
            self.write_marked(now);
        }
        self.answer();
    }

    /// Says that these may differ from their records.
    fn mark(&mut self, keys: impl IntoIterator<Item = Key>) {
        self.writes.marked.extend(keys);
    }

    fn warn(&mut self, text: impl ToString) {
        self.out.push(Command::Warn(text.to_string()));
    }

    fn stored(
        &mut self,
        key: &str,
        value: Option<&[u8]>,
        (sequence, at): (u64, Timestamp),
        now: Timestamp,
    ) {
        let mut changes = Changes::default();
        if let Some(staging) = &mut self.staging {
            let read = staging
                .registry
                .apply_stored(key, value, (sequence, at), &mut changes);
            self.warn_of(read);
            return;
        }
        if sequence <= self.registry.applied || !self.is_current() {
            return;
        }
        let epoch = self.latest().epoch;
        let read = self
            .registry
            .apply_stored(key, value, (sequence, at), &mut changes);
        self.warn_of(read);
        if let Ok(key) = key.parse::<Key>() {
            self.seen_in_store(&key, sequence);
            match &key {
                Key::Node(node) => self.node_stored(node, now),
                Key::Instance(id) => self.sessions.coming.arrived(*id),
                Key::Wish(_) | Key::Split(_) => self.wished_stored(&key),
                Key::Rollout(plugin) => {
                    self.rollout_stored(plugin, now);
                    self.wished_stored(&key);
                }
                Key::Coordinator(name) => {
                    self.coordinator_stored(name, now);
                    self.twin_stored(name, now);
                }
                Key::Epoch => self.epoch_stored(epoch, now),
                Key::Lease => self.lease_stored(now),
            }
            self.mark([key]);
        }
        self.changed(&changes, at, now);
    }

    fn warn_of(&mut self, read: Result<Key, RecordError>) {
        if let Err(error) = read {
            self.warn(error);
        }
    }

    /// Takes note of what changed in the table at the store's time `at`.
    fn changed(&mut self, changes: &Changes, at: Timestamp, now: Timestamp) {
        for id in &changes.instances {
            self.watch_standing(*id, at, now);
        }
        self.mark(changes.instances.iter().copied().map(Key::Instance));
        self.publisher.note(changes);
        if !changes.specs.is_empty() {
            // Who was waited for may be gone.
            self.sessions.direct_anew = true;
        }
    }

    /// Keeps an instance in view whose standing has to be noted, now or when its grace is over.
    fn watch_standing(&mut self, id: InstanceId, at: Timestamp, seen: Timestamp) {
        let slot = self.registry.instances.get(&id);
        let stand = slot.and_then(|slot| slot.derived.as_ref()?.stand);
        let noted = slot.and_then(|slot| slot.stored.record.standing);
        let noted = noted.map(|noted| noted.stand);
        match stand {
            Some(stand) if Some(stand) != noted || stand == Stand::Losing => {
                let turned = Turned { stand, at, seen };
                let known = self.unsettled.entry(id).or_insert(turned);
                if known.stand != stand {
                    *known = turned;
                }
            }
            _ => drop(self.unsettled.remove(&id)),
        }
    }

    fn store_current(&mut self, now: Timestamp) {
        let Some(Staging {
            epoch,
            mut registry,
        }) = self.staging.take()
        else {
            return;
        };
        registry.resolve();
        let before = std::mem::replace(&mut self.registry, registry);
        let new_bucket = self.epoch != 0 && self.epoch != epoch;
        self.store = StoreState::Current;
        self.epoch = epoch;
        self.publisher.resynchronised(&before, &self.registry);
        let emptied = self.registry.nodes.is_empty() && !before.nodes.is_empty();
        if new_bucket || emptied || self.has_gone_back() {
            let nodes = before.nodes.keys().cloned().collect();
            self.wait_for_return(Some(nodes), now);
        }
        self.unsettled.clear();
        let instances: Vec<InstanceId> = self.registry.instances.keys().copied().collect();
        for id in &instances {
            self.watch_standing(*id, now, now);
        }
        self.writes.resynchronised();
        self.leases_resynchronised(now);
        self.sessions_resynchronised(now);
        let nodes: BTreeSet<NodeId> = self.registry.nodes.keys().cloned().collect();
        self.mark(instances.into_iter().map(Key::Instance));
        self.mark(nodes.into_iter().map(Key::Node));
        self.mark([Key::Epoch]);
        self.rollouts_resynchronised(now);
        self.requests_resynchronised();
    }

    fn store_lost(&mut self, now: Timestamp) {
        self.staging = None;
        if self.store == StoreState::Current {
            self.store = StoreState::Lost;
            self.leases_lost(now);
        }
        self.requests_store_lost();
    }
}

#[cfg(test)]
pub(crate) mod tests;
