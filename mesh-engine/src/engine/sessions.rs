//! Sessions: what agents say. An agent's announcement is the whole truth for its node.
//!
//! A session is accepted at once and counts from when its node's record names it as the holder. Of two
//! sessions for a node the newer generation wins, and of the same generation the one that was
//! recorded last, at whichever coordinator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::coming::Coming;
use super::event::{Action, Command, Report, SessionId, Tally};
use super::{Engine, StoreState};
use crate::record::{Holder, Key, Parting, Wish};
use mesh_core::error::{ErrorCode, MeshError, Place};
use mesh_core::id::{InstanceId, NodeId, PluginName};
use mesh_core::manifest::Manifest;
use mesh_core::revision::{Revision, Timestamp};
use mesh_core::table::{NodeRoute, SpecId};
use mesh_graph::label;

/// How long a session may go without an announcement before it is asked for one, in milliseconds.
const ASK_MS: u64 = 5_000;

/// One agent's session.
#[derive(Debug)]
pub(super) struct Session {
    pub route: NodeRoute,
    pub opened: Timestamp,
    heard: Timestamp,
    /// When it was asked for its announcement.
    asked: Timestamp,
    pub acknowledged: Option<Revision>,
    /// All its instances are in `reported`.
    pub announced: bool,
    pub reported: BTreeMap<InstanceId, Reported>,
    /// Instances that were refused or ended before the announcement.
    pub refused: BTreeSet<InstanceId>,
    /// Its node's record names it.
    recorded: bool,
    /// What its instances have counted.
    pub counts: BTreeMap<InstanceId, Tally>,
    /// What it was told to do with plugins.
    told: BTreeMap<PluginName, Action>,
}

/// What a session says of an instance.
#[derive(Debug)]
pub(super) struct Reported {
    pub report: Report,
    pub spec: SpecId,
}

#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_id: BTreeMap<SessionId, Session>,
    by_node: BTreeMap<NodeId, SessionId>,
    reporters: BTreeMap<InstanceId, SessionId>,
    pub coming: Coming,
    /// Wishes, or those who wait for each other, changed: look who has to be told.
    pub direct_anew: bool,
}

impl Session {
    /// The instance shall not be recorded, though not all are announced yet.
    fn refuse(&mut self, instance: InstanceId) {
        if !self.announced {
            self.refused.insert(instance);
        }
    }
}

impl Sessions {
    pub fn of_node(&self, node: &NodeId) -> Option<&Session> {
        self.by_id.get(self.by_node.get(node)?)
    }

    pub fn id_of_node(&self, node: &NodeId) -> Option<SessionId> {
        self.by_node.get(node).copied()
    }

    /// The session that tells of an instance, and what it tells.
    pub fn report(&self, id: InstanceId) -> Option<(&Session, &Reported)> {
        let session = self.by_id.get(self.reporters.get(&id)?)?;
        Some((session, session.reported.get(&id)?))
    }

    pub fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.by_id.get_mut(&id)
    }

    /// What an instance of a session here has counted.
    pub fn counts(&self, id: InstanceId) -> Option<Tally> {
        let session = self.by_id.get(self.reporters.get(&id)?)?;
        session.counts.get(&id).copied()
    }

    pub fn count(&self) -> usize {
        self.by_id.len()
    }

    fn forget(&mut self, session: SessionId, id: InstanceId) {
        let state = self.by_id.get_mut(&session);
        if state.and_then(|state| state.reported.remove(&id)).is_some() {
            self.reporters.remove(&id);
            self.coming.arrived(id);
        }
    }
}

