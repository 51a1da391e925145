//! Route selection: which instance gets a call.

use std::sync::Arc;

use semver::Version;

use crate::capability::Capability;
use crate::error::{ErrorCode, MeshError, Place};
use crate::id::{Generation, InstanceId, NodeId, PluginName};
use crate::manifest::Manifest;
use crate::table::{Provider, Table};
use crate::version::Requirement;

/// Calls in flight that are assumed to be allowed where the table does not say.
pub const DEFAULT_CONCURRENCY: u32 = 256;

/// Most instances whose reasons an error lists.
const MOST_REASONS: usize = 4;

/// What a call asks for.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The plugin that must serve it; `None`: any that provides the capability.
    pub plugin: Option<&'a PluginName>,
    /// What is called.
    pub capability: &'a Capability,
    /// Which versions of the plugin will do; `None`: all, the newest stable one first.
    pub requirement: Option<&'a Requirement>,
}

/// The instance that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The instance.
    pub instance: InstanceId,
    /// The node that it runs on.
    pub node: NodeId,
    /// The generation of that node.
    pub generation: Generation,
    /// The plugin.
    pub plugin: PluginName,
    /// Its version.
    pub version: Version,
    /// Whether a call whose outcome is unknown may be sent again.
    pub may_repeat: bool,
    /// Whether the answer may come in several chunks.
    pub streaming: bool,
    /// Whether the caller may send messages after the payload.
    pub client_streaming: bool,
}

impl Selected {
    /// Where the call goes, for errors and logs.
    #[must_use]
    pub fn place(&self) -> Place {
        Place {
            plugin: self.plugin.to_string(),
            version: self.version.to_string(),
            instance: self.instance.to_string(),
            node: self.node.to_string(),
        }
    }
}

/// Chooses an instance for a call.
///
/// Of each plugin only the newest stable version counts that is allowed and has an instance which
/// takes calls (the newest pre-release if there is no stable one). Among its instances those below
/// their limit come first, then the active before the degraded, then the own node's, then those with
/// the fewest calls in flight; `seed` breaks ties, in turn when it counts up. Instances in `avoid` are
/// never chosen: they have failed this call already.
///
/// # Errors
/// `NO_PROVIDER` when nothing in the table could ever serve the call, `UNAVAILABLE` when something
/// could but may not now; the text says why of each instance.
pub fn select(
    table: &Table,
    target: &Target<'_>,
    avoid: &[InstanceId],
    prefer_node: Option<&NodeId>,
    in_flight: &dyn Fn(InstanceId) -> u32,
    seed: u64,
) -> Result<Selected, MeshError> {
    let rows = table.provider_rows(target.capability);
    let usable = |row: &&Provider| {
        row.route.state.takes_calls() && fits(target, row) && !avoid.contains(&row.route.instance)
    };
    let newest = newest_versions(rows.iter().filter(usable));
    let mut best = None;
    let mut chosen: Vec<&Provider> = Vec::new();
    for row in rows.iter().filter(usable) {
        let manifest = &row.manifest;
        let same = |newest: &&&Arc<Manifest>| newest.name == manifest.name;
        let of_plugin = newest.iter().find(same);
        if of_plugin.is_some_and(|newest| rank(&newest.version) > rank(&manifest.version)) {
            continue;
        }
        let route = &row.route;
        let calls = in_flight(route.instance);
        let most = match route.concurrency {
            0 => DEFAULT_CONCURRENCY,
            own => own,
        };
        let elsewhere = prefer_node.is_some_and(|node| *node != route.node);
        let cost = (calls >= most, route.state, elsewhere, calls);
        if best.is_none_or(|best| cost < best) {
            best = Some(cost);
            chosen.clear();
        }
        if best == Some(cost) {
            chosen.push(row);
        }
    }
    // In range: the remainder is below the length.
    let turn = usize::try_from(seed % (chosen.len().max(1) as u64)).unwrap_or(0);
    match chosen.get(turn) {
        Some(row) => Ok(selected(row)),
        None => Err(refusal(target, rows, avoid)),
    }
}

