//! What operators are shown, on the wire.

use mesh_core::revision::Revision;
use mesh_core::split::Split;
use mesh_engine::engine::{
    Affected, CoordinatorView, Engine, GraphNode, GraphView, Impact, NodeStanding, NodeView,
    Outcome, PluginView, SplitShare, SplitView,
};
use mesh_engine::record::{Key, Record};
use mesh_proto::{admin, control};

use super::rollouts;

pub(super) fn plugin(own: PluginView) -> admin::PluginView {
    admin::PluginView {
        manifest: Some((&*own.manifest).into()),
        instances: own.instances.into_iter().map(Into::into).collect(),
        disabled: own.disabled,
        unloaded: own.unloaded,
    }
}

pub(super) fn node(own: NodeView) -> admin::NodeView {
    admin::NodeView {
        node: Some(own.route.into()),
        connected: own.connected,
        since_ms: own.since.0,
        instances: u32::try_from(own.instances).unwrap_or(u32::MAX),
        acknowledged: own.acknowledged.map(Into::into),
        standing: standing(own.standing).into(),
        coordinator: own
            .coordinator
            .map_or_else(String::new, |it| it.to_string()),
        note: own.note,
    }
}

fn standing(own: NodeStanding) -> admin::NodeStanding {
    match own {
        NodeStanding::Connected => admin::NodeStanding::Connected,
        NodeStanding::Left => admin::NodeStanding::Left,
        NodeStanding::Broken => admin::NodeStanding::Broken,
        NodeStanding::Silent => admin::NodeStanding::Silent,
        NodeStanding::Between => admin::NodeStanding::Between,
        NodeStanding::Unknown => admin::NodeStanding::Unknown,
    }
}

pub(super) fn coordinator(own: CoordinatorView) -> admin::CoordinatorView {
    let (since, term) = own.office.unwrap_or_default();
    admin::CoordinatorView {
        name: own.name.to_string(),
        here: own.here,
        started_ms: own.started.unwrap_or_default().0,
        heard_ms: own.heard.unwrap_or_default().0,
        silent: own.silent,
        nodes: u32::try_from(own.nodes).unwrap_or(u32::MAX),
        office: own.office.is_some(),
        office_since_ms: since.0,
        office_term: term,
    }
}

pub(super) fn graph(own: GraphView) -> admin::GetGraphResponse {
    let node = |node: GraphNode| admin::GraphNode {
        id: node.id,
        state: control::InstanceState::from(node.state).into(),
        reason: node.reason,
        unmet: node.unmet,
    };
    let edge = |(from, to, edge): (String, String, mesh_graph::Edge)| admin::GraphEdge {
        from,
        to,
        requirement: edge.requirement,
        optional: edge.optional,
    };
    admin::GetGraphResponse {
        nodes: own.nodes.into_iter().map(node).collect(),
        edges: own.edges.into_iter().map(edge).collect(),
        start_order: own.start_order,
    }
}

pub(super) fn impact(own: Impact) -> admin::GetImpactResponse {
    let affected = |own: Affected| admin::Affected {
        id: own.label,
        why: own.why,
    };
    admin::GetImpactResponse {
        gone: own.gone,
        blocked: own.blocked.into_iter().map(affected).collect(),
        degraded: own.degraded.into_iter().map(affected).collect(),
        unaffected: own.unaffected,
        stops: own.stops,
        starts: own.starts,
        modelled_on: own.modelled_on.unwrap_or_default(),
        revision: None,
    }
}

pub(super) fn outcome(own: Outcome) -> admin::PluginChangeResponse {
    admin::PluginChangeResponse {
        changed: own.changed.iter().map(ToString::to_string).collect(),
        affected: own.affected.iter().map(ToString::to_string).collect(),
        revision: Some(own.revision.into()),
        notes: own.notes,
    }
}

pub(super) fn split(own: SplitView) -> admin::SplitView {
    let share = |own: SplitShare| admin::SplitShare {
        version: own.version.to_string(),
        weight: own.weight,
        active: u32::try_from(own.active).unwrap_or(u32::MAX),
    };
    admin::SplitView {
        plugin: own.plugin.to_string(),
        shares: own.shares.into_iter().map(share).collect(),
        groups: own.groups.into_iter().map(Into::into).collect(),
        by: own.by,
        reason: own.reason,
        since_ms: own.since.0,
    }
}

/// What operators want by a record; `None`: it says nothing of that.
pub(super) fn wish(engine: &Engine, key: &Key) -> Option<admin::WishView> {
    let plugin = key.wished()?;
    let (record, _) = engine.record(key)?;
    let counts = engine.rollout_that_counts(plugin);
    let mut rollout = None;
    let (state, split, by, reason, since) = match record {
        Record::Wish(own) => (own.wish.as_str(), None, own.by, own.reason, own.since),
        Record::Split(own) if counts.is_none() => {
            let split = Some(own.split.into());
            ("", split, own.by, own.reason, own.since)
        }
        Record::Rollout(own) if counts == Some(&*own) => {
            let split = Split {
                shares: own.settled(),
                ..engine.split(plugin)?
            };
            let shown = (own.by.clone(), own.why.clone(), own.since);
            rollout = Some(rollouts::view(*own));
            ("", Some(split.into()), shown.0, shown.1, shown.2)
        }
        _ => return None,
    };
    let revision = Revision {
        sequence: engine.decided(key),
        ..engine.latest()
    };
    Some(admin::WishView {
        plugin: plugin.to_string(),
        state: state.to_owned(),
        split,
        by,
        reason,
        since_ms: since.0,
        revision: Some(revision.into()),
        rollout,
    })
}
