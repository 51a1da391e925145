//! Start and stop order: nobody starts before those whom it needs.
//!
//! Needs may run in a circle all the same: through optional ones, or where several could fulfil one.
//! Then optional needs give way first, and after them those that another fulfils already.

use std::collections::{BTreeMap, BTreeSet};

use super::{Graph, label, needs};

type Arrows<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// What one `name@version` needs.
#[derive(Default)]
struct Wants {
    /// Everybody who could fulfil a need, optional or not.
    all: BTreeSet<String>,
    /// For each description of it: the needs that block, each with those who could fulfil it.
    ways_in: Vec<Vec<BTreeSet<String>>>,
}

impl Graph {
    /// All `name@version` in an order in which they can be started. By name where the needs leave a
    /// choice.
    #[must_use]
    pub fn start_order(&self) -> Vec<String> {
        let wants = self.wants();
        let every: BTreeSet<&str> = wants.keys().map(String::as_str).collect();
        let all = arrows(&wants, |want| Box::new(want.all.iter()));
        let blocking = arrows(&wants, |want| {
            Box::new(want.ways_in.iter().flatten().flatten())
        });
        let mut order: Vec<&str> = Vec::new();
        for group in groups_in_order(&every, &all) {
            for inner in groups_in_order(&group, &blocking) {
                by_ways_in(&inner, &wants, &mut order);
            }
        }
        order.into_iter().map(str::to_owned).collect()
    }

    /// The start order against its direction.
    #[must_use]
    pub fn stop_order(&self) -> Vec<String> {
        let mut order = self.start_order();
        order.reverse();
        order
    }

    fn wants(&self) -> BTreeMap<String, Wants> {
        let mut wants: BTreeMap<String, Wants> = BTreeMap::new();
        for (_, manifest) in self.nodes() {
            let want = wants.entry(label(manifest)).or_default();
            let mut blocking = Vec::new();
            for need in needs(manifest) {
                let found: BTreeSet<String> = self
                    .providers(need)
                    .map(|(_, provider)| label(provider))
                    .collect();
                want.all.extend(found.iter().cloned());
                if !need.need.optional && !found.is_empty() {
                    blocking.push(found);
                }
            }
            want.ways_in.push(blocking);
        }
        wants
    }
}

fn arrows<'a>(
    wants: &'a BTreeMap<String, Wants>,
    of: impl Fn(&'a Wants) -> Box<dyn Iterator<Item = &'a String> + 'a>,
) -> Arrows<'a> {
    let row = |(from, want): (&'a String, &'a Wants)| {
        (from.as_str(), of(want).map(String::as_str).collect())
    };
    wants.iter().map(row).collect()
}

/// Splits `nodes` into groups of those that need each other in a circle (mostly groups of one), in an
/// order in which every group comes after those that it needs.
fn groups_in_order<'a>(nodes: &BTreeSet<&'a str>, arrows: &Arrows<'a>) -> Vec<BTreeSet<&'a str>> {
    let group_of = circles(nodes, arrows);
    let mut members: BTreeMap<usize, BTreeSet<&'a str>> = BTreeMap::new();
    for (node, group) in &group_of {
        members.entry(*group).or_default().insert(node);
    }
    let mut open: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    let mut users: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (node, group) in &group_of {
        let needed = arrows
            .get(node)
            .into_iter()
            .flatten()
            .filter_map(|to| group_of.get(to));
        let needed: BTreeSet<usize> = needed.copied().filter(|to| to != group).collect();
        for to in &needed {
            users.entry(*to).or_default().insert(*group);
        }
        open.entry(*group).or_default().extend(needed);
    }
    let name = |group: usize| members.get(&group).and_then(|all| all.first()).copied();
    let mut free: BTreeSet<(Option<&str>, usize)> = open
        .iter()
        .filter(|(_, needed)| needed.is_empty())
        .map(|(group, _)| (name(*group), *group))
        .collect();
    let mut order = Vec::new();
    while let Some((_, group)) = free.pop_first() {
        order.extend(members.get(&group).cloned());
        for user in users.get(&group).into_iter().flatten() {
            let Some(needed) = open.get_mut(user) else {
                continue;
            };
            if needed.remove(&group) && needed.is_empty() {
                free.insert((name(*user), *user));
            }
        }
    }
    order
}

/// Strongly connected components (Tarjan's algorithm, without recursion): equal numbers need each
/// other.
fn circles<'a>(nodes: &BTreeSet<&'a str>, arrows: &Arrows<'a>) -> BTreeMap<&'a str, usize> {
    let mut index: BTreeMap<&str, usize> = BTreeMap::new();
    let mut low: BTreeMap<&str, usize> = BTreeMap::new();
    let mut group_of: BTreeMap<&'a str, usize> = BTreeMap::new();
    let mut stack: Vec<&'a str> = Vec::new();
    for root in nodes {
        if index.contains_key(root) {
            continue;
        }
        let inside = |node: &&'a str| arrows.get(node).into_iter().flatten().copied();
        let mut path = vec![(*root, inside(root))];
        index.insert(root, index.len());
        low.insert(root, index.len() - 1);
        stack.push(root);
        while let Some((node, mut rest)) = path.pop() {
            let Some(next) = rest.next() else {
                let lowest = low.get(node).copied().unwrap_or_default();
                if index.get(node) == Some(&lowest) {
                    while let Some(member) = stack.pop() {
                        group_of.insert(member, lowest);
                        if member == node {
                            break;
                        }
                    }
                }
                if let Some((parent, _)) = path.last() {
                    let parent_low = low.entry(parent).or_insert(lowest);
                    *parent_low = (*parent_low).min(lowest);
                }
                continue;
            };
            path.push((node, rest));
            if !nodes.contains(next) {
                continue;
            }
            match index.get(next).copied() {
                None => {
                    index.insert(next, index.len());
                    low.insert(next, index.len() - 1);
                    stack.push(next);
                    path.push((next, inside(&next)));
                }
                Some(seen) if !group_of.contains_key(next) => {
                    let node_low = low.entry(node).or_insert(seen);
                    *node_low = (*node_low).min(seen);
                }
                Some(_) => {}
            }
        }
    }
    group_of
}

/// Orders those that need each other in a circle: first who needs only some of the circle of whom one
/// is placed already; who is left over waits in a ring and comes last, by name.
fn by_ways_in<'a>(
    group: &BTreeSet<&'a str>,
    wants: &BTreeMap<String, Wants>,
    order: &mut Vec<&'a str>,
) {
    let mut left = group.clone();
    while !left.is_empty() {
        let placed = |name: &String| !left.contains(name.as_str());
        let ready = |node: &&&str| {
            let mut ways_in = wants.get(**node).into_iter().flat_map(|want| &want.ways_in);
            ways_in.any(|way| way.iter().all(|providers| providers.iter().any(placed)))
        };
        let Some(next) = left.iter().find(ready).or_else(|| left.first()).copied() else {
            return;
        };
        left.remove(next);
        order.push(next);
    }
}