impl Engine {
    pub(super) fn agent_opened(
        &mut self,
        id: SessionId,
        route: NodeRoute,
        table: Option<Revision>,
        now: Timestamp,
    ) {
        if let Some(table) = table {
            self.table_seen(table, now);
        }
        let node = route.node.clone();
        let known = self
            .registry
            .generation(&node)
            .filter(|_| self.is_current());
        if let Some(known) = known.filter(|known| *known > route.generation) {
            self.out.push(Command::CloseSession {
                session: id,
                error: stale(&route, &format!("its generation {known} is known")),
            });
            return;
        }
        if let Some(other) = self.sessions.id_of_node(&node) {
            if let Some(why) = self.outranked(other, &route, now) {
                let error = stale(&route, &why);
                self.out.push(Command::CloseSession { session: id, error });
                return;
            }
            self.end_session(
                other,
                &format!("generation {} has connected", route.generation),
                now,
            );
        }
        self.leases.present(&node);
        self.sessions.by_node.insert(node.clone(), id);
        let session = Session {
            route,
            opened: now,
            heard: now,
            asked: now,
            acknowledged: table,
            announced: false,
            reported: BTreeMap::new(),
            refused: BTreeSet::new(),
            recorded: false,
            counts: BTreeMap::new(),
            told: BTreeMap::new(),
        };
        self.sessions.by_id.insert(id, session);
        self.sessions.direct_anew = true;
        self.out.push(Command::Welcome { session: id });
        self.mark([Key::Node(node)]);
    }

    /// Why a session that is open comes before a new one, if it does.
    fn outranked(&self, other: SessionId, route: &NodeRoute, now: Timestamp) -> Option<String> {
        let other = self.sessions.by_id.get(&other)?;
        let known = other.route.generation;
        if known > route.generation {
            return Some(format!("its generation {known} is connected"));
        }
        let alive = now.millis_since(other.heard) <= self.lease_ms();
        (known == route.generation && alive).then(|| "it is connected already".to_owned())
    }

    /// Forgets a session and has it closed.
    fn end_session(&mut self, id: SessionId, why: &str, now: Timestamp) {
        if let Some(session) = self.sessions.by_id.get(&id) {
            let error = stale(&session.route, why);
            self.out.push(Command::CloseSession { session: id, error });
            self.agent_closed(id, Parting::SentOn, now);
        }
    }

    /// An agent's stream is down.
    pub(super) fn agent_parted(&mut self, id: SessionId, parting: Parting, now: Timestamp) {
        let Some(session) = self.sessions.by_id.get(&id) else {
            return;
        };
        // It says something three times in a lease.
        let silent = now.millis_since(session.heard) > self.lease_ms() / 2;
        let parting = match parting {
            // The end of a connection that was given up looks like a farewell.
            Parting::Broken | Parting::Left if silent => Parting::Silent,
            parting => parting,
        };
        self.agent_closed(id, parting, now);
    }

    fn agent_closed(&mut self, id: SessionId, parting: Parting, now: Timestamp) {
        let Some(session) = self.sessions.by_id.remove(&id) else {
            return;
        };
        for instance in session.reported.into_keys() {
            self.sessions.reporters.remove(&instance);
            self.sessions.coming.arrived(instance);
        }
        let node = session.route.node;
        if self.sessions.id_of_node(&node) == Some(id) {
            self.sessions.by_node.remove(&node);
            if self.registry.nodes.contains_key(&node) {
                self.leases.out_of_sight(&node, now);
            }
            self.leases.partings.insert(node.clone(), parting);
            self.mark([Key::Node(node)]);
        }
    }

    /// Sends agents to another coordinator: all, or those whose session could not be recorded within a
    /// quarter of a lease.
    pub(super) fn end_sessions(&mut self, error: &MeshError, unrecorded: bool, now: Timestamp) {
        let patience = self.lease_ms() / 4;
        let late =
            |session: &Session| !session.recorded && now.millis_since(session.opened) > patience;
        let open = self.sessions.by_id.iter();
        let ending = open.filter(|(_, session)| !unrecorded || late(session));
        let ids: Vec<SessionId> = ending.map(|(id, _)| *id).collect();
        for session in ids {
            let error = error.clone();
            self.out.push(Command::CloseSession { session, error });
            self.agent_closed(session, Parting::SentOn, now);
        }
    }

    /// Asks those for their announcement who have not given one.
    pub(super) fn tick_sessions(&mut self, now: Timestamp) {
        for (id, session) in &mut self.sessions.by_id {
            if !session.announced && now.millis_since(session.asked) >= ASK_MS {
                session.asked = now;
                self.out.push(Command::AskAnnounce { session: *id });
            }
        }
    }

    pub(super) fn heard(&mut self, id: SessionId, now: Timestamp) {
        if let Some(session) = self.sessions.by_id.get_mut(&id) {
            session.heard = now;
        }
    }

    pub(super) fn acknowledged(&mut self, id: SessionId, table: Revision, now: Timestamp) {
        self.heard(id, now);
        if let Some(session) = self.sessions.by_id.get_mut(&id) {
            session.acknowledged = session.acknowledged.max(Some(table));
        }
    }

