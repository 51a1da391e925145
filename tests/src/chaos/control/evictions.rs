//! Evictions, of which there may be none: every agent lives.

use crate::mesh::{Mesh, Role};

/// Nodes that a coordinator says to have evicted, and agents that were told that they are unknown.
pub fn count(mesh: &Mesh) -> usize {
    let logs = mesh.coordinators().map(Role::log);
    logs.map(|log| log.matches(" is evicted: ").count()).sum()
}

/// The instances of the plugins that run all the while, as the table has them.
pub fn instances(mesh: &Mesh) -> anyhow::Result<Vec<String>> {
    let plugins = mesh.plugins()?;
    let list = plugins["plugins"].as_array().into_iter().flatten();
    let of = list.filter(|one| one["name"] == "ledger");
    let all = of.flat_map(|one| one["instances"].as_array().into_iter().flatten());
    let mut ids: Vec<String> = all.map(|one| one["instance"].to_string()).collect();
    ids.sort();
    Ok(ids)
}
