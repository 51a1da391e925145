//! `get_plugin_metrics`.
//!
//! Calls, errors and latency are those of this gateway; memory and processor use are what the nodes
//! tell about once a second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesh_core::id::{InstanceId, PluginName};
use mesh_core::state::InstanceState;
use mesh_core::table::Table;
use mesh_proto::control::InstanceLoad;
use router::{PluginStats, Router};
use serde_json::{Map, Value, json};

use super::list::versions;

/// What is known of calls and loads.
#[derive(Default)]
pub struct Known {
    /// This gateway's calls by plugin.
    pub calls: BTreeMap<PluginName, PluginStats>,
    /// The last load of each instance.
    pub loads: BTreeMap<InstanceId, InstanceLoad>,
}

impl Known {
    fn of(routers: &[Router]) -> Self {
        let mut known = Self::default();
        for router in routers {
            for (plugin, stats) in router.stats() {
                add(known.calls.entry(plugin).or_default(), &stats);
            }
            for load in router.loads() {
                for instance in load.beacon.instances {
                    if let Ok(id) = InstanceId::from_bytes(&instance.instance) {
                        known.loads.insert(id, instance);
                    }
                }
            }
        }
        known
    }
}

/// Puts the counts of two routers together.
fn add(sum: &mut PluginStats, more: &PluginStats) {
    let total = |stats: &PluginStats| stats.mean_latency.as_secs_f64() * as_f64(stats.calls);
    let (seconds, calls) = (total(sum) + total(more), sum.calls + more.calls);
    sum.calls = calls;
    sum.errors += more.errors;
    if calls > 0 {
        sum.mean_latency = Duration::from_secs_f64(seconds / as_f64(calls));
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "for people, who read three digits"
)]
fn as_f64(number: u64) -> f64 {
    number as f64
}

pub fn metrics(table: &Table, routers: &[Router], detailed: bool) -> Value {
    of(table, &Known::of(routers), detailed)
}

pub fn of(table: &Table, known: &Known, detailed: bool) -> Value {
    let plugins: BTreeSet<&PluginName> = table.plugins().collect();
    let with = |wanted: fn(InstanceState) -> bool| {
        let has = |plugin: &&&PluginName| table.instances_of(plugin).any(|one| wanted(one.state));
        plugins.iter().filter(has).count()
    };
    let running = with(InstanceState::takes_calls);
    let failed = plugins
        .iter()
        .filter(|plugin| {
            let states = || table.instances_of(plugin).map(|one| one.state);
            // One that still runs somewhere has not failed.
            states().any(|state| state == InstanceState::Failed)
                && !states().any(InstanceState::takes_calls)
        })
        .count();

    let mut kinds: BTreeMap<String, BTreeSet<PluginName>> = BTreeMap::new();
    for version in versions(table) {
        for kind in version.kinds() {
            kinds.entry(kind).or_default().extend(version.spec.plugin());
        }
    }
    let counts: Map<String, Value> = kinds
        .into_iter()
        .map(|(kind, plugins)| (kind, json!(plugins.len())))
        .collect();
    let stats: Map<String, Value> = plugins
        .iter()
        .map(|plugin| {
            (
                plugin.to_string(),
                plugin_stats(table, known, plugin, detailed),
            )
        })
        .collect();
    json!({
        "total_plugins": plugins.len(),
        "running_plugins": running,
        "failed_plugins": failed,
        "capability_counts": counts,
        "plugin_stats": stats,
    })
}

fn plugin_stats(table: &Table, known: &Known, plugin: &PluginName, detailed: bool) -> Value {
    let calls = known.calls.get(plugin).copied().unwrap_or_default();
    let load = |id: InstanceId| known.loads.get(&id);
    let loads = table
        .instances_of(plugin)
        .filter_map(|one| load(one.instance));
    let (memory, cpu) = loads.fold((0, 0), |(memory, cpu), load| {
        (memory + load.memory_bytes, cpu + u64::from(load.cpu_millis))
    });
    let mut value = json!({
        "request_count": calls.calls,
        "error_count": calls.errors,
        "average_latency_ms": calls.mean_latency.as_secs_f64() * 1_000.0,
        "memory_usage": memory,
        "cpu_usage": as_f64(cpu) / 1_000.0,
    });
    if let (true, Some(fields)) = (detailed, value.as_object_mut()) {
        let instances: Vec<Value> = table
            .instances_of(plugin)
            .map(|one| {
                let load = load(one.instance).cloned().unwrap_or_default();
                json!({
                    "instance": one.instance.to_string(),
                    "node": one.node,
                    "status": one.state.as_str(),
                    "in_flight": load.in_flight,
                    "request_count": load.calls,
                    "error_count": load.errors,
                    "shed_count": load.shed,
                    "average_latency_ms": as_f64(load.latency_us) / 1_000.0,
                    "memory_usage": load.memory_bytes,
                    "cpu_usage": f64::from(load.cpu_millis) / 1_000.0,
                })
            })
            .collect();
        fields.insert("instances".to_owned(), json!(instances));
    }
    value
}
