//! Judging anew whom a change can affect: who is active, who lacks what, who closes a ring, where
//! every instance stands.

use std::collections::{BTreeMap, BTreeSet};

use super::{Changes, Registry, Slot, Summary, Work};
use crate::engine::derive::derive;
use mesh_core::id::{InstanceId, PluginName};
use mesh_core::state::{InstanceState, Phase};
use mesh_core::table::SpecId;
use mesh_graph::needs;

impl Registry {
    pub(super) fn judge(&mut self, mut work: Work, changes: &mut Changes) {
        self.touch_those_who_wait(&mut work);
        let (mut changed, mut passed) = (Vec::new(), Vec::new());
        for spec in &work.specs {
            let summary = self.summarise(spec);
            let Some(state) = self.specs.get_mut(spec) else {
                continue;
            };
            let before = std::mem::replace(&mut state.summary, summary);
            if before != summary || summary.is_none() {
                changed.push(spec.clone());
            }
            if before.is_none() || summary.is_none() {
                passed.push(spec);
            }
        }
        // All there are, as when all is read from the start, have no others.
        let all = changed.len() == self.specs.len();
        let mut affected = if all {
            changed.into_iter().collect()
        } else {
            self.graph.with_dependents(changed)
        };
        // Who asks for another version of what came or went is told another reason.
        let mut told = BTreeSet::new();
        if !all {
            told.extend(passed.into_iter().flat_map(|spec| self.graph.askers(spec)));
            told.retain(|spec| !affected.contains(spec));
        }
        for spec in &work.specs {
            if self
                .specs
                .get(spec)
                .is_some_and(|state| state.instances.is_empty())
            {
                self.specs.remove(spec);
                self.graph.remove(spec);
                affected.remove(spec);
                told.remove(spec);
                changes.specs.insert(spec.clone());
            }
        }
        told.extend(self.activate(&affected));
        self.explain(&told);
        affected.append(&mut told);
        for spec in &affected {
            let state = self.specs.get(spec);
            work.instances
                .extend(state.into_iter().flat_map(|state| &state.instances));
        }
        for id in work.instances {
            self.place(id, changes);
        }
    }

    /// Plugins that are to be unloaded wait for those who need them: touch all of them when one of
    /// either comes, goes or is told to stop.
    fn touch_those_who_wait(&self, work: &mut Work) {
        if self.unloaded.is_empty() {
            return;
        }
        let is_unloaded = |plugin: &&PluginName| self.unloaded.contains(*plugin);
        let mut waiting = BTreeSet::new();
        for state in work.specs.iter().filter_map(|spec| self.specs.get(spec)) {
            let needed = needs(&state.manifest).flat_map(|need| self.graph.providers(need));
            let names = needed.map(|(_, manifest)| &manifest.name);
            waiting.extend(names.chain([&state.manifest.name]).filter(is_unloaded));
        }
        for plugin in waiting {
            self.touch_plugin(plugin, work);
        }
    }

    fn summarise(&self, spec: &SpecId) -> Option<Summary> {
        let state = self.specs.get(spec)?;
        let slots = || {
            state
                .instances
                .iter()
                .filter_map(|id| self.instances.get(id))
        };
        let held = self.hold_of(&state.manifest).is_held();
        let is_ready = |slot: &Slot| slot.stored.record.facts.phase == Phase::Ready;
        Some(Summary {
            first: slots().map(Slot::admitted).min()?,
            ready: !held && slots().any(is_ready),
        })
    }

    /// Says of each whether it is active and whether its needs are met; gives those whose needs are not.
    fn activate(&mut self, affected: &BTreeSet<SpecId>) -> Vec<SpecId> {
        #[cfg(test)]
        {
            self.judged += affected.len();
        }
        let may_run = |spec: &SpecId| {
            let summary = self.specs.get(spec).and_then(|state| state.summary);
            summary.is_some_and(|summary| summary.ready)
        };
        let standing = self
            .graph
            .activate(affected, may_run, |spec| self.is_active(spec));
        let mut waiting = Vec::new();
        for one in standing {
            let Some(state) = self.specs.get_mut(one.spec) else {
                continue;
            };
            state.active = one.active;
            state.met = one.met;
            if one.met {
                state.unmet.clear();
                state.ring = None;
            } else {
                waiting.push(one.spec.clone());
            }
        }
        waiting
    }

    pub fn is_active(&self, spec: &SpecId) -> bool {
        self.specs.get(spec).is_some_and(|state| state.active)
    }

    /// Says of each which of its needs are not met, and whether it is the latest of those who wait for
    /// each other.
    fn explain(&mut self, told: &BTreeSet<SpecId>) {
        let runs = |spec: &SpecId| self.is_active(spec);
        let mut waiting = BTreeSet::new();
        let mut said = Vec::new();
        for spec in told {
            let Some(state) = self.specs.get(spec) else {
                continue;
            };
            let unmet = self.graph.unmet(&state.manifest, &runs);
            if !unmet.is_empty() {
                waiting.insert(spec.clone());
            }
            let lines: Vec<String> = unmet.iter().map(ToString::to_string).collect();
            said.push((spec, lines.join("; ")));
        }
        let first = |spec: &SpecId| self.specs.get(spec).and_then(|state| state.summary);
        let stuck = self.graph.stuck(waiting.iter().cloned(), &runs);
        let mut rings = BTreeMap::new();
        for spec in &waiting {
            let Some(ring) = stuck.ring_of(spec) else {
                continue;
            };
            let order = |spec: &SpecId| (first(spec).map(|summary| summary.first), spec.clone());
            if ring.members.iter().max_by_key(|member| order(member)) == Some(spec) {
                rings.insert(spec.clone(), ring.path.join(" -> "));
            }
        }
        for (spec, unmet) in said {
            if let Some(state) = self.specs.get_mut(spec) {
                state.met = unmet.is_empty();
                state.unmet = unmet;
                state.ring = rings.remove(spec);
            }
        }
    }

    /// Derives where one instance stands.
    fn place(&mut self, id: InstanceId, changes: &mut Changes) {
        #[cfg(test)]
        {
            self.judged += 1;
        }
        let Some(slot) = self.instances.get(&id) else {
            return;
        };
        let state = self.specs.get(&slot.spec);
        let state = state.filter(|state| state.instances.contains(&id));
        let derived = state.map(|state| derive(id, slot, state, &self.hold_of(&state.manifest)));
        let before = slot.derived.as_ref().map(|derived| &derived.route);
        let after = derived.as_ref().map(|derived| &derived.route);
        if before != after {
            changes.instances.insert(id);
        }
        let (before, after) = (
            before.map(|route| route.state),
            after.map(|route| route.state),
        );
        if let Some(slot) = self.instances.get_mut(&id) {
            slot.derived = derived;
        }
        if before != after {
            if let Some(before) = before {
                self.count(before, after);
            } else if let Some(after) = after {
                *self.states.entry(after).or_default() += 1;
            }
        }
    }

    pub(super) fn count(&mut self, before: InstanceState, after: Option<InstanceState>) {
        if let Some(count) = self.states.get_mut(&before) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.states.remove(&before);
            }
        }
        if let Some(after) = after {
            *self.states.entry(after).or_default() += 1;
        }
    }
}