    pub(super) fn agent_announced(&mut self, id: SessionId, reports: Vec<Report>, now: Timestamp) {
        self.heard(id, now);
        let Some(session) = self.sessions.by_id.get_mut(&id) else {
            return;
        };
        session.announced = true;
        session.refused.clear();
        let node = session.route.node.clone();
        let named: BTreeSet<InstanceId> = reports.iter().map(|report| report.instance).collect();
        let missing = session
            .reported
            .keys()
            .filter(|instance| !named.contains(instance));
        let missing: Vec<InstanceId> = missing.copied().collect();
        for instance in missing {
            self.sessions.forget(id, instance);
            self.mark([Key::Instance(instance)]);
        }
        for report in reports {
            self.admit(id, report);
        }
        let recorded = self
            .registry
            .by_node
            .get(&node)
            .cloned()
            .unwrap_or_default();
        self.mark(recorded.into_iter().map(Key::Instance));
    }

    pub(super) fn agent_reported(&mut self, id: SessionId, report: Report, now: Timestamp) {
        self.heard(id, now);
        if self.sessions.by_id.contains_key(&id) {
            self.admit(id, report);
        }
    }

    pub(super) fn agent_gone(&mut self, id: SessionId, instance: InstanceId, now: Timestamp) {
        self.heard(id, now);
        let Some(session) = self.sessions.by_id.get_mut(&id) else {
            return;
        };
        session.refuse(instance);
        self.sessions.forget(id, instance);
        self.mark([Key::Instance(instance)]);
    }

    /// Takes what a session says of an instance, unless the instance must be refused.
    fn admit(&mut self, id: SessionId, mut report: Report) {
        let instance = report.instance;
        let spec = SpecId::of(&report.manifest);
        if let Some(known) = self.registry.graph.manifest(&spec) {
            // Many instances, one manifest in memory.
            report.manifest = Arc::clone(known);
        }
        self.mark([Key::Instance(instance)]);
        let result = self.check(id, &report, &spec);
        let Some(session) = self.sessions.by_id.get_mut(&id) else {
            return;
        };
        if let Err(error) = result {
            session.refuse(instance);
            let error = error.at(Place {
                plugin: report.manifest.name.to_string(),
                version: report.manifest.version.to_string(),
                instance: instance.to_string(),
                node: session.route.node.to_string(),
            });
            self.sessions.forget(id, instance);
            self.out.push(Command::Reject {
                session: id,
                instance,
                error,
            });
            return;
        }
        session.refused.remove(&instance);
        if self.registry.graph.contains(&spec) {
            self.sessions.coming.arrived(instance);
        } else {
            self.sessions
                .coming
                .expect(instance, &spec, &report.manifest);
        }
        self.sessions.reporters.insert(instance, id);
        session.reported.insert(instance, Reported { report, spec });
    }

    fn check(&self, id: SessionId, report: &Report, spec: &SpecId) -> Result<(), MeshError> {
        let own = self
            .sessions
            .by_id
            .get(&id)
            .map(|session| &session.route.node);
        let slot = self.registry.instances.get(&report.instance);
        // One of a generation that is gone may be taken over.
        let slot = slot.filter(|slot| slot.derived.is_some());
        let recorded = slot.map(|slot| &slot.stored.record.facts.node);
        let reporter = self.sessions.report(report.instance);
        let reported = reporter.map(|(session, _)| &session.route.node);
        if let Some(other) = recorded.or(reported).filter(|other| Some(*other) != own) {
            let text = format!("an instance of this id runs on node {other}: draw a new id");
            return Err(MeshError::new(ErrorCode::InvalidArgument, text));
        }
        if self.store == StoreState::Starting {
            // Judged when it is known who is here.
            return Ok(());
        }
        self.check_ring(&report.manifest, spec)
    }

    fn check_ring(&self, manifest: &Manifest, spec: &SpecId) -> Result<(), MeshError> {
        let coming = self.sessions.coming.graph();
        // Another instance of what was judged before; whoever closes a ring with it comes later.
        if self.registry.graph.contains(spec) || coming.contains(spec) {
            return Ok(());
        }
        let runs = |spec: &SpecId| self.registry.is_active(spec);
        let checked = self
            .registry
            .graph
            .check_candidate_beside(manifest, coming, &runs);
        checked.map_err(|cycle| {
            let text = format!(
                "{} is refused: {cycle}; make one of these dependencies optional or remove it",
                label(manifest)
            );
            MeshError::new(ErrorCode::DependencyCycle, text)
        })
    }

