//! The graph of dependencies: who needs whom, who may start, and in what order.
//!
//! A node is one description of one version of a plugin (its [`SpecId`]), shown as `name@version`.
//! Its edges are not stored: a need is looked up among those who are here, so that adding or removing
//! a node touches nobody else. Whether something runs is not known here; callers say so.
//!
//! As in `mesh-core`, nothing here does IO, reads a clock or draws a random number.

mod active;
mod cycle;
mod order;
mod unmet;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use foldhash::fast::FixedState;

pub use self::active::Standing;
pub use self::cycle::{Cycle, Ring, Stuck};
pub use self::unmet::Unmet;
use mesh_core::capability::{Capability, CapabilityEntry};
use mesh_core::id::PluginName;
use mesh_core::manifest::{Manifest, Need};
use mesh_core::table::SpecId;

/// What a need asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed<'a> {
    /// A plugin by name.
    Plugin(&'a PluginName),
    /// A capability, whoever provides it.
    Capability(&'a Capability),
}

/// One need of a manifest. Written as in a manifest: `calculator ^1.0`.
#[derive(Debug, Clone, Copy)]
pub struct NeedOf<'a> {
    /// What is needed.
    pub needed: Needed<'a>,
    /// Which versions will do, and whether it blocks.
    pub need: &'a Need,
}

impl fmt::Display for NeedOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requirement = &self.need.requirement;
        match self.needed {
            Needed::Plugin(name) => write!(f, "{name} {requirement}"),
            Needed::Capability(capability) => write!(f, "{capability} {requirement}"),
        }
    }
}

impl NeedOf<'_> {
    /// Whether a plugin with this manifest fulfils the need.
    #[must_use]
    pub fn is_met_by(&self, manifest: &Manifest) -> bool {
        let offered = match self.needed {
            Needed::Plugin(name) => manifest.name == *name,
            Needed::Capability(wanted) => {
                let mut offers = manifest.capabilities.iter();
                offers.any(|entry| entry.capability == *wanted)
            }
        };
        offered && self.need.requirement.matches(&manifest.version)
    }
}

/// All needs of a manifest, optional ones too.
pub fn needs(manifest: &Manifest) -> impl Iterator<Item = NeedOf<'_>> {
    let plugins = manifest.dependencies.iter().map(|(name, need)| NeedOf {
        needed: Needed::Plugin(name),
        need,
    });
    let capabilities = manifest.requires.iter().map(|(capability, need)| NeedOf {
        needed: Needed::Capability(capability),
        need,
    });
    plugins.chain(capabilities)
}

/// The needs of a manifest that block.
pub fn required(manifest: &Manifest) -> impl Iterator<Item = NeedOf<'_>> {
    needs(manifest).filter(|need| !need.need.optional)
}

/// A manifest as `name@version`.
#[must_use]
pub fn label(manifest: &Manifest) -> String {
    format!("{}@{}", manifest.name, manifest.version)
}

/// One need and one that fulfils it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The one that needs.
    pub from: SpecId,
    /// The one that is needed.
    pub to: SpecId,
    /// The need as written, such as `calculator ^1.0`.
    pub requirement: String,
    /// It blocks nothing.
    pub optional: bool,
}

/// Descriptions by id. Every index has the manifests, too: looking each up again would be most of the time
/// of a judgement.
type Specs = BTreeMap<SpecId, Arc<Manifest>>;

/// Descriptions by what they offer or need. Nothing depends on its order, and a plugin's name is found faster
/// than in a map that has one.
type Index<K> = HashMap<K, Specs, FixedState>;

/// The graph of all descriptions that are here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Graph {
    nodes: Specs,
    by_plugin: Index<PluginName>,
    by_capability: Index<Capability>,
    needing_plugin: Index<PluginName>,
    needing_capability: Index<Capability>,
}

impl Graph {
    /// Adds a description. Adding it again changes nothing.
    pub fn add(&mut self, spec: SpecId, manifest: Arc<Manifest>) {
        put(&mut self.by_plugin, &manifest.name, &spec, &manifest);
        for entry in &manifest.capabilities {
            put(&mut self.by_capability, &entry.capability, &spec, &manifest);
        }
        for name in manifest.dependencies.keys() {
            put(&mut self.needing_plugin, name, &spec, &manifest);
        }
        for capability in manifest.requires.keys() {
            put(&mut self.needing_capability, capability, &spec, &manifest);
        }
        self.nodes.insert(spec, manifest);
    }

    /// Takes a description out.
    pub fn remove(&mut self, spec: &SpecId) {
        let Some(manifest) = self.nodes.remove(spec) else {
            return;
        };
        take(&mut self.by_plugin, &manifest.name, spec);
        for entry in &manifest.capabilities {
            take(&mut self.by_capability, &entry.capability, spec);
        }
        for name in manifest.dependencies.keys() {
            take(&mut self.needing_plugin, name, spec);
        }
        for capability in manifest.requires.keys() {
            take(&mut self.needing_capability, capability, spec);
        }
    }

    /// Whether a description is here.
    #[must_use]
    pub fn contains(&self, spec: &SpecId) -> bool {
        self.nodes.contains_key(spec)
    }

    /// One manifest.
    #[must_use]
    pub fn manifest(&self, spec: &SpecId) -> Option<&Arc<Manifest>> {
        self.nodes.get(spec)
    }

    /// All descriptions, by id.
    pub fn nodes(&self) -> impl Iterator<Item = (&SpecId, &Arc<Manifest>)> {
        self.nodes.iter()
    }

