//! Rollouts: the calls of a plugin go over to a new version step by step, and back when it fails.
//!
//! All of it is in one record per plugin, written by compare-and-set. Whoever holds the office takes the
//! steps forward; a coordinator that takes over finds the record and goes on. A step is decided by nothing
//! but the record and the time since it was written, so one that arrives late either finds another record,
//! and is refused, or is due all the same: no two coordinators take one step. That the new version fails is
//! seen by each coordinator from its own agents' counts, and whoever sees it writes that; of several the
//! store takes one. Time is counted from when the record was seen to change, by this engine's clock: it may
//! begin anew, and is never too short.

use std::collections::{BTreeMap, BTreeSet};

use semver::Version;

use super::Engine;
use super::derive::Hold;
use super::event::{Operation, SessionId, Tally};
use super::registry::{Changes, Registry, Work};
use super::requests::Intent;
use crate::record::{Doing, Key, Mover, Record, RolloutPlan, RolloutRecord, RolloutState};
use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::{InstanceId, PluginName};
use mesh_core::manifest::Manifest;
use mesh_core::revision::Timestamp;
use mesh_core::split::{MOST_SHARES, Split};
use mesh_core::state::InstanceState;
use mesh_core::table::{InstanceRoute, SpecId};
use mesh_graph::{label, required};

/// What is seen of one rollout since its record changed last.
#[derive(Debug)]
pub(super) struct Watch {
    seen: Timestamp,
    /// What the instances of the new version had counted by then, or when they were heard first.
    base: BTreeMap<InstanceId, Tally>,
}

impl Registry {
    /// The rollout of a plugin whose shares count: one that goes on, or is over and newer than its split.
    pub fn rollout_that_counts(&self, plugin: &PluginName) -> Option<&RolloutRecord> {
        let rollout = self.rollouts.get(plugin)?;
        let split = self.splits.get(plugin).map_or(0, |it| it.sequence);
        (rollout.record.is_running() || rollout.sequence > split).then_some(&rollout.record)
    }

    /// The versions of a plugin that a rollout has replaced.
    fn retired(&self, plugin: &PluginName) -> BTreeSet<Version> {
        let rollout = self.rollout_that_counts(plugin);
        rollout.map(|it| it.retired.clone()).unwrap_or_default()
    }

    /// How a plugin's calls are shared out, and the versions that take none.
    pub(super) fn shares(&self, plugin: &PluginName) -> (Option<Split>, BTreeSet<Version>) {
        (self.split(plugin), self.retired(plugin))
    }

    /// The record of a split or of a rollout changed.
    pub(super) fn shares_changed(
        &self,
        plugin: &PluginName,
        before: &(Option<Split>, BTreeSet<Version>),
        work: &mut Work,
        changes: &mut Changes,
    ) {
        let (split, retired) = self.shares(plugin);
        if before.0 != split {
            changes.splits.insert(plugin.clone());
        }
        if before.1 != retired {
            self.touch_plugin(plugin, work);
        }
    }

    /// The sequence of the record by which it was decided what a key stands for; 0: by none. Split and
    /// rollout of a plugin decide about the same.
    pub fn decided(&self, key: &Key) -> u64 {
        match key {
            Key::Split(plugin) | Key::Rollout(plugin) => {
                let split = self.sequence_of(&Key::Split(plugin.clone()));
                split.max(self.sequence_of(&Key::Rollout(plugin.clone())))
            }
            key => self.sequence_of(key),
        }
    }

