//! Impact: who would lose what it needs if some plugins took no calls any more.

use std::collections::{BTreeMap, BTreeSet};

use super::registry::{Registry, SpecState};
use crate::record::Wish;
use mesh_core::id::PluginName;
use mesh_core::state::Phase;
use mesh_core::table::SpecId;
use mesh_graph::{label, required};

/// One that would lose what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loser {
    pub plugin: PluginName,
    /// `name@version`.
    pub label: String,
    /// The needs that would be open, as written.
    pub needs: Vec<String>,
}

impl Registry {
    /// Those whose needs are met now and would not be without `plugins`, directly or through others;
    /// by `name@version`. Who is being held or ended anyway does not count, nor do `plugins`
    /// themselves.
    pub fn losers_without(&self, plugins: &BTreeSet<PluginName>) -> Vec<Loser> {
        let gone = plugins
            .iter()
            .flat_map(|plugin| self.graph.specs_of(plugin))
            .cloned();
        let affected = self.graph.with_dependents(gone);
        let states: BTreeMap<&SpecId, &SpecState> = affected
            .iter()
            .filter_map(|spec| self.specs.get_key_value(spec))
            .collect();
        let stays = |state: &SpecState| !plugins.contains(&state.manifest.name);
        let may_run = |spec: &SpecId| {
            states
                .get(spec)
                .is_some_and(|state| state.active && stays(state))
        };
        // The least set again, of those who stay.
        let standing = self
            .graph
            .activate(&affected, may_run, |spec| self.is_active(spec));
        let active: BTreeSet<&SpecId> = standing
            .into_iter()
            .filter(|one| one.active)
            .map(|one| one.spec)
            .collect();
        let runs = |spec: &SpecId| match states.contains_key(spec) {
            true => active.contains(spec),
            false => self.is_active(spec),
        };
        let mut losers = Vec::new();
        for state in states.values().filter(|state| state.met && stays(state)) {
            let open = required(&state.manifest)
                .filter(|need| !self.graph.providers(*need).any(|(spec, _)| runs(spec)));
            let needs: Vec<String> = open.map(|need| need.to_string()).collect();
            if !needs.is_empty() && self.is_wanted(state) {
                losers.push(Loser {
                    plugin: state.manifest.name.clone(),
                    label: label(&state.manifest),
                    needs,
                });
            }
        }
        losers
    }

    /// Whether an instance of it takes calls, or will.
    pub(super) fn is_wanted(&self, state: &SpecState) -> bool {
        let wish = self.wish(&state.manifest.name);
        let held = matches!(wish, Some(Wish::Disabled | Wish::Unloaded))
            || self.hold_of(&state.manifest).is_held();
        let wanted = |phase: Phase| !matches!(phase, Phase::Draining | Phase::Failed);
        let mut slots = state
            .instances
            .iter()
            .filter_map(|id| self.instances.get(id));
        !held && slots.any(|slot| wanted(slot.stored.record.facts.phase))
    }

    /// `plugins` and all whom unloading them would block, so that nobody is left who loses anything;
    /// in the order in which they shall stop.
    pub fn cascade(&self, plugin: &PluginName) -> Vec<PluginName> {
        let mut all = BTreeSet::from([plugin.clone()]);
        loop {
            let before = all.len();
            let losers = self.losers_without(&all);
            all.extend(losers.into_iter().map(|loser| loser.plugin));
            if all.len() == before {
                break;
            }
        }
        let order = self.graph.start_order();
        let place = |plugin: &PluginName| {
            let is_its = |label: &&String| {
                label
                    .split_once('@')
                    .is_some_and(|(it, _)| it == plugin.as_str())
            };
            order
                .iter()
                .rev()
                .take_while(|label| !is_its(label))
                .count()
        };
        let mut stop: Vec<PluginName> = all.into_iter().collect();
        stop.sort_by_cached_key(|plugin| place(plugin));
        stop
    }
}
