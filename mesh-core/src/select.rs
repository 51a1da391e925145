//! Route selection: which instance gets a call.
//!
//! Of each plugin one version counts. Of its instances that take calls, the active come before the
//! degraded and the near before the far; two of the best are drawn, and the one with the lower cost is
//! chosen. Only when both are at their limit or left out, all are looked at.

mod refusal;
mod signal;

use std::cmp::Reverse;
use std::sync::Arc;

use semver::Version;

use self::refusal::refusal;
pub use self::signal::{Health, Signal};
use self::signal::{Standing, cheaper};
use crate::capability::Capability;
use crate::error::{MeshError, Place};
use crate::hash::{affinity_rank, spread};
use crate::id::{Generation, InstanceId, NodeId, PluginName};
use crate::manifest::Manifest;
use crate::split::{Groups, Split};
use crate::state::InstanceState;
use crate::table::{Provider, Table};
use crate::version::Requirement;

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

/// What may make an instance preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Near {
    /// It runs on the caller's own node.
    Node,
    /// Its node is in the caller's zone.
    Zone,
}

/// Where a call comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The caller's node.
    pub node: &'a NodeId,
    /// Its zone; empty: none.
    pub zone: &'a str,
    /// What is preferred, the most preferred first; empty: nothing.
    pub prefer: &'a [Near],
}

impl Origin<'_> {
    /// The place in the list of what is preferred; its length for all others.
    fn distance(&self, row: &Provider) -> usize {
        let is = |near: &Near| match near {
            Near::Node => row.route.node == *self.node,
            Near::Zone => !self.zone.is_empty() && *row.zone == *self.zone,
        };
        let found = self.prefer.iter().position(is);
        found.unwrap_or(self.prefer.len())
    }
}

/// Everything that a choice depends on, beside the table and the state of the instances.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// What the call asks for.
    pub target: Target<'a>,
    /// Instances that are never chosen: they have failed this call already.
    pub avoid: &'a [InstanceId],
    /// Where the call comes from.
    pub origin: Origin<'a>,
    /// Calls of equal key go to the same instance; `None`: wherever there is room.
    pub key: Option<u64>,
    /// The test groups that the call belongs to.
    pub groups: &'a Groups,
    /// The caller's node stops: its own instances, which drain, still serve what is called there.
    pub stopping: bool,
    /// Draws; a different one for each call.
    pub seed: u64,
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
/// takes calls (the newest pre-release if there is no stable one), unless the plugin's split says
/// otherwise: the version of the call's test group, or one that is drawn by its share. Of its instances the active come first, then the near ones; of the best two are drawn, and the one
/// with fewer calls in flight and shorter ones gets the call. Those at their limit or left out give
/// way to any other.
///
/// With a key, the instance with the highest rank for it is chosen, near or far, active or degraded,
/// as long as it is below its limit and not left out: the same by every caller.
///
/// # Errors
/// `NO_PROVIDER` when nothing in the table could ever serve the call, `UNAVAILABLE` when something
/// could but may not now; the text says why of each instance.
pub fn select(
    table: &Table,
    wish: &Wish<'_>,
    signal: &dyn Fn(InstanceId) -> Signal,
) -> Result<Selected, MeshError> {
    let providing = table.providing(wish.target.capability);
    let rows = providing.map_or(&[][..], |it| &it.rows);
    let usable = |row: &&Provider| {
        (row.route.state.takes_calls() || is_left(wish, row))
            && fits(&wish.target, row)
            && !wish.avoid.contains(&row.route.instance)
    };
    let usable_rows = || rows.iter().filter(usable);
    let versions = match providing {
        Some(providing) if !providing.alike => versions(table, &usable_rows, wish, signal),
        _ => Vec::new(),
    };
    let candidates = || usable_rows().filter(|row| is_of(&versions, row));
    let chosen = match wish.key {
        Some(key) => with_key(&candidates, key, signal),
        None => of_two(&candidates, wish, signal),
    };
    chosen.map(selected).ok_or_else(|| refusal(wish, rows))
}

/// Whether an instance drains with the caller's own node, and so takes the calls of those that finish there.
fn is_left(wish: &Wish<'_>, row: &Provider) -> bool {
    wish.stopping
        && row.route.state == InstanceState::Draining
        && row.route.node == *wish.origin.node
}

/// The less costly of two that are drawn from the best tier; the best of all if neither has room.
fn of_two<'a, I: Iterator<Item = &'a Provider>>(
    candidates: &impl Fn() -> I,
    wish: &Wish<'_>,
    signal: &dyn Fn(InstanceId) -> Signal,
) -> Option<&'a Provider> {
    let seed = spread(wish.seed);
    let mut drawn = Draw::default();
    for row in candidates() {
        drawn.offer((row.route.state, wish.origin.distance(row)), row, seed);
    }
    let of = |row: &Provider| Standing::of(row, signal(row.route.instance));
    let first = drawn.rows[0]?;
    let (best, standing) = match drawn.rows[1] {
        None => (first, of(first)),
        Some(second) => {
            let (one, other) = (of(first), of(second));
            if cheaper(&one, &other, seed & 1 == 0) {
                (first, one)
            } else {
                (second, other)
            }
        }
    };
    if standing.has_room() || drawn.only_one() {
        return Some(best);
    }
    let mut number = seed;
    candidates().min_by_key(|row| {
        number = spread(number);
        let standing = of(row);
        let distance = wish.origin.distance(row);
        (
            standing.class,
            row.route.state,
            distance,
            standing.in_flight,
            number,
        )
    })
}