    /// Whether operators, or a rollout, keep a description from taking calls.
    pub fn hold_of(&self, manifest: &Manifest) -> Hold<'_> {
        let hold = self.hold(&manifest.name);
        let rollout = self.rollout_that_counts(&manifest.name);
        match rollout.filter(|it| it.retired.contains(&manifest.version)) {
            Some(rollout) if !hold.is_held() => Hold::Replaced(rollout),
            _ => hold,
        }
    }

    fn specs_in<'a>(
        &'a self,
        plugin: &'a PluginName,
        version: &'a Version,
    ) -> impl Iterator<Item = &'a SpecId> {
        let is_it = |spec: &&SpecId| {
            let manifest = self.graph.manifest(spec);
            manifest.is_some_and(|manifest| manifest.version == *version)
        };
        self.graph.specs_of(plugin).filter(is_it)
    }

    /// The instances of one version, as the table has them.
    pub fn routes_in<'a>(
        &'a self,
        plugin: &'a PluginName,
        version: &'a Version,
    ) -> impl Iterator<Item = &'a InstanceRoute> {
        let states = self.specs_in(plugin, version);
        let ids = states.filter_map(|spec| self.specs.get(spec));
        let ids = ids.flat_map(|state| &state.instances);
        let derived = ids.filter_map(|id| self.instances.get(id)?.derived.as_ref());
        derived.map(|derived| &derived.route)
    }

    /// Those who would lose what they need without a version of a plugin, when others are gone already;
    /// by `name@version`.
    fn needers(
        &self,
        plugin: &PluginName,
        version: &Version,
        retired: &BTreeSet<Version>,
    ) -> BTreeSet<String> {
        let versions = retired.iter().chain([version]);
        let gone: BTreeSet<&SpecId> = versions.flat_map(|it| self.specs_in(plugin, it)).collect();
        let runs = |spec: &SpecId| self.is_active(spec) && !gone.contains(spec);
        let its: BTreeSet<&SpecId> = self.specs_in(plugin, version).collect();
        // Need by need: who waits for something else now, or stands still, will want this one again.
        let loses = |manifest: &Manifest| {
            required(manifest).any(|need| {
                let providers = || self.graph.providers(need).map(|(spec, _)| spec);
                providers().any(|spec| its.contains(spec)) && !providers().any(runs)
            })
        };
        let users = its
            .iter()
            .flat_map(|spec| self.graph.dependents(spec, false));
        let users = users.filter(|user| !gone.contains(user));
        let manifests = users.filter_map(|user| self.graph.manifest(&user));
        let losers = manifests.filter(|manifest| loses(manifest));
        losers.map(|manifest| label(manifest)).collect()
    }

    /// What the versions get that are there beside the new one, before it gets anything.
    fn before_rollout(&self, plugin: &PluginName, to: &Version) -> BTreeMap<Version, u32> {
        let here = self.versions(plugin);
        let split = self.split(plugin).map(|split| split.shares);
        let shares = split.into_iter().flatten();
        let shares = shares
            .filter(|(version, weight)| *weight > 0 && version != to && here.contains(version));
        let before: BTreeMap<Version, u32> = shares.collect();
        if !before.is_empty() {
            return before;
        }
        let rank = |version: &&Version| {
            let active = self.active(plugin, version) > 0;
            (active, version.pre.is_empty(), (*version).clone())
        };
        let newest = here
            .iter()
            .filter(|version| *version != to)
            .max_by_key(rank);
        newest
            .map(|version| (version.clone(), 1))
            .into_iter()
            .collect()
    }
}

impl Engine {
    /// The record of a rollout that shall begin.
    pub(super) fn rollout_intent(
        &self,
        plan: &RolloutPlan,
        operation: &Operation,
        now: Timestamp,
    ) -> Result<Intent, MeshError> {
        let plugin = &operation.plugin;
        let refuse = |field: &str, why: String| {
            MeshError::new(ErrorCode::InvalidArgument, format!("{field}: {why}"))
        };
        plan.check().map_err(|(field, why)| refuse(field, why))?;
        self.no_rollout_runs(plugin)?;
        let before = self.registry.before_rollout(plugin, &plan.to);
        if before.is_empty() {
            let text = format!(
                "{plugin} runs in no other version than {}, so there is nothing that could give it \
                 calls: enable it instead, or name another version",
                plan.to
            );
            return Err(refuse("to", text));
        }
        if before.len() >= MOST_SHARES {
            let text = format!(
                "{plugin} has {} versions with a share of its calls, and may have {MOST_SHARES} with {}: \
                 set a split with fewer first",
                before.len(),
                plan.to
            );
            return Err(refuse("to", text));
        }
        // What an earlier one has replaced stays so, but for what this one is of.
        let mut retired = self.registry.retired(plugin);
        retired.retain(|version| *version != plan.to && !before.contains_key(version));
        let record = RolloutRecord {
            plugin: plugin.clone(),
            plan: plan.clone(),
            before,
            state: RolloutState::Waiting,
            step: 0,
            watched_ms: 0,
            retired,
            reason: format!("it waits for an instance of {} that is active", plan.to),
            by: operation.by.clone(),
            why: operation.reason.clone(),
            moved_by: Mover::Operator(operation.by.clone()),
            term: 0,
            begun: now,
            since: now,
        };
        Ok(Intent {
            key: Key::Rollout(plugin.clone()),
            record: Record::Rollout(Box::new(record)),
        })
    }

