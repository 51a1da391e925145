//! What a change would do, found by doing it to a copy of what is known.
//!
//! The copy is judged by the very code that judges the real thing, so the answer is what would happen
//! and no estimate of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use semver::Version;

use super::Engine;
use super::registry::{Changes, Registry};
use crate::record::{InstanceRecord, Key, Record, Stand, Wish, WishRecord};
use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::{InstanceId, NodeId, PluginName};
use mesh_core::manifest::Manifest;
use mesh_core::revision::Timestamp;
use mesh_core::state::Phase;
use mesh_core::table::SpecId;
use mesh_graph::{label, needs};

/// What might be done, or happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Supposition {
    /// All versions of a plugin are unloaded.
    Unload(PluginName),
    /// A plugin takes no calls; its processes go on.
    Disable(PluginName),
    /// A plugin runs in this version and no other.
    Upgrade(PluginName, Version),
    /// A node is lost, with all that runs there.
    Lose(NodeId),
}

/// One whom it affects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affected {
    /// `name@version`.
    pub label: String,
    /// How, each as a line for a person.
    pub why: Vec<String>,
}

/// What would follow. Everybody who takes calls now is in one of the lists, by `name@version`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Impact {
    /// Those that would go themselves, or be held.
    pub gone: Vec<String>,
    /// Those whose needs would be open: Degraded at once, Blocked after the grace period.
    pub blocked: Vec<Affected>,
    /// Those that would go on with less: without an optional dependency, or with fewer instances.
    pub degraded: Vec<Affected>,
    /// Those for whom nothing changes.
    pub unaffected: Vec<String>,
    /// What would stop, in this order: for an unload, what `cascade` unloads.
    pub stops: Vec<String>,
    /// What has to be started, in this order: the new version, or elsewhere what a node took along.
    pub starts: Vec<String>,
    /// The version is not here: it is taken to need and provide what this one does.
    pub modelled_on: Option<String>,
}

/// How a version of a plugin is doing.
#[derive(Default)]
struct Doing {
    /// Instances that take calls and may go on to.
    well: usize,
    /// Instances that take calls, but for the grace period only.
    losing: usize,
}

impl Engine {
    /// What would follow from a supposition.
    ///
    /// # Errors
    /// `NotFound`: there is no such plugin or node.
    pub fn suppose(&self, supposition: &Supposition) -> Result<Impact, MeshError> {
        let mut after = self.registry.clone();
        let mut impact = Impact::default();
        match supposition {
            Supposition::Unload(plugin) | Supposition::Disable(plugin) => {
                self.must_be_here(plugin)?;
                after.hold_back(plugin);
            }
            Supposition::Upgrade(plugin, version) => {
                self.must_be_here(plugin)?;
                impact.modelled_on = after.upgrade(plugin, version);
            }
            Supposition::Lose(node) => {
                if !self.registry.nodes.contains_key(node) {
                    let text = format!("there is no node {node}; list those that are there");
                    return Err(MeshError::new(ErrorCode::NotFound, text));
                }
                after.suppose_record(Key::Node(node.clone()), None);
            }
        }
        impact.compare(&self.registry, &after);
        let here = self.registry.graph.stop_order();
        match supposition {
            Supposition::Disable(_) => {}
            Supposition::Unload(plugin) => {
                let plugins = self.registry.cascade(plugin);
                let stops = |label: &&String| plugins.iter().any(|it| is_version_of(label, it));
                impact.stops = here.iter().filter(stops).cloned().collect();
            }
            Supposition::Upgrade(plugin, version) => {
                let new = format!("{plugin}@{version}");
                let others = |label: &&String| is_version_of(label, plugin) && **label != new;
                impact.stops = here.iter().filter(others).cloned().collect();
                if !here.contains(&new) {
                    impact.starts = vec![new];
                }
            }
            Supposition::Lose(node) => {
                let there = self.registry.labels_on(node);
                impact.stops = here.into_iter().filter(|it| there.contains(it)).collect();
                impact.starts = impact.stops.iter().rev().cloned().collect();
            }
        }
        Ok(impact)
    }

    fn must_be_here(&self, plugin: &PluginName) -> Result<(), MeshError> {
        if self.registry.graph.specs_of(plugin).next().is_some() {
            return Ok(());
        }
        let text = format!("there is no plugin {plugin} that runs; list those that are there");
        Err(MeshError::new(ErrorCode::NotFound, text))
    }
}

fn is_version_of(label: &str, plugin: &PluginName) -> bool {
    let name = label.split_once('@').map(|(name, _)| name);
    name == Some(plugin.as_str())
}

impl Registry {
    fn suppose_record(&mut self, key: Key, record: Option<Record>) {
        let at = (self.applied + 1, Timestamp::default());
        self.apply(&key, record, at, &mut Changes::default());
    }

    fn hold_back(&mut self, plugin: &PluginName) {
        let wish = Record::Wish(WishRecord {
            wish: Wish::Disabled,
            by: String::new(),
            reason: String::new(),
            since: Timestamp::default(),
            manifests: Vec::new(),
        });
        self.suppose_record(Key::Wish(plugin.clone()), Some(wish));
    }

