//! Rings: sets of plugins of which each waits for another, so that none can ever start.
//!
//! Judged in good hope: a need for which nobody is here counts as fulfilled later, and a need that
//! several could fulfil is fulfilled when one of them can start. A ring with a way in is no ring.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Graph, NeedOf, label, required};
use mesh_core::manifest::Manifest;
use mesh_core::table::SpecId;

/// A ring that a candidate would close.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it would close a cycle of dependencies: {}", path.join(" -> "))]
pub struct Cycle {
    /// The way around as `name@version`; the first is the last, too.
    pub path: Vec<String>,
}

/// A ring that a description is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// All that wait for each other.
    pub members: BTreeSet<SpecId>,
    /// The shortest way around, as in [`Cycle`].
    pub path: Vec<String>,
}

impl Graph {
    /// Whether a plugin with this manifest could start, were it here with those that are about to be.
    /// What `runs` says yes to has started, so it waits for nobody.
    ///
    /// # Errors
    /// [`Cycle`] when the candidate would close a ring.
    pub fn check_candidate_beside(
        &self,
        candidate: &Manifest,
        coming: &Self,
        runs: &dyn Fn(&SpecId) -> bool,
    ) -> Result<(), Cycle> {
        let spec = SpecId::of(candidate);
        if self.contains(&spec) {
            return Ok(());
        }
        let search = Search {
            here: self,
            coming: Some(coming),
            candidate: Some((&spec, candidate)),
        };
        match search.stuck([spec.clone()], runs).way_around(&spec) {
            Some(path) => Err(Cycle { path }),
            None => Ok(()),
        }
    }

    /// Who of `starts`, and of those whom they need directly or through others, can't start. What
    /// `runs` says yes to has started.
    #[must_use]
    pub fn stuck(
        &self,
        starts: impl IntoIterator<Item = SpecId>,
        runs: &dyn Fn(&SpecId) -> bool,
    ) -> Stuck<'_> {
        let search = Search {
            here: self,
            coming: None,
            candidate: None,
        };
        search.stuck(starts, runs)
    }
}

struct Search<'a> {
    here: &'a Graph,
    /// Those that are not here yet and count all the same.
    coming: Option<&'a Graph>,
    candidate: Option<(&'a SpecId, &'a Manifest)>,
}

/// Those who can't start, each with those for whom it waits in vain.
#[derive(Debug)]
pub struct Stuck<'a> {
    waits: BTreeMap<SpecId, BTreeSet<SpecId>>,
    manifests: BTreeMap<SpecId, &'a Manifest>,
}

