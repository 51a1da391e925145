//! `plugmesh coordinators`: the coordinators, and which of them may evict nodes.

use mesh_proto::admin::{CoordinatorView, ListCoordinatorsRequest};
use serde_json::{Value, json};

use crate::admin::Admin;
use crate::args::CoordinatorFlags;
use crate::exit::Failure;
use crate::output::{self, Output};

/// Lists the coordinators.
///
/// # Errors
/// What the coordinator says.
pub async fn run(ask: CoordinatorFlags, output: Output) -> Result<(), Failure> {
    let mut admin = Admin::connect(&ask).await?;
    let request = Admin::request(ListCoordinatorsRequest {});
    let answer = admin.client().list_coordinators(request).await;
    let answer = answer.map_err(|status| admin.failure(&status))?;
    let all = answer.into_inner().coordinators;
    if output == Output::Json {
        let all: Vec<Value> = all.iter().map(as_json).collect();
        return output::json(&all);
    }
    let head = [
        "COORDINATOR",
        "STANDING",
        "HEARD",
        "STARTED",
        "NODES",
        "OFFICE",
    ];
    let rows = all.iter().map(|view| {
        [
            view.name.clone(),
            standing(view).to_owned(),
            since(view.heard_ms),
            since(view.started_ms),
            view.nodes.to_string(),
            office(view),
        ]
    });
    output::line(output::table(head, rows))?;
    if !all.iter().any(|view| view.office) {
        output::note(
            "nobody holds the office: there is no node to decide about, and no rollout's step is due",
        );
    }
    Ok(())
}

fn standing(view: &CoordinatorView) -> &'static str {
    match (view.here, view.silent) {
        (true, _) => "answers",
        (false, true) => "silent",
        (false, false) => "heard",
    }
}

fn since(ms: u64) -> String {
    if ms == 0 {
        return String::new();
    }
    output::ago(ms)
}

fn office(view: &CoordinatorView) -> String {
    if !view.office {
        return String::new();
    }
    let since = output::ago(view.office_since_ms);
    format!("held for {since}, term {}", view.office_term)
}

fn as_json(view: &CoordinatorView) -> Value {
    json!({
        "name": view.name,
        "standing": standing(view),
        "heard_ms": view.heard_ms,
        "started_ms": view.started_ms,
        "nodes": view.nodes,
        "office": view.office,
        "office_since_ms": view.office_since_ms,
        "office_term": view.office_term,
    })
}