    /// A plugin runs in one version only. One that is not here is modelled on the newest that is, which
    /// is returned, and stands in the place of its first instance.
    fn upgrade(&mut self, plugin: &PluginName, version: &Version) -> Option<String> {
        let here: Vec<Arc<Manifest>> = self
            .graph
            .specs_of(plugin)
            .filter_map(|spec| self.graph.manifest(spec).cloned())
            .collect();
        let newest = here.iter().max_by(|a, b| a.version.cmp(&b.version))?;
        let is_new = |spec: &SpecId| {
            let manifest = self.graph.manifest(spec);
            manifest.is_some_and(|manifest| manifest.version == *version)
        };
        let old: Vec<InstanceId> = self
            .graph
            .specs_of(plugin)
            .filter(|spec| !is_new(spec))
            .filter_map(|spec| self.specs.get(spec))
            .flat_map(|state| state.instances.iter().copied())
            .collect();
        // It keeps none of its versions back any more.
        self.suppose_record(Key::Rollout(plugin.clone()), None);
        let mut modelled_on = None;
        let mut gone = old.as_slice();
        if !here.iter().any(|manifest| manifest.version == *version)
            && let Some((first, rest)) = old.split_first()
            && let Some(slot) = self.instances.get(first)
        {
            let mut manifest = (**newest).clone();
            manifest.version = version.clone();
            let mut facts = slot.stored.record.facts.clone();
            facts.phase = Phase::Ready;
            let record = InstanceRecord {
                facts,
                manifest: Arc::new(manifest),
                admitted: None,
                standing: None,
            };
            modelled_on = Some(label(newest));
            gone = rest;
            self.suppose_record(Key::Instance(*first), Some(Record::Instance(record)));
        }
        for id in gone {
            self.suppose_record(Key::Instance(*id), None);
        }
        modelled_on
    }

    fn labels_on(&self, node: &NodeId) -> BTreeSet<String> {
        let here = self.by_node.get(node).into_iter().flatten();
        let slots = here.filter_map(|id| self.instances.get(id));
        slots
            .filter(|slot| slot.derived.is_some())
            .map(|slot| label(&slot.stored.record.manifest))
            .collect()
    }

    fn doing(&self, spec: &SpecId) -> Doing {
        let mut doing = Doing::default();
        let state = self.specs.get(spec);
        for id in state.into_iter().flat_map(|state| &state.instances) {
            let slot = self.instances.get(id);
            match slot.and_then(|slot| slot.derived.as_ref()?.stand) {
                Some(Stand::Active | Stand::Unhealthy) => doing.well += 1,
                Some(Stand::Losing) => doing.losing += 1,
                Some(Stand::Blocked | Stand::Held) | None => {}
            }
        }
        doing
    }

    /// The optional needs that somebody fulfils.
    fn met_options(&self, manifest: &Manifest) -> BTreeSet<String> {
        let optional = needs(manifest).filter(|need| need.need.optional);
        let is_met = optional.filter(|need| {
            let mut providers = self.graph.providers(*need);
            providers.any(|(spec, _)| self.is_active(spec))
        });
        is_met.map(|need| need.to_string()).collect()
    }
}

impl Impact {
    fn compare(&mut self, before: &Registry, after: &Registry) {
        // Two descriptions of one version are one line.
        let mut blocked: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut degraded = blocked.clone();
        let (mut gone, mut unaffected) = (BTreeSet::new(), BTreeSet::new());
        for (spec, state) in &before.specs {
            let (was, is) = (before.doing(spec), after.doing(spec));
            let (name, count) = (label(&state.manifest), was.well + was.losing);
            if count == 0 {
                continue;
            }
            let Some(later) = after.specs.get(spec) else {
                gone.insert(name);
                continue;
            };
            if is.well == 0 && state.met && !later.met {
                let lines = blocked.entry(name).or_default();
                lines.insert(later.unmet.clone());
                continue;
            }
            if is.well + is.losing == 0 {
                gone.insert(name);
                continue;
            }
            let options = after.met_options(&state.manifest);
            let lost = before.met_options(&state.manifest);
            let mut why: BTreeSet<String> = lost
                .difference(&options)
                .map(|need| format!("it would do without {need}"))
                .collect();
            if is.well < was.well {
                why.insert(format!(
                    "{} of {} instances would be left",
                    is.well, was.well
                ));
            }
            if why.is_empty() {
                unaffected.insert(name);
            } else {
                degraded.entry(name).or_default().append(&mut why);
            }
        }
        let list = |found: BTreeMap<String, BTreeSet<String>>| {
            let affected = found.into_iter().map(|(label, why)| Affected {
                label,
                why: why.into_iter().collect(),
            });
            affected.collect()
        };
        self.gone = gone.into_iter().collect();
        self.blocked = list(blocked);
        self.degraded = list(degraded);
        self.unaffected = unaffected.into_iter().collect();
    }
}