impl<'a> Search<'a> {
    fn manifest(&self, spec: &SpecId) -> Option<&'a Manifest> {
        if let Some((candidate, manifest)) = self.candidate
            && candidate == spec
        {
            return Some(manifest);
        }
        let coming = || self.coming.and_then(|coming| coming.manifest(spec));
        self.here
            .manifest(spec)
            .or_else(coming)
            .map(|manifest| &**manifest)
    }

    fn providers(&self, need: NeedOf<'a>) -> BTreeSet<SpecId> {
        let graphs = [Some(self.here), self.coming].into_iter().flatten();
        let mut found: BTreeSet<SpecId> = graphs
            .flat_map(|graph| graph.providers(need))
            .map(|(spec, _)| spec.clone())
            .collect();
        let candidate = self
            .candidate
            .filter(|(_, manifest)| need.is_met_by(manifest));
        found.extend(candidate.map(|(spec, _)| spec.clone()));
        found
    }

    /// Who of those that `starts` need, directly or through others, can't start.
    fn stuck(
        &self,
        starts: impl IntoIterator<Item = SpecId>,
        runs: &dyn Fn(&SpecId) -> bool,
    ) -> Stuck<'a> {
        // Each description with its needs that somebody could fulfil, and who could.
        let mut waits: BTreeMap<SpecId, Vec<BTreeSet<SpecId>>> = BTreeMap::new();
        let mut manifests = BTreeMap::new();
        let mut users: BTreeMap<SpecId, BTreeSet<SpecId>> = BTreeMap::new();
        let mut can_start = Vec::new();
        let mut open: Vec<SpecId> = starts.into_iter().collect();
        while let Some(spec) = open.pop() {
            if waits.contains_key(&spec) {
                continue;
            }
            let Some(manifest) = self.manifest(&spec) else {
                continue;
            };
            manifests.insert(spec.clone(), manifest);
            let mut needs = Vec::new();
            if !runs(&spec) {
                needs = required(manifest)
                    .map(|need| self.providers(need))
                    .collect();
                needs.retain(|providers| !providers.is_empty());
            }
            for provider in needs.iter().flatten() {
                users
                    .entry(provider.clone())
                    .or_default()
                    .insert(spec.clone());
                open.push(provider.clone());
            }
            if needs.is_empty() {
                can_start.push(spec.clone());
            }
            waits.insert(spec, needs);
        }
        while let Some(spec) = can_start.pop() {
            if waits.remove(&spec).is_none() {
                continue;
            }
            for user in users.get(&spec).into_iter().flatten() {
                let Some(needs) = waits.get_mut(user) else {
                    continue;
                };
                needs.retain(|providers| !providers.contains(&spec));
                if needs.is_empty() {
                    can_start.push(user.clone());
                }
            }
        }
        let flatten = |needs: Vec<BTreeSet<SpecId>>| needs.into_iter().flatten().collect();
        Stuck {
            waits: waits
                .into_iter()
                .map(|(spec, needs)| (spec, flatten(needs)))
                .collect(),
            manifests,
        }
    }
}

impl Stuck<'_> {
    /// The ring that a description is part of, if it is part of one.
    #[must_use]
    pub fn ring_of(&self, spec: &SpecId) -> Option<Ring> {
        let path = self.way_around(spec)?;
        Some(Ring {
            members: self.members_with(spec),
            path,
        })
    }

    fn next(&self, spec: &SpecId) -> impl Iterator<Item = &SpecId> {
        self.waits.get(spec).into_iter().flatten()
    }

    /// The shortest way from `start` back to it, as `name@version`; `None` when there is none.
    fn way_around(&self, start: &SpecId) -> Option<Vec<String>> {
        let mut came_from: BTreeMap<&SpecId, &SpecId> = BTreeMap::new();
        let mut open = VecDeque::from([start]);
        let last = 'search: loop {
            let spec = open.pop_front()?;
            for next in self.next(spec) {
                if next == start {
                    break 'search spec;
                }
                if !came_from.contains_key(next) {
                    came_from.insert(next, spec);
                    open.push_back(next);
                }
            }
        };
        let mut way = vec![start, last];
        let mut at = last;
        while at != start {
            at = came_from.get(at)?;
            way.push(at);
        }
        if last == start {
            way.truncate(2);
        }
        way.reverse();
        let name = |spec: &SpecId| self.manifests.get(spec).map(|manifest| label(manifest));
        way.into_iter().map(name).collect()
    }

    /// Those on a common ring with `spec`: it waits for them and they for it.
    fn members_with(&self, spec: &SpecId) -> BTreeSet<SpecId> {
        let mut awaited_by: BTreeMap<&SpecId, Vec<&SpecId>> = BTreeMap::new();
        for (from, to) in &self.waits {
            for to in to {
                awaited_by.entry(to).or_default().push(from);
            }
        }
        let forward = super::closure([spec.clone()], |at| self.next(at).cloned().collect());
        let backward = super::closure([spec.clone()], |at| {
            awaited_by
                .get(at)
                .into_iter()
                .flatten()
                .map(|from| (*from).clone())
                .collect()
        });
        forward.intersection(&backward).cloned().collect()
    }
}