    /// A node's record changed: see whether it still names its session.
    pub(super) fn node_stored(&mut self, node: &NodeId, now: Timestamp) {
        let members = self.registry.by_node.get(node).cloned().unwrap_or_default();
        self.mark(members.into_iter().map(Key::Instance));
        let Some(id) = self.sessions.id_of_node(node) else {
            self.absent_node_stored(node, now);
            return;
        };
        let mine = self.holder_of(id);
        let Some(session) = self.sessions.by_id.get_mut(&id) else {
            return;
        };
        let Some(stored) = self.registry.nodes.get(node) else {
            session.recorded = false;
            return;
        };
        let known = stored.record.route.generation;
        if known > session.route.generation {
            self.end_session(id, &format!("its generation {known} is known"), now);
        } else if known < session.route.generation {
            session.recorded = false;
        } else if stored.record.holder.as_ref() == Some(&mine) {
            if !session.recorded {
                session.recorded = true;
                let reported: Vec<InstanceId> = session.reported.keys().copied().collect();
                self.mark(reported.into_iter().map(Key::Instance));
            }
        } else if let Some(other) = stored.record.holder.as_ref().filter(|_| session.recorded) {
            let why = format!(
                "it has connected to coordinator {} since",
                other.coordinator
            );
            self.end_session(id, &why, now);
        }
    }

    /// How a node's record names one of this coordinator's sessions.
    pub(super) fn holder_of(&self, id: SessionId) -> Holder {
        Holder {
            coordinator: self.config.name.clone(),
            run: self.config.run,
            session: id.0,
        }
    }

    /// The store was told from the start: judge all sessions by it.
    pub(super) fn sessions_resynchronised(&mut self, now: Timestamp) {
        let nodes: Vec<NodeId> = self.sessions.by_node.keys().cloned().collect();
        for node in nodes {
            self.node_stored(&node, now);
            self.mark([Key::Node(node)]);
        }
        self.sessions.coming = Coming::default();
        let ids: Vec<SessionId> = self.sessions.by_id.keys().copied().collect();
        for id in ids {
            let Some(session) = self.sessions.by_id.get_mut(&id) else {
                continue;
            };
            let reported = std::mem::take(&mut session.reported);
            for instance in reported.keys() {
                self.sessions.reporters.remove(instance);
            }
            for (_, Reported { report, .. }) in reported {
                self.admit(id, report);
            }
        }
        self.sessions.direct_anew = true;
    }

    /// Tells agents what operators want of plugins, each once.
    pub(super) fn direct(&mut self) {
        if !std::mem::take(&mut self.sessions.direct_anew) {
            return;
        }
        let mut wanted: BTreeMap<PluginName, (Action, Arc<str>)> = BTreeMap::new();
        for (plugin, wish) in &self.registry.wishes {
            let action = match wish.record.wish {
                Wish::Enabled => Action::Start,
                Wish::Unloaded if self.registry.hold(plugin).is_held() => Action::Unload,
                Wish::Unloaded | Wish::Disabled => continue,
            };
            wanted.insert(plugin.clone(), (action, wish.record.reason.as_str().into()));
        }
        for (id, session) in &mut self.sessions.by_id {
            session
                .told
                .retain(|plugin, _| self.registry.wishes.contains_key(plugin));
            for (plugin, (action, reason)) in &wanted {
                if session.told.insert(plugin.clone(), *action) != Some(*action) {
                    self.out.push(Command::Directive {
                        session: *id,
                        action: *action,
                        plugin: plugin.clone(),
                        reason: reason.to_string(),
                    });
                }
            }
        }
    }
}

fn stale(route: &NodeRoute, why: &str) -> MeshError {
    let text = format!(
        "node {} of generation {} can't join: {why}; if two agents have this name, give one another",
        route.node, route.generation
    );
    MeshError::new(ErrorCode::StaleNode, text).at(Place {
        node: route.node.to_string(),
        ..Place::default()
    })
}