    /// The descriptions of a plugin: every version.
    pub fn specs_of(&self, plugin: &PluginName) -> impl Iterator<Item = &SpecId> {
        self.by_plugin.get(plugin).into_iter().flat_map(Specs::keys)
    }

    /// Those who offer what a need asks for, in any version.
    fn offers<'g>(
        &'g self,
        needed: Needed<'_>,
    ) -> impl Iterator<Item = (&'g SpecId, &'g Arc<Manifest>)> {
        let found = match needed {
            Needed::Plugin(name) => self.by_plugin.get(name),
            Needed::Capability(capability) => self.by_capability.get(capability),
        };
        found.into_iter().flatten()
    }

    /// Those who fulfil a need.
    pub fn providers<'g>(
        &'g self,
        need: NeedOf<'g>,
    ) -> impl Iterator<Item = (&'g SpecId, &'g Arc<Manifest>)> {
        let fits = move |manifest: &Manifest| need.need.requirement.matches(&manifest.version);
        self.offers(need.needed)
            .filter(move |(_, manifest)| fits(manifest))
    }

    /// Those who have a need that this description fulfils; by `optional_too` also those who would
    /// run without it.
    #[must_use]
    pub fn dependents(&self, spec: &SpecId, optional_too: bool) -> BTreeSet<SpecId> {
        self.users(spec, |need, manifest| {
            (optional_too || !need.optional) && need.requirement.matches(&manifest.version)
        })
    }

    /// Those who have a need that blocks and that this description would fulfil in some version.
    #[must_use]
    pub fn askers(&self, spec: &SpecId) -> BTreeSet<SpecId> {
        self.users(spec, |need, _| !need.optional)
    }

    fn users(&self, spec: &SpecId, counts: impl Fn(&Need, &Manifest) -> bool) -> BTreeSet<SpecId> {
        let Some(manifest) = self.nodes.get(spec) else {
            return BTreeSet::new();
        };
        let mut found = BTreeSet::new();
        let mut add = |user: &SpecId, need: Option<&Need>| {
            if need.is_some_and(|need| counts(need, manifest)) {
                found.insert(user.clone());
            }
        };
        let name = &manifest.name;
        for (user, theirs) in self.needing_plugin.get(name).into_iter().flatten() {
            add(user, theirs.dependencies.get(name));
        }
        for CapabilityEntry { capability, .. } in &manifest.capabilities {
            let users = self.needing_capability.get(capability);
            for (user, theirs) in users.into_iter().flatten() {
                add(user, theirs.requires.get(capability));
            }
        }
        found
    }

    /// The given descriptions and all that need them, directly or through others. Optional needs do
    /// not count: nothing is decided by them.
    #[must_use]
    pub fn with_dependents(&self, start: impl IntoIterator<Item = SpecId>) -> BTreeSet<SpecId> {
        closure(start, |spec| self.dependents(spec, false))
    }

    /// The given descriptions and all that need them, also those who would run without.
    #[must_use]
    pub fn with_users(&self, start: impl IntoIterator<Item = SpecId>) -> BTreeSet<SpecId> {
        closure(start, |spec| self.dependents(spec, true))
    }

    /// The given descriptions and all that they need, directly or through others, optional ones too.
    #[must_use]
    pub fn with_dependencies(&self, start: impl IntoIterator<Item = SpecId>) -> BTreeSet<SpecId> {
        closure(start, |spec| {
            let manifest = self.nodes.get(spec);
            let needs = manifest.into_iter().flat_map(|manifest| needs(manifest));
            needs
                .flat_map(|need| self.providers(need))
                .map(|(found, _)| found.clone())
                .collect()
        })
    }

    /// All edges, by those who need.
    pub fn edges(&self) -> impl Iterator<Item = Edge> + '_ {
        self.nodes.iter().flat_map(move |(from, manifest)| {
            needs(manifest).flat_map(move |need| {
                self.providers(need).map(move |(to, _)| Edge {
                    from: from.clone(),
                    to: to.clone(),
                    requirement: need.to_string(),
                    optional: need.need.optional,
                })
            })
        })
    }

    /// The needs of a manifest that nobody fulfils of whom `is_active` says that it runs.
    #[must_use]
    pub fn unmet(&self, manifest: &Manifest, is_active: &dyn Fn(&SpecId) -> bool) -> Vec<Unmet> {
        let open = |need: &NeedOf<'_>| !self.providers(*need).any(|(spec, _)| is_active(spec));
        let missing = required(manifest).filter(open);
        missing
            .map(|need| Unmet::of(self, manifest, need))
            .collect()
    }
}

fn put<K>(index: &mut Index<K>, key: &K, spec: &SpecId, manifest: &Arc<Manifest>)
where
    K: Eq + Hash + Clone,
{
    let specs = index.entry(key.clone()).or_default();
    specs.insert(spec.clone(), Arc::clone(manifest));
}

fn take<K: Eq + Hash>(index: &mut Index<K>, key: &K, spec: &SpecId) {
    if let Some(specs) = index.get_mut(key) {
        specs.remove(spec);
        if specs.is_empty() {
            index.remove(key);
        }
    }
}

fn closure(
    start: impl IntoIterator<Item = SpecId>,
    mut next: impl FnMut(&SpecId) -> BTreeSet<SpecId>,
) -> BTreeSet<SpecId> {
    let mut open: Vec<SpecId> = start.into_iter().collect();
    let mut seen = BTreeSet::new();
    while let Some(spec) = open.pop() {
        if !seen.contains(&spec) {
            open.extend(next(&spec));
            seen.insert(spec);
        }
    }
    seen
}

#[cfg(test)]
mod tests;
