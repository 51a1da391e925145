//! `plugmesh watch`: what happens, until interrupted. With `--table` the routing table as it is, then
//! every change of it; that needs no audit.

use std::collections::BTreeMap;

use mesh_core::id::InstanceId;
use mesh_core::table::{InstanceRoute, TableUpdate};
use mesh_proto::admin::WatchRequest;
use serde_json::{Value, json};

use crate::admin::Admin;
use crate::args::{CoordinatorFlags, WatchArgs};
use crate::commands::history;
use crate::exit::Failure;
use crate::output::{self, Output};

/// Shows what happens until interrupted or the coordinator ends.
///
/// # Errors
/// What the coordinator says, or that it ended.
pub async fn run(args: WatchArgs, output: Output) -> Result<(), Failure> {
    if args.table {
        table(args.ask, output).await
    } else {
        history::watch(args.ask, args.name, output).await
    }
}

async fn table(ask: CoordinatorFlags, output: Output) -> Result<(), Failure> {
    let mut admin = Admin::connect(&ask).await?;
    let answer = admin.client().watch(WatchRequest {}).await;
    let mut changes = answer
        .map_err(|status| admin.failure(&status))?
        .into_inner();
    let mut known = Known::new();
    loop {
        let next = changes.message().await;
        let next = next.map_err(|status| admin.failure(&status))?;
        let Some(update) = next.and_then(|change| change.update) else {
            let message = "the coordinator ended the stream; start `plugmesh watch` again";
            return Err(Failure::unavailable(message));
        };
        let update = TableUpdate::try_from(update).map_err(|error| {
            Failure::failed(format!(
                "the coordinator's change is not understood: {error}"
            ))
        })?;
        if output == Output::Json {
            output::json_line(&as_json(&update))?;
        } else {
            for line in lines(&update, &mut known) {
                output::line(line)?;
            }
        }
    }
}

/// What was said last of each instance: its name, and its state with the reason.
type Known = BTreeMap<InstanceId, (String, String)>;

fn as_json(update: &TableUpdate) -> Value {
    let specs: Vec<String> = update.specs.iter().map(|(id, _)| id.to_string()).collect();
    json!({
        "from": update.from.map(|revision| revision.to_string()),
        "to": update.to.to_string(),
        "specs": specs,
        "instances": update.instances,
        "nodes": update.nodes,
        "removed_specs": update.removed_specs,
        "removed_instances": update.removed_instances,
        "removed_nodes": update.removed_nodes,
        "splits": update.splits,
        "removed_splits": update.removed_splits,
    })
}

/// What a person calls an instance: `calculator@1.0.0 on agent-a`.
fn name(route: &InstanceRoute) -> String {
    let spec = route.spec.to_string();
    let spec = spec.split('#').next().unwrap_or_default();
    format!("{spec} on {}", route.node)
}

fn lines(update: &TableUpdate, known: &mut Known) -> Vec<String> {
    let now = jiff::Timestamp::now();
    let time = now.strftime("%H:%M:%S");
    let mut lines = Vec::new();
    if update.from.is_none() {
        known.clear();
        lines.push(format!("{time} the table at revision {}:", update.to));
    }
    for node in &update.nodes {
        lines.push(format!("{time} node {} is there", node.node));
    }
    for route in &update.instances {
        let reason = match route.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        let (name, state) = (name(route), format!("{}{reason}", route.state));
        let said = (name.clone(), state.clone());
        // Only its time may have changed.
        if known.insert(route.instance, said.clone()) != Some(said) {
            lines.push(format!("{time} {name} is {state}"));
        }
    }
    for instance in &update.removed_instances {
        let name = known.remove(instance);
        let name = name.map_or_else(|| instance.to_string(), |(name, _)| name);
        lines.push(format!("{time} {name} is gone"));
    }
    for node in &update.removed_nodes {
        lines.push(format!("{time} node {node} is gone"));
    }
    for split in &update.splits {
        lines.push(format!(
            "{time} calls of {} are split: {split}",
            split.plugin
        ));
    }
    for plugin in &update.removed_splits {
        lines.push(format!("{time} calls of {plugin} are no longer split"));
    }
    lines
}
