//! `plugmesh nodes`: the agent-nodes.

use mesh_proto::admin::{ListNodesRequest, NodeView};
use serde_json::{Value, json};

use crate::admin::Admin;
use crate::args::CoordinatorFlags;
use crate::exit::Failure;
use crate::output::{self, Output};

/// Lists the nodes.
///
/// # Errors
/// What the coordinator says.
pub async fn run(ask: CoordinatorFlags, output: Output) -> Result<(), Failure> {
    let mut admin = Admin::connect(&ask).await?;
    let nodes = list(&mut admin).await?;
    if output == Output::Json {
        let nodes: Vec<Value> = nodes.iter().map(as_json).collect();
        return output::json(&nodes);
    }
    if nodes.is_empty() {
        output::note("no nodes; start one with `plugmesh agent --node NAME`");
        return Ok(());
    }
    let head = [
        "NODE",
        "STANDING",
        "SINCE",
        "COORDINATOR",
        "INSTANCES",
        "ZONE",
        "SOFTWARE",
        "TABLE",
    ];
    let rows = nodes.iter().map(|view| {
        let node = view.node.clone().unwrap_or_default();
        [
            node.node,
            standing(view),
            output::ago(view.since_ms),
            view.coordinator.clone(),
            view.instances.to_string(),
            node.zone,
            node.software,
            acknowledged(view),
        ]
    });
    output::line(output::table(head, rows))?;
    for view in nodes.iter().filter(|view| !view.note.is_empty()) {
        let name = view.node.as_ref().map_or("", |node| &node.node);
        output::line(format!("{name}: {}", view.note))?;
    }
    Ok(())
}

/// How the node is in touch with the coordinators, in one word.
fn standing(view: &NodeView) -> String {
    let name = view.standing().as_str_name();
    let word = name.strip_prefix("NODE_STANDING_").unwrap_or(name);
    word.to_ascii_lowercase()
}

/// What the coordinator lists.
///
/// # Errors
/// What the coordinator says.
pub async fn list(admin: &mut Admin) -> Result<Vec<NodeView>, Failure> {
    let request = Admin::request(ListNodesRequest {});
    let answer = admin.client().list_nodes(request).await;
    let answer = answer.map_err(|status| admin.failure(&status))?;
    Ok(answer.into_inner().nodes)
}

fn acknowledged(view: &NodeView) -> String {
    let revision = view.acknowledged.as_ref();
    revision.map_or_else(String::new, |revision| {
        format!("{}.{}", revision.epoch, revision.sequence)
    })
}

fn as_json(view: &NodeView) -> Value {
    let node = view.node.clone().unwrap_or_default();
    json!({
        "node": node.node,
        "generation": node.generation,
        "zone": node.zone,
        "labels": node.labels,
        "software": node.software,
        "connected": view.connected,
        "standing": standing(view),
        "coordinator": view.coordinator,
        "note": view.note,
        "since_ms": view.since_ms,
        "instances": view.instances,
        "acknowledged": acknowledged(view),
    })
}
