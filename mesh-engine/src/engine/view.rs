//! Views: what operators are shown, read from what the store holds and the sessions here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Engine;
use crate::record::Wish;
use mesh_core::capability::{Capability, CapabilityKind};
use mesh_core::id::PluginName;
use mesh_core::manifest::Manifest;
use mesh_core::state::InstanceState;
use mesh_core::table::{InstanceRoute, SpecId, TableUpdate};
use mesh_graph::{Edge, label};

/// One version of a plugin.
#[derive(Debug, Clone)]
pub struct PluginView {
    /// What it says of itself.
    pub manifest: Arc<Manifest>,
    /// Its instances, by id.
    pub instances: Vec<InstanceRoute>,
    /// Operators have disabled it.
    pub disabled: bool,
    /// Operators have unloaded it.
    pub unloaded: bool,
}

/// Which plugins to show; `None`: all.
#[derive(Debug, Clone, Default)]
pub struct PluginFilter {
    /// Those that provide something of this kind.
    pub kind: Option<CapabilityKind>,
    /// Those that provide this.
    pub capability: Option<Capability>,
    /// Those with an instance in this state.
    pub state: Option<InstanceState>,
}

/// One version of a plugin in the graph.
#[derive(Debug, Clone)]
pub struct GraphNode {
    /// `name@version`.
    pub id: String,
    /// Its best instance's state.
    pub state: InstanceState,
    /// Why, for a person.
    pub reason: String,
    /// What it needs and does not find, each as a line for a person.
    pub unmet: Vec<String>,
}

/// The graph of dependencies.
#[derive(Debug, Clone)]
pub struct GraphView {
    /// The nodes, by id.
    pub nodes: Vec<GraphNode>,
    /// The edges; `from` and `to` as `name@version`.
    pub edges: Vec<(String, String, Edge)>,
    /// An order in which all can be started.
    pub start_order: Vec<String>,
}

/// Figures for metrics.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Agents' sessions that are open here.
    pub sessions: usize,
    /// Instances by state.
    pub instances: BTreeMap<InstanceState, usize>,
}

impl Engine {
    fn routes(&self, spec: &SpecId) -> impl Iterator<Item = &InstanceRoute> {
        let state = self.registry.specs.get(spec);
        let ids = state.into_iter().flat_map(|state| &state.instances);
        let slots = ids.filter_map(|id| self.registry.instances.get(id));
        slots.filter_map(|slot| slot.derived.as_ref().map(|derived| &derived.route))
    }

    fn views_of(&self, plugin: &PluginName) -> Vec<PluginView> {
        let wish = self.registry.wish(plugin);
        let (disabled, unloaded) = (wish == Some(Wish::Disabled), wish == Some(Wish::Unloaded));
        let view = |manifest: &Arc<Manifest>, instances| PluginView {
            manifest: Arc::clone(manifest),
            instances,
            disabled,
            unloaded,
        };
        let specs = self.registry.graph.specs_of(plugin);
        let mut views: Vec<PluginView> = specs
            .filter_map(|spec| {
                let manifest = self.registry.graph.manifest(spec)?;
                Some(view(manifest, self.routes(spec).cloned().collect()))
            })
            .collect();
        let stored = self.registry.wishes.get(plugin);
        for kept in stored
            .into_iter()
            .flat_map(|stored| &stored.record.manifests)
        {
            if views
                .iter()
                .all(|shown| shown.manifest.version != kept.version)
            {
                views.push(view(kept, Vec::new()));
            }
        }
        views.sort_by(|a, b| b.manifest.version.cmp(&a.manifest.version));
        views
    }

    /// The plugins that the filter lets through, by name, newest version first.
    #[must_use]
    pub fn plugins(&self, filter: &PluginFilter) -> Vec<PluginView> {
        let here = self
            .registry
            .graph
            .nodes()
            .map(|(_, manifest)| &manifest.name);
        let names: BTreeSet<&PluginName> = here.chain(self.registry.wishes.keys()).collect();
        let views = names.into_iter().flat_map(|name| self.views_of(name));
        views.filter(|view| filter.lets_through(view)).collect()
    }

