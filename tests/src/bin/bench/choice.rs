//! What it costs to choose an instance, by how many there are: no call, only the choice of a router.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use harness::load::middle;
use mesh_core::id::{Generation, InstanceId, NodeId};
use mesh_core::manifest::Manifest;
use mesh_core::revision::{Revision, Timestamp};
use mesh_core::select::{Near, Origin, Signal, Target, Wish, select};
use mesh_core::split::Groups;
use mesh_core::state::InstanceState;
use mesh_core::table::{InstanceRoute, SpecId, Table, TableUpdate};
use serde_json::json;

use crate::report::{self, Figure};
use crate::side::Bench;

/// Instances of one plugin, a hundred to a node.
const INSTANCES: [u64; 3] = [1, 32, 1_000];
const A_NODE: u64 = 100;

/// What a choice among a thousand may take: little beside a call.
const MOST_NANOS: f64 = 10_000.0;

pub fn choice(bench: &mut Bench) -> anyhow::Result<()> {
    if !bench.wants("choice") {
        return Ok(());
    }
    for instances in INSTANCES {
        let table = table(instances)?;
        let mut runs = [Vec::new(), Vec::new()];
        for _ in 0..bench.rounds {
            for (key, runs) in [None, Some(1)].into_iter().zip(&mut runs) {
                runs.push(nanos(&table, key, bench.time / 4)?);
            }
        }
        let [free, by_key] = runs.map(|runs| middle(runs.into_iter()));
        let mut any = Figure::own("one of two", "ns", free);
        if instances == 1_000 {
            any = any.target(report::Target::AtMost(MOST_NANOS));
        }
        let by_key = Figure::own("by a key", "ns", by_key);
        let case = format!("of {instances} instances");
        bench.report.add("choice", &case, [any, by_key]);
    }
    Ok(())
}

fn table(instances: u64) -> anyhow::Result<Table> {
    let manifest: Manifest = serde_json::from_value(json!({
        "name": "probe",
        "version": "1.0.0",
        "capabilities": [{ "capability": "service:probe.echo" }],
    }))?;
    let spec = SpecId::of(&manifest);
    let route = |number: u64| {
        Ok(InstanceRoute {
            instance: InstanceId::new(number, [1; 10]),
            spec: spec.clone(),
            node: NodeId::new(&format!("node-{}", number / A_NODE))?,
            generation: Generation(1),
            state: InstanceState::Active,
            reason: String::new(),
            since: Timestamp(0),
            concurrency: 0,
        })
    };
    let update = TableUpdate {
        to: Revision {
            epoch: 1,
            sequence: 1,
        },
        specs: vec![(spec.clone(), Arc::new(manifest))],
        instances: (0..instances).map(route).collect::<anyhow::Result<_>>()?,
        ..TableUpdate::default()
    };
    Ok(Table::default().apply(&update)?)
}

/// Nanoseconds of one choice.
fn nanos(table: &Table, key: Option<u64>, time: Duration) -> anyhow::Result<f64> {
    let capability = "service:probe.echo".parse()?;
    let node = NodeId::new("gateway")?;
    let busy: HashMap<InstanceId, Signal> = table
        .instances()
        .zip(0..)
        .map(|(route, in_flight)| {
            let signal = Signal {
                in_flight,
                ..Signal::default()
            };
            (route.instance, signal)
        })
        .collect();
    let signal = |instance| busy.get(&instance).copied().unwrap_or_default();
    let (begun, mut seed) = (Instant::now(), 0);
    while begun.elapsed() < time {
        for _ in 0..100 {
            seed += 1;
            let wish = Wish {
                target: Target {
                    plugin: None,
                    capability: &capability,
                    requirement: None,
                },
                avoid: &[],
                origin: Origin {
                    node: &node,
                    zone: "",
                    prefer: &[Near::Node, Near::Zone],
                },
                key: key.map(|key| key + seed),
                groups: &Groups::default(),
                stopping: false,
                seed,
            };
            let selected = select(black_box(table), &wish, &signal);
            black_box(selected.ok().context("an instance")?);
        }
    }
    Ok(begun.elapsed().as_nanos() as f64 / seed as f64)
}