    /// The record of a rollout that an operator ends.
    pub(super) fn abort_intent(
        &self,
        operation: &Operation,
        now: Timestamp,
    ) -> Result<Intent, MeshError> {
        let plugin = &operation.plugin;
        let stored = self.registry.rollouts.get(plugin);
        let Some(record) = stored
            .map(|stored| &stored.record)
            .filter(|it| it.is_running())
        else {
            let text = match stored {
                None => format!("there is no rollout of {plugin}"),
                Some(_) => format!("the rollout of {plugin} is over: see its status"),
            };
            return Err(MeshError::new(ErrorCode::NotFound, text));
        };
        let by = match operation.by.as_str() {
            "" => "an operator",
            by => by,
        };
        let record = RolloutRecord {
            state: RolloutState::Aborted,
            reason: match operation.reason.as_str() {
                "" => format!("aborted by {by}"),
                reason => format!("aborted by {by}: {reason}"),
            },
            moved_by: Mover::Operator(operation.by.clone()),
            since: now,
            ..record.clone()
        };
        Ok(Intent {
            key: Key::Rollout(plugin.clone()),
            record: Record::Rollout(Box::new(record)),
        })
    }

    /// # Errors
    /// `InvalidArgument` when a rollout of the plugin is under way.
    pub(super) fn no_rollout_runs(&self, plugin: &PluginName) -> Result<(), MeshError> {
        let stored = self.registry.rollouts.get(plugin);
        match stored.map(|stored| &stored.record) {
            Some(record) if record.is_running() => {
                let text = format!(
                    "a rollout of {plugin} to {} is under way: wait for its end, or abort it first \
                     (`plugmesh rollout abort {plugin}`)",
                    record.plan.to
                );
                Err(MeshError::new(ErrorCode::InvalidArgument, text))
            }
            _ => Ok(()),
        }
    }

    /// A rollout's record changed.
    pub(super) fn rollout_stored(&mut self, plugin: &PluginName, now: Timestamp) {
        self.rollouts.remove(plugin);
        let stored = self.registry.rollouts.get(plugin);
        let Some(record) = stored.map(|it| &it.record).filter(|it| it.is_running()) else {
            return;
        };
        let routes = self.registry.routes_in(plugin, &record.plan.to);
        let base = routes.filter_map(|it| Some((it.instance, self.sessions.counts(it.instance)?)));
        let watch = Watch {
            seen: now,
            base: base.collect(),
        };
        self.rollouts.insert(plugin.clone(), watch);
    }

    pub(super) fn rollouts_resynchronised(&mut self, now: Timestamp) {
        self.rollouts.clear();
        let plugins: Vec<PluginName> = self.registry.rollouts.keys().cloned().collect();
        for plugin in plugins {
            self.rollout_stored(&plugin, now);
        }
    }

    /// Whether there is a rollout that the holder of the office must take forward now. Between its steps
    /// nobody needs the office for it, so that who sees a node to evict can have it.
    pub(super) fn is_step_due(&self, now: Timestamp) -> bool {
        let running = self.rollouts.keys();
        running
            .filter_map(|plugin| self.what_follows(plugin, now, true))
            .any(|next| next.state != RolloutState::Returned)
    }