/// The one with the highest rank for a key among those that have room, or else among all.
fn with_key<'a, I: Iterator<Item = &'a Provider>>(
    candidates: &impl Fn() -> I,
    key: u64,
    signal: &dyn Fn(InstanceId) -> Signal,
) -> Option<&'a Provider> {
    let rank = |row: &Provider| affinity_rank(key, row.route.instance);
    let of = |row: &Provider| Standing::of(row, signal(row.route.instance));
    let home = candidates().max_by_key(|row| rank(row))?;
    if of(home).has_room() {
        return Some(home);
    }
    candidates().min_by_key(|row| (of(row).class, Reverse(rank(row))))
}

/// Two candidates of the best tier that has any, drawn in one pass.
#[derive(Default)]
struct Draw<'a> {
    tier: Option<(InstanceState, usize)>,
    of_tier: u64,
    all: u64,
    rows: [Option<&'a Provider>; 2],
}

impl<'a> Draw<'a> {
    fn offer(&mut self, tier: (InstanceState, usize), row: &'a Provider, seed: u64) {
        self.all += 1;
        match self.tier {
            Some(best) if best < tier => return,
            Some(best) if best == tier => self.of_tier += 1,
            _ => {
                self.tier = Some(tier);
                self.of_tier = 1;
                self.rows = [None, None];
            }
        }
        // Each of n stays with a probability of 2/n.
        let place = match self.of_tier {
            count @ (1 | 2) => count - 1,
            count => spread(seed.wrapping_add(count)) % count,
        };
        match (&mut self.rows, place) {
            ([first, _], 0) => *first = Some(row),
            ([_, second], 1) => *second = Some(row),
            _ => {}
        }
    }

    fn only_one(&self) -> bool {
        self.all == 1
    }
}

/// The version of each plugin that gets the call, by a manifest of it; none when all rows share one
/// manifest. A version of which all instances are silent or left out counts only
/// when there is no other.
fn versions<'a, I: Iterator<Item = &'a Provider>>(
    table: &Table,
    rows: &impl Fn() -> I,
    wish: &Wish<'_>,
    signal: &dyn Fn(InstanceId) -> Signal,
) -> Vec<&'a Arc<Manifest>> {
    let Some(first) = rows().next() else {
        return Vec::new();
    };
    if rows().all(|row| Arc::ptr_eq(&first.manifest, &row.manifest)) {
        return Vec::new();
    }
    let is_well = |row: &&Provider| signal(row.route.instance).health < Health::Ejected;
    let well = || rows().filter(is_well);
    if well().next().is_some() {
        versions_of(table, &well, wish)
    } else {
        versions_of(table, rows, wish)
    }
}

fn versions_of<'a, I: Iterator<Item = &'a Provider>>(
    table: &Table,
    rows: &impl Fn() -> I,
    wish: &Wish<'_>,
) -> Vec<&'a Arc<Manifest>> {
    let mut newest: Vec<&Arc<Manifest>> = Vec::new();
    for row in rows() {
        let manifest = &row.manifest;
        match newest.iter_mut().find(|other| other.name == manifest.name) {
            Some(other) if rank(&other.version) < rank(&manifest.version) => *other = manifest,
            Some(_) => {}
            None => newest.push(manifest),
        }
    }
    for manifest in &mut newest {
        if let Some(split) = table.split(&manifest.name)
            && let Some(version) = by_split(rows, wish, split)
        {
            *manifest = version;
        }
    }
    newest
}

/// The version of the call's test group, or one that is drawn by its share; none when no version of the
/// split is there. What is degraded has a share only while nothing of the split is active.
fn by_split<'a, I: Iterator<Item = &'a Provider>>(
    rows: &impl Fn() -> I,
    wish: &Wish<'_>,
    split: &Split,
) -> Option<&'a Arc<Manifest>> {
    let of = |version: &Version, worst: InstanceState| {
        let is_of =
            |manifest: &Manifest| manifest.name == split.plugin && manifest.version == *version;
        let found = rows().find(|row| row.route.state <= worst && is_of(&row.manifest));
        found.map(|row| &row.manifest)
    };
    let own = split.version_of(wish.groups);
    if let Some(own) = own.and_then(|version| of(version, InstanceState::Degraded)) {
        return Some(own);
    }
    // Not the bits that draw among the version's instances.
    let seed = spread(!wish.key.unwrap_or(wish.seed));
    let draw = |worst| {
        let shares = || {
            let shares = split.shares.iter();
            shares.filter_map(|(version, weight)| Some((of(version, worst)?, u64::from(*weight))))
        };
        let mut left = seed.checked_rem(shares().map(|(_, weight)| weight).sum())?;
        shares().find_map(|(manifest, weight)| {
            let found = left < weight;
            left = left.saturating_sub(weight);
            found.then_some(manifest)
        })
    };
    draw(InstanceState::Active).or_else(|| draw(InstanceState::Degraded))
}

/// Whether a provider is of the version that gets the call.
fn is_of(versions: &[&Arc<Manifest>], row: &Provider) -> bool {
    let manifest = &row.manifest;
    let chosen = versions.iter().find(|chosen| chosen.name == manifest.name);
    chosen.is_none_or(|chosen| chosen.version == manifest.version)
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

#[cfg(test)]
mod tests;
