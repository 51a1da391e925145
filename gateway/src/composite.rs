//! The composite provider: all capabilities of all plugins as one catalog.
//!
//! A table goes in, a [`Catalog`] comes out: a pure function, so that a list never calls a plugin.
//! It must not know HTTP, the bus or the clock. [`Compositor`] keeps the last catalog and makes a new
//! one only when the table brings other plugins.

pub mod catalog;
pub mod cursor;
mod entries;
pub mod names;
mod nearest;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_core::capability::{Capability, CapabilityEntry, CapabilityKind};
use mesh_core::id::PluginName;
use mesh_core::manifest::Manifest;
use mesh_core::table::{SpecId, Table};
use rmcp::model::{Prompt, Resource, ResourceTemplate, Tool};
use semver::Version;

pub use self::catalog::{Catalog, Changes, Item, Route, Section, Serves};
use self::names::{Namer, Wanted};
pub use self::names::{PrefixPolicy, Problem, Reason};
pub use self::nearest::nearest;

/// One capability that will be in the catalog, of the version that was chosen for it.
struct Offer<'a> {
    plugin: &'a PluginName,
    version: &'a Version,
    entry: &'a CapabilityEntry,
}

impl Offer<'_> {
    fn route(&self) -> Route {
        Route {
            plugin: self.plugin.clone(),
            version: self.version.clone(),
            capability: self.entry.capability.clone(),
        }
    }

    fn name(&self) -> &str {
        &self.entry.capability.name
    }

    fn problem(&self, public: Option<String>, reason: Reason) -> Problem {
        Problem {
            plugin: self.plugin.clone(),
            capability: self.entry.capability.clone(),
            public,
            reason,
        }
    }
}

/// Makes catalogs of tables.
pub struct Compositor {
    policy: PrefixPolicy,
    management: Vec<Tool>,
    /// Those that take calls, and all.
    specs: Option<[BTreeSet<SpecId>; 2]>,
    last: Arc<Catalog>,
}

impl Compositor {
    /// `management` are the gateway's own tools, whose names are taken.
    #[must_use]
    pub fn new(policy: PrefixPolicy, management: Vec<Tool>) -> Self {
        let last = Arc::new(compose(
            &Table::default(),
            &BTreeSet::new(),
            policy,
            &management,
        ));
        Self {
            policy,
            management,
            specs: None,
            last,
        }
    }

    /// The catalog that was made last.
    #[must_use]
    pub fn last(&self) -> Arc<Catalog> {
        Arc::clone(&self.last)
    }

    /// The catalog of a table; the last one again when the same versions of the same plugins are there
    /// and take calls.
    pub fn compose(&mut self, table: &Table) -> Arc<Catalog> {
        let all = table.manifests().map(|(spec, _)| spec.clone()).collect();
        let specs = [callable_specs(table), all];
        if self.specs.as_ref() != Some(&specs) {
            let [callable, all] = &specs;
            let make = |specs| compose(table, specs, self.policy, &self.management);
            let resting = (callable != all).then(|| Box::new(make(all)));
            self.last = Arc::new(Catalog {
                resting,
                ..make(callable)
            });
            self.specs = Some(specs);
        }
        self.last()
    }
}

/// The manifests with at least one instance that takes calls.
fn callable_specs(table: &Table) -> BTreeSet<SpecId> {
    table
        .instances()
        .filter(|route| route.state.takes_calls())
        .map(|route| route.spec.clone())
        .collect()
}

/// Of each capability of each plugin: the entry of the newest stable version that provides it, and
/// of the newest pre-release where there is no stable one. Calls are routed by the same rule.
fn offers<'a>(
    table: &'a Table,
    specs: &BTreeSet<SpecId>,
) -> BTreeMap<CapabilityKind, Vec<Offer<'a>>> {
    let mut manifests: Vec<&Arc<Manifest>> = specs
        .iter()
        .filter_map(|spec| table.manifest(spec))
        .collect();
    let rank = |manifest: &Manifest| (manifest.version.pre.is_empty(), manifest.version.clone());
    manifests.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| rank(b).cmp(&rank(a))));
    let mut chosen: BTreeMap<(&PluginName, &Capability), Offer<'a>> = BTreeMap::new();
    for manifest in manifests {
        for entry in &manifest.capabilities {
            chosen
                .entry((&manifest.name, &entry.capability))
                .or_insert_with(|| Offer {
                    plugin: &manifest.name,
                    version: &manifest.version,
                    entry,
                });
        }
    }
    let mut by_kind: BTreeMap<CapabilityKind, Vec<Offer<'a>>> = BTreeMap::new();
    for ((_, capability), offer) in chosen {
        by_kind.entry(capability.kind).or_default().push(offer);
    }
    by_kind
}