    pub(super) fn tick_rollouts(&mut self) {
        let running: Vec<Key> = self.rollouts.keys().cloned().map(Key::Rollout).collect();
        self.mark(running);
    }

    /// Where a rollout goes next, when that is due.
    fn what_follows(
        &self,
        plugin: &PluginName,
        now: Timestamp,
        leads: bool,
    ) -> Option<RolloutRecord> {
        if self.is_waiting_for_return() {
            return None;
        }
        let watch = self.rollouts.get(plugin)?;
        let record = &self.registry.rollouts.get(plugin)?.record;
        let waited = now.millis_since(watch.seen);
        record.next(&self.doing(record, watch), waited, leads)
    }

    /// What a rollout's record shall be, when something is due.
    pub(super) fn rollout_shall(&self, plugin: &PluginName, now: Timestamp) -> Option<Record> {
        let term = self.term(now);
        let mut next = self.what_follows(plugin, now, term.is_some())?;
        next.since = now;
        next.moved_by = Mover::Coordinator(self.config.name.clone());
        if next.state != RolloutState::Returned {
            next.term = term?;
        }
        if next.state == RolloutState::Done {
            for version in next.before.keys() {
                let needers = self.registry.needers(plugin, version, &next.retired);
                if needers.is_empty() {
                    next.retired.insert(version.clone());
                } else {
                    let needers: Vec<String> = needers.into_iter().collect();
                    next.reason += &format!("; {version} goes on for {}", needers.join(", "));
                }
            }
        }
        Some(Record::Rollout(Box::new(next)))
    }

    fn doing(&self, record: &RolloutRecord, watch: &Watch) -> Doing {
        let mut doing = Doing::default();
        for route in self.registry.routes_in(&record.plugin, &record.plan.to) {
            match route.state {
                InstanceState::Active => doing.active += 1,
                InstanceState::Degraded | InstanceState::Failed => doing.failing += 1,
                _ => {}
            }
            if route.state != InstanceState::Active {
                doing.trouble = format!("{} ({})", route.state, route.reason);
            }
            if let Some(counts) = self.sessions.counts(route.instance) {
                let base = watch.base.get(&route.instance).copied().unwrap_or(counts);
                doing.calls += counts.calls.saturating_sub(base.calls);
                doing.errors += counts.errors.saturating_sub(base.errors);
            }
        }
        doing
    }

    /// An agent tells what its instances have counted.
    pub(super) fn agent_counted(&mut self, id: SessionId, counts: Vec<(InstanceId, Tally)>) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.counts = counts.into_iter().collect();
        }
        // Who is heard here for the first time may have counted for long, at another coordinator.
        for (plugin, watch) in &mut self.rollouts {
            let Some(stored) = self.registry.rollouts.get(plugin) else {
                continue;
            };
            for route in self.registry.routes_in(plugin, &stored.record.plan.to) {
                if let Some(counts) = self.sessions.counts(route.instance) {
                    watch.base.entry(route.instance).or_insert(counts);
                }
            }
        }
    }

    /// The rollouts, by plugin; of one plugin only its own.
    #[must_use]
    pub fn rollouts(&self, plugin: Option<&PluginName>) -> Vec<RolloutRecord> {
        let records = self.registry.rollouts.values().map(|stored| &stored.record);
        let records = records.filter(|record| plugin.is_none_or(|name| record.plugin == *name));
        records.cloned().collect()
    }

    /// The rollout of a plugin whose shares count and not those of its split, if there is one.
    #[must_use]
    pub fn rollout_that_counts(&self, plugin: &PluginName) -> Option<&RolloutRecord> {
        self.registry.rollout_that_counts(plugin)
    }

    /// How a plugin's calls are shared out, by its rollout or its split.
    #[must_use]
    pub fn split(&self, plugin: &PluginName) -> Option<Split> {
        self.registry.split(plugin)
    }

    /// The sequence of the record by which it was decided what a key stands for; 0: by none.
    #[must_use]
    pub fn decided(&self, key: &Key) -> u64 {
        self.registry.decided(key)
    }
}