/// The manifest with the newest version of each plugin; none when all rows share one manifest, as
/// they nearly always do.
fn newest_versions<'a>(rows: impl Iterator<Item = &'a Provider>) -> Vec<&'a Arc<Manifest>> {
    let mut newest: Vec<&Arc<Manifest>> = Vec::new();
    let mut first = None;
    for row in rows {
        let manifest = &row.manifest;
        let first = *first.get_or_insert(manifest);
        if newest.is_empty() {
            if Arc::ptr_eq(first, manifest) {
                continue;
            }
            newest.push(first);
        }
        match newest.iter_mut().find(|other| other.name == manifest.name) {
            Some(other) if rank(&other.version) < rank(&manifest.version) => *other = manifest,
            Some(_) => {}
            None => newest.push(manifest),
        }
    }
    newest
}

/// Whether a provider is of the plugin and version that the call asks for.
fn fits(target: &Target<'_>, row: &Provider) -> bool {
    target
        .plugin
        .is_none_or(|plugin| *plugin == row.manifest.name)
        && target
            .requirement
            .is_none_or(|requirement| requirement.matches(&row.manifest.version))
}

/// Stable versions before pre-releases, then by precedence.
fn rank(version: &Version) -> (bool, &Version) {
    (version.pre.is_empty(), version)
}

fn selected(row: &Provider) -> Selected {
    let entry = row.entry();
    Selected {
        instance: row.route.instance,
        node: row.route.node.clone(),
        generation: row.route.generation,
        plugin: row.manifest.name.clone(),
        version: row.manifest.version.clone(),
        may_repeat: entry.is_some_and(|entry| entry.may_repeat()),
        streaming: entry.is_some_and(|entry| entry.streaming),
        client_streaming: entry.is_some_and(|entry| entry.client_streaming),
    }
}

/// Says why nothing was chosen.
fn refusal(target: &Target<'_>, rows: &[Provider], avoid: &[InstanceId]) -> MeshError {
    let capability = target.capability;
    let place = Place {
        plugin: target.plugin.map(ToString::to_string).unwrap_or_default(),
        ..Place::default()
    };
    let of_plugin = |row: &&Provider| target.plugin.is_none_or(|name| *name == row.manifest.name);
    let fitting: Vec<&Provider> = rows.iter().filter(|row| fits(target, row)).collect();
    if fitting.is_empty() {
        let mut versions: Vec<String> = rows
            .iter()
            .filter(of_plugin)
            .map(|row| format!("{}@{}", row.manifest.name, row.manifest.version))
            .collect();
        versions.dedup();
        let text = match (versions.is_empty(), target.plugin, target.requirement) {
            (false, _, Some(requirement)) => format!(
                "no version {requirement} of a plugin provides {capability}, only {}: start a \
                 matching version or loosen the requirement",
                versions.join(", ")
            ),
            (_, Some(plugin), _) => format!(
                "no plugin {plugin} that provides {capability} is in the mesh: start it, or check \
                 both names"
            ),
            _ => format!("no plugin provides {capability}: start one that does, or check the name"),
        };
        return MeshError::new(ErrorCode::NoProvider, text).at(place);
    }
    let reason = |row: &&Provider| {
        let (manifest, route) = (&row.manifest, &row.route);
        let why = if avoid.contains(&route.instance) {
            "has failed this call already".to_owned()
        } else if route.reason.is_empty() {
            route.state.to_string()
        } else {
            format!("{}, {}", route.state, route.reason)
        };
        format!(
            "{}@{} on {}: {why}",
            manifest.name, manifest.version, route.node
        )
    };
    let mut reasons: Vec<String> = fitting.iter().take(MOST_REASONS).map(reason).collect();
    if fitting.len() > MOST_REASONS {
        reasons.push(format!("and {} more", fitting.len() - MOST_REASONS));
    }
    let instances = match fitting.len() {
        1 => "1 instance provides".to_owned(),
        many => format!("{many} instances provide"),
    };
    let text = format!(
        "{instances} {capability}, none takes this call now: {}",
        reasons.join("; ")
    );
    MeshError::new(ErrorCode::Unavailable, text).at(place)
}

#[cfg(test)]
mod tests;
