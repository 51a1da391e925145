//! The plugins: groups of fifty that need each other, as teams' plugins do. What one of them does
//! concerns its group, however many groups there are.

use mesh_core::id::InstanceId;
use mesh_proto::common::{Capability, CapabilityEntry, CapabilityKind, Dependency, Manifest};
use mesh_proto::control::{InstancePhase, InstanceReport};

/// Instances of a plugin.
pub const INSTANCES: usize = 3;
/// Plugins whose instances run on one node, on average.
pub const PLUGINS_A_NODE: usize = 10;

const GROUP: usize = 50;
const NEEDS: usize = 5;

pub fn name(plugin: usize) -> String {
    format!("plugin-{plugin}")
}

/// The plugins that one needs: of its group those that came before it, five and sometimes six, so that it
/// is five on average.
pub fn needs(plugin: usize) -> Vec<usize> {
    let (group, place) = (plugin / GROUP * GROUP, plugin % GROUP);
    let count = if place % 3 == 0 { NEEDS + 1 } else { NEEDS };
    let mut found: Vec<usize> = Vec::new();
    let mut draw = fastrand::Rng::with_seed(plugin as u64);
    while found.len() < count.min(place) {
        let other = group + draw.usize(..place);
        if !found.contains(&other) {
            found.push(other);
        }
    }
    found
}

pub fn manifest(plugin: usize) -> Manifest {
    let dependency = |other: usize| Dependency {
        plugin: name(other),
        requirement: "^1.0".to_owned(),
        optional: false,
    };
    let tool = |verb: &str| {
        CapabilityEntry {
        capability: Some(Capability {
            kind: CapabilityKind::Tool.into(),
            name: format!("{}_{verb}", name(plugin)),
        }),
        entry: format!(
            r#"{{"name":"{}_{verb}","description":"What {verb} does, in a line or two as usual.","inputSchema":{{"type":"object","properties":{{"what":{{"type":"string","description":"What it is done with"}},"how":{{"type":"integer"}}}}}}}}"#,
            name(plugin)
        )
        .into(),
        ..CapabilityEntry::default()
    }
    };
    Manifest {
        name: name(plugin),
        version: "1.0.0".to_owned(),
        description: "A plugin of the benchmark".to_owned(),
        license: "MIT".to_owned(),
        dependencies: needs(plugin).into_iter().map(dependency).collect(),
        capabilities: vec![tool("get"), tool("put")],
        ..Manifest::default()
    }
}

pub fn instance(plugin: usize, number: usize) -> InstanceId {
    let number = (plugin * INSTANCES + number) as u64;
    // As real ones are: what is drawn can't be packed.
    let mut drawn = [0; 10];
    fastrand::Rng::with_seed(number).fill(&mut drawn);
    InstanceId::new(1_700_000_000_000 + number, drawn)
}

/// The node of an instance: no two instances of a plugin are on one, where there are enough.
pub fn node(plugin: usize, number: usize, nodes: usize) -> usize {
    (plugin + number * (nodes / INSTANCES + 1)) % nodes
}

/// What an agent says of an instance.
pub fn wire_report(plugin: usize, number: usize, phase: InstancePhase) -> InstanceReport {
    InstanceReport {
        instance: instance(plugin, number).to_string(),
        manifest: Some(manifest(plugin)),
        phase: phase.into(),
        since_ms: 1_700_000_000_000,
        concurrency: 32,
        supervised: true,
        ..InstanceReport::default()
    }
}
