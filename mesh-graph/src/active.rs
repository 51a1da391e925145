//! Who can run: the least set of those whose needs are met by others of the set.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::FixedState;

use super::{Graph, required};
use mesh_core::table::SpecId;

/// What became of one description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing<'a> {
    /// Which.
    pub spec: &'a SpecId,
    /// It runs.
    pub active: bool,
    /// All its needs that block are met by those who run.
    pub met: bool,
}

/// One of those who are judged.
struct Candidate<'a> {
    spec: &'a SpecId,
    may_run: bool,
    /// How many of its needs nobody meets yet.
    open: usize,
    /// The needs that it meets once it runs.
    meets: Vec<usize>,
    active: bool,
}

/// A need, by whose it is.
struct Open {
    owner: usize,
    met: bool,
}

impl Graph {
    /// Judges some descriptions: one runs when it `may_run` and each of its needs that block is met by
    /// one that runs. Of all others `runs` says whether they do. Those who only wait for each other
    /// don't run. Each edge is looked at once; descriptions that are not here are left out.
    pub fn activate<'a>(
        &self,
        judged: &'a BTreeSet<SpecId>,
        may_run: impl Fn(&SpecId) -> bool,
        runs: impl Fn(&SpecId) -> bool,
    ) -> Vec<Standing<'a>> {
        let here = || judged.iter().filter(|spec| self.contains(spec));
        let places: HashMap<&SpecId, usize, FixedState> = here()
            .enumerate()
            .map(|(place, spec)| (spec, place))
            .collect();
        let candidate = |spec| Candidate {
            spec,
            may_run: may_run(spec),
            open: 0,
            meets: Vec::new(),
            active: false,
        };
        let mut all: Vec<Candidate<'a>> = here().map(candidate).collect();
        let mut needs: Vec<Open> = Vec::new();
        for (owner, spec) in here().enumerate() {
            for need in self.manifest(spec).into_iter().flat_map(|it| required(it)) {
                let number = needs.len();
                let mut met = false;
                for (provider, _) in self.providers(need) {
                    match places.get(provider).and_then(|place| all.get_mut(*place)) {
                        Some(provider) => provider.meets.push(number),
                        None => met |= runs(provider),
                    }
                }
                needs.push(Open { owner, met });
                if let Some(owner) = all.get_mut(owner)
                    && !met
                {
                    owner.open += 1;
                }
            }
        }
        let can_run = |one: &Candidate<'_>| one.may_run && one.open == 0;
        let mut ready: Vec<usize> = (0..all.len())
            .filter(|place| all.get(*place).is_some_and(can_run))
            .collect();
        while let Some(place) = ready.pop() {
            let Some(one) = all.get_mut(place) else {
                continue;
            };
            one.active = true;
            for number in std::mem::take(&mut one.meets) {
                let open = needs.get_mut(number).filter(|need| !need.met);
                let Some(need) = open else {
                    continue;
                };
                need.met = true;
                if let Some(owner) = all.get_mut(need.owner) {
                    owner.open -= 1;
                    if can_run(owner) {
                        ready.push(need.owner);
                    }
                }
            }
        }
        let standing = all.into_iter().map(|one| Standing {
            spec: one.spec,
            active: one.active,
            met: one.open == 0,
        });
        standing.collect()
    }
}