    /// All versions of one plugin, newest first; empty when it is not known.
    #[must_use]
    pub fn plugin(&self, plugin: &PluginName) -> Vec<PluginView> {
        self.views_of(plugin)
    }

    /// The graph; of one plugin only what it needs and what needs it.
    #[must_use]
    pub fn graph(&self, plugin: Option<&PluginName>) -> GraphView {
        let graph = &self.registry.graph;
        let shown: BTreeSet<SpecId> = match plugin {
            None => graph.nodes().map(|(spec, _)| spec.clone()).collect(),
            Some(plugin) => {
                let own: Vec<SpecId> = graph.specs_of(plugin).cloned().collect();
                let mut shown = graph.with_dependencies(own.iter().cloned());
                shown.extend(graph.with_users(own));
                shown
            }
        };
        let name = |spec: &SpecId| graph.manifest(spec).map(|manifest| label(manifest));
        let mut nodes: BTreeMap<String, GraphNode> = BTreeMap::new();
        for spec in &shown {
            let Some(state) = self.registry.specs.get(spec) else {
                continue;
            };
            let best = self.routes(spec).min_by_key(|route| route.state.rank());
            let unmet = graph.unmet(&state.manifest, &|spec| self.registry.is_active(spec));
            let node = GraphNode {
                id: label(&state.manifest),
                state: best.map_or(InstanceState::Unloaded, |route| route.state),
                reason: best.map_or(String::new(), |route| route.reason.clone()),
                unmet: unmet.iter().map(ToString::to_string).collect(),
            };
            // Two descriptions of one version are shown as the better one.
            let shown = nodes.entry(node.id.clone()).or_insert_with(|| node.clone());
            if shown.state.rank() > node.state.rank() {
                *shown = node;
            }
        }
        let inside = |edge: &Edge| shown.contains(&edge.from) && shown.contains(&edge.to);
        let edges = graph.edges().filter(inside);
        let edges = edges.filter_map(|edge| Some((name(&edge.from)?, name(&edge.to)?, edge)));
        let mut order = graph.start_order();
        order.retain(|label| nodes.contains_key(label));
        GraphView {
            edges: edges.collect(),
            start_order: order,
            nodes: nodes.into_values().collect(),
        }
    }

    /// Why the published table is older than what the store holds, if it is.
    #[must_use]
    pub fn held_back(&self) -> Option<String> {
        let stored = self.latest();
        let published = self.revision();
        if !self.is_current() || stored == published {
            return None;
        }
        Some(if stored < published {
            format!(
                "the registry's store is at {stored}, older than the published table {published}: it \
                 was replaced by an older copy, and a new epoch is begun"
            )
        } else {
            "the registry's store is a new one or an older copy: the table waits until its nodes are \
             recorded again"
                .to_owned()
        })
    }

    /// Figures for metrics.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            sessions: self.sessions.count(),
            instances: self.registry.states.clone(),
        }
    }

    /// The whole table as it follows from the store, whether it is published or not.
    #[must_use]
    pub fn snapshot(&self) -> TableUpdate {
        let slots = self.registry.instances.values();
        let specs = self.registry.specs.iter();
        TableUpdate {
            from: None,
            to: self.latest(),
            specs: specs
                .map(|(spec, it)| (spec.clone(), Arc::clone(&it.manifest)))
                .collect(),
            instances: slots
                .filter_map(|slot| Some(slot.derived.as_ref()?.route.clone()))
                .collect(),
            nodes: self
                .registry
                .nodes
                .values()
                .map(|it| it.record.route.clone())
                .collect(),
            splits: self.registry.all_splits().collect(),
            ..TableUpdate::default()
        }
    }
}

impl PluginFilter {
    fn lets_through(&self, view: &PluginView) -> bool {
        let mut offers = view
            .manifest
            .capabilities
            .iter()
            .map(|entry| &entry.capability);
        let kind = |kind| offers.clone().any(|offer| offer.kind == kind);
        let state = |state| match state {
            InstanceState::Unloaded if view.instances.is_empty() => view.unloaded,
            state => view.instances.iter().any(|route| route.state == state),
        };
        self.kind.is_none_or(kind)
            && self.state.is_none_or(state)
            && self
                .capability
                .as_ref()
                .is_none_or(|wanted| offers.any(|offer| offer == wanted))
    }
}