fn compose(
    table: &Table,
    specs: &BTreeSet<SpecId>,
    policy: PrefixPolicy,
    management: &[Tool],
) -> Catalog {
    let mut by_kind = offers(table, specs);
    let mut of = |kind| by_kind.remove(&kind).unwrap_or_default();
    let mut problems = Vec::new();
    let reserved: Vec<&str> = management.iter().map(|tool| &*tool.name).collect();

    let mut tools = named(
        &of(CapabilityKind::Tool),
        policy,
        &reserved,
        entries::tool,
        &mut problems,
    );
    tools.extend(management.iter().map(|tool| Item {
        key: tool.name.as_ref().into(),
        entry: tool.clone(),
        serves: Serves::Management,
    }));
    let prompts: Vec<Item<Prompt>> = named(
        &of(CapabilityKind::Prompt),
        policy,
        &[],
        entries::prompt,
        &mut problems,
    );
    let resources: Vec<Item<Resource>> = identified(
        &of(CapabilityKind::Resource),
        entries::resource,
        &mut problems,
    );
    let templates: Vec<Item<ResourceTemplate>> = identified(
        &of(CapabilityKind::ResourceTemplate),
        entries::template,
        &mut problems,
    );
    problems.sort_by(|a, b| (&a.plugin, &a.capability).cmp(&(&b.plugin, &b.capability)));
    Catalog {
        tools: Section::new(tools),
        resources: Section::new(resources),
        templates: Section::new(templates),
        prompts: Section::new(prompts),
        problems,
        resting: None,
    }
}

/// Entries that clients call by a name that is made here.
fn named<T>(
    offers: &[Offer<'_>],
    policy: PrefixPolicy,
    reserved: &[&str],
    parse: impl Fn(&CapabilityEntry, &str) -> Result<T, String>,
    problems: &mut Vec<Problem>,
) -> Vec<Item<T>> {
    let wanted: Vec<Wanted<'_>> = offers
        .iter()
        .map(|offer| Wanted {
            plugin: offer.plugin.as_str(),
            name: offer.name(),
        })
        .collect();
    let mut items = Vec::with_capacity(offers.len());
    for (offer, named) in offers
        .iter()
        .zip(Namer::new(policy, reserved).assign(&wanted))
    {
        let Some(public) = named.public else {
            problems.extend(named.reason.map(|reason| offer.problem(None, reason)));
            continue;
        };
        match parse(offer.entry, &public) {
            Ok(entry) => {
                problems.extend(
                    named
                        .reason
                        .map(|why| offer.problem(Some(public.clone()), why)),
                );
                items.push(Item {
                    key: public.into(),
                    entry,
                    serves: Serves::Plugin(offer.route()),
                });
            }
            Err(why) => problems.push(offer.problem(None, Reason::InvalidEntry(why))),
        }
    }
    items
}

/// Entries that clients name by what the plugin gave: a URI or a URI template. The first plugin by
/// name serves one that several give.
fn identified<T>(
    offers: &[Offer<'_>],
    parse: impl Fn(&CapabilityEntry) -> Result<T, String>,
    problems: &mut Vec<Problem>,
) -> Vec<Item<T>> {
    let mut taken: BTreeMap<&str, &PluginName> = BTreeMap::new();
    let mut items = Vec::with_capacity(offers.len());
    for offer in offers {
        if let Some(first) = taken.get(offer.name()) {
            let reason = Reason::Collision(format!("plugin {first} serves it"));
            problems.push(offer.problem(None, reason));
            continue;
        }
        match parse(offer.entry) {
            Ok(entry) => {
                taken.insert(offer.name(), offer.plugin);
                items.push(Item {
                    key: offer.name().into(),
                    entry,
                    serves: Serves::Plugin(offer.route()),
                });
            }
            Err(why) => problems.push(offer.problem(None, Reason::InvalidEntry(why))),
        }
    }
    items
}

#[cfg(test)]
pub mod tests;
