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
        "CONNECTED",
        "SINCE",
        "INSTANCES",
        "ZONE",
        "SOFTWARE",
        "TABLE",
    ];
    let rows = nodes.iter().map(|view| {
        let node = view.node.clone().unwrap_or_default();
        let connected = if view.connected { "yes" } else { "no" };
        [
            node.node,
            connected.to_owned(),
            output::ago(view.since_ms),
            view.instances.to_string(),
            node.zone,
            node.software,
            acknowledged(view),
        ]
    });
    output::line(output::table(head, rows))
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
        "since_ms": view.since_ms,
        "instances": view.instances,
        "acknowledged": acknowledged(view),
    })
}
