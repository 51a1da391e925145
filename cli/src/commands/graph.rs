//! `plugmesh graph`: what needs what, as a tree, for Graphviz or as JSON.

use std::collections::BTreeSet;
use std::fmt::Write;

use mesh_core::state::InstanceState;
use mesh_proto::admin::{GetGraphRequest, GetGraphResponse, GraphEdge, GraphNode};
use mesh_proto::convert::instance_state;
use serde_json::{Value, json};
use tonic::Code;

use crate::admin::Admin;
use crate::args::GraphArgs;
use crate::commands::plugin::unknown;
use crate::exit::Failure;
use crate::output::{self, Output};

/// Shows the graph.
///
/// # Errors
/// What the coordinator says.
pub async fn run(args: GraphArgs, output: Output) -> Result<(), Failure> {
    let mut admin = Admin::connect(&args.ask).await?;
    let request = Admin::request(GetGraphRequest {
        plugin: args.plugin.clone(),
    });
    let graph = match admin.client().get_graph(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) if status.code() == Code::NotFound => {
            return Err(unknown(&mut admin, &args.plugin).await);
        }
        Err(status) => return Err(admin.failure(&status)),
    };
    match output {
        Output::Json => output::json(&as_json(&graph)),
        Output::Dot => output::line(dot(&graph)),
        Output::Table if graph.nodes.is_empty() => {
            output::note("no plugins; make one with `plugmesh new NAME`");
            Ok(())
        }
        Output::Table => output::line(tree(&graph)),
    }
}

fn state_of(node: &GraphNode) -> String {
    instance_state(node.state).map_or_else(|_| "absent".to_owned(), |state| state.to_string())
}

fn as_json(graph: &GetGraphResponse) -> Value {
    let nodes: Vec<Value> = graph
        .nodes
        .iter()
        .map(|node| {
            json!({
                "id": node.id,
                "state": state_of(node),
                "reason": node.reason,
                "unmet": node.unmet,
            })
        })
        .collect();
    let edges: Vec<Value> = graph
        .edges
        .iter()
        .map(|edge| {
            json!({
                "from": edge.from,
                "to": edge.to,
                "requirement": edge.requirement,
                "optional": edge.optional,
            })
        })
        .collect();
    json!({ "nodes": nodes, "edges": edges, "start_order": graph.start_order })
}

fn dot(graph: &GetGraphResponse) -> String {
    let mut text = "digraph plugmesh {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    // Writing to a String can't fail; a Debug text is a quoted one of DOT.
    for node in &graph.nodes {
        let label = format!("{}\n{}", node.id, state_of(node));
        let _ = writeln!(text, "  {:?} [label={label:?}];", node.id);
    }
    for edge in &graph.edges {
        let style = if edge.optional { ", style=dashed" } else { "" };
        let _ = writeln!(
            text,
            "  {:?} -> {:?} [label={:?}{style}];",
            edge.from, edge.to, edge.requirement
        );
    }
    text.push('}');
    text
}

/// Each plugin that nobody needs, and below it what it needs.
fn tree(graph: &GetGraphResponse) -> String {
    let needed: BTreeSet<&str> = graph.edges.iter().map(|edge| edge.to.as_str()).collect();
    let tops = graph
        .nodes
        .iter()
        .filter(|node| !needed.contains(node.id.as_str()));
    let mut lines = Vec::new();
    for node in tops {
        lines.push(describe(node));
        below(graph, &node.id, "", &mut vec![node.id.as_str()], &mut lines);
    }
    if !graph.start_order.is_empty() {
        lines.push(String::new());
        lines.push(format!("start order: {}", graph.start_order.join(", ")));
    }
    lines.join("\n")
}

fn describe(node: &GraphNode) -> String {
    let state = state_of(node);
    if node.reason.is_empty() || state == InstanceState::Active.as_str() {
        return format!("{} ({state})", node.id);
    }
    format!("{} ({state}: {})", node.id, node.reason)
}

fn below<'a>(
    graph: &'a GetGraphResponse,
    id: &str,
    indent: &str,
    path: &mut Vec<&'a str>,
    lines: &mut Vec<String>,
) {
    let edges: Vec<&GraphEdge> = graph.edges.iter().filter(|edge| edge.from == id).collect();
    let node = |id: &str| graph.nodes.iter().find(|node| node.id == id);
    let unmet = node(id)
        .map(|node| node.unmet.as_slice())
        .unwrap_or_default();
    let last = edges.len() + unmet.len();
    for (index, edge) in edges.iter().enumerate() {
        let (branch, stem) = branches(index + 1 == last);
        let optional = if edge.optional { ", optional" } else { "" };
        let shown = node(&edge.to).map_or_else(|| edge.to.clone(), describe);
        lines.push(format!(
            "{indent}{branch}{shown} ← {}{optional}",
            edge.requirement
        ));
        // Cycles are refused at registration; a coordinator of another version may not know that.
        if !path.contains(&edge.to.as_str()) {
            path.push(&edge.to);
            below(graph, &edge.to, &format!("{indent}{stem}"), path, lines);
            path.pop();
        }
    }
    for (index, missing) in unmet.iter().enumerate() {
        let (branch, _) = branches(edges.len() + index + 1 == last);
        lines.push(format!("{indent}{branch}✗ {missing}"));
    }
}

fn branches(last: bool) -> (&'static str, &'static str) {
    if last {
        ("└─ ", "   ")
    } else {
        ("├─ ", "│  ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_proto::control::InstanceState as WireState;

    fn graph() -> GetGraphResponse {
        let node = |id: &str, unmet: &[&str]| GraphNode {
            id: id.to_owned(),
            state: WireState::Active.into(),
            reason: String::new(),
            unmet: unmet.iter().map(|text| (*text).to_owned()).collect(),
        };
        let edge = |to: &str, optional| GraphEdge {
            from: "planner@1.0.0".to_owned(),
            to: to.to_owned(),
            requirement: "any ^1".to_owned(),
            optional,
        };
        GetGraphResponse {
            nodes: vec![
                node("calculator@1.0.0", &[]),
                node("planner@1.0.0", &["slack ^2 is not there"]),
                node("time@1.0.0", &[]),
            ],
            edges: vec![edge("calculator@1.0.0", false), edge("time@1.0.0", true)],
            start_order: vec!["calculator@1.0.0".to_owned(), "planner@1.0.0".to_owned()],
        }
    }

    #[test]
    fn what_is_needed_stands_below_what_needs_it() {
        assert_eq!(
            tree(&graph()),
            "planner@1.0.0 (active)\n\
             ├─ calculator@1.0.0 (active) ← any ^1\n\
             ├─ time@1.0.0 (active) ← any ^1, optional\n\
             └─ ✗ slack ^2 is not there\n\n\
             start order: calculator@1.0.0, planner@1.0.0"
        );
    }

    #[test]
    fn graphviz_gets_quoted_names_and_dashed_options() {
        let text = dot(&graph());
        assert!(
            text.contains(r#""planner@1.0.0" -> "time@1.0.0" [label="any ^1", style=dashed];"#)
        );
        assert!(
            text.contains(r#""time@1.0.0" [label="time@1.0.0\nactive"];"#),
            "{text}"
        );
    }
}
