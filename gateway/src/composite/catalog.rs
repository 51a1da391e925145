//! The catalog: what clients may list and call, in stable order, ready to be copied into answers.

use std::sync::Arc;

use mesh_core::capability::Capability;
use mesh_core::hash::Fnv1a;
use mesh_core::id::PluginName;
use rmcp::model::{Prompt, Resource, ResourceTemplate, Tool};
use semver::Version;
use serde::Serialize;

use super::names::Problem;

/// Who serves an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serves {
    /// A plugin.
    Plugin(Route),
    /// The gateway itself.
    Management,
}

/// The plugin's capability behind an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The plugin.
    pub plugin: PluginName,
    /// The version whose entry it is.
    pub version: Version,
    /// The capability, named as the plugin named it.
    pub capability: Capability,
}

/// One entry.
#[derive(Debug, Clone)]
pub struct Item<T> {
    /// The name or URI that clients use.
    pub key: Arc<str>,
    /// The MCP entry.
    pub entry: T,
    /// Who serves it.
    pub serves: Serves,
}

/// All entries of one list, by key.
#[derive(Debug, Clone)]
pub struct Section<T> {
    items: Vec<Item<T>>,
    digest: u64,
}

impl<T: Serialize> Section<T> {
    pub(super) fn new(mut items: Vec<Item<T>>) -> Self {
        items.sort_by(|a, b| a.key.cmp(&b.key));
        let mut digest = Fnv1a::default();
        for item in &items {
            digest.add(item.key.as_bytes());
            digest.add_json(&item.entry);
        }
        Self {
            items,
            digest: digest.value(),
        }
    }
}

impl<T> Section<T> {
    /// All entries, by key.
    #[must_use]
    pub fn items(&self) -> &[Item<T>] {
        &self.items
    }

    /// The entry of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Item<T>> {
        let at = self
            .items
            .binary_search_by(|item| (*item.key).cmp(key))
            .ok()?;
        self.items.get(at)
    }

    /// At most `size` entries after a key (from the beginning without one), and the key to continue
    /// after when there are more.
    #[must_use]
    pub fn page(&self, after: Option<&str>, size: usize) -> (&[Item<T>], Option<&str>) {
        let start = after.map_or(0, |after| {
            self.items.partition_point(|item| &*item.key <= after)
        });
        let rest = self.items.get(start..).unwrap_or_default();
        let page = rest.get(..size.min(rest.len())).unwrap_or_default();
        let more = page.len() < rest.len();
        let last = page.last().filter(|_| more).map(|item| &*item.key);
        (page, last)
    }
}

/// Which lists differ between two catalogs, as MCP tells clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// `tools/list`
    pub tools: bool,
    /// `resources/list` or `resources/templates/list`
    pub resources: bool,
    /// `prompts/list`
    pub prompts: bool,
}

impl Changes {
    /// Whether any list differs.
    #[must_use]
    pub fn any(self) -> bool {
        self.tools || self.resources || self.prompts
    }

    /// What differs by either.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            tools: self.tools || other.tools,
            resources: self.resources || other.resources,
            prompts: self.prompts || other.prompts,
        }
    }
}

/// Everything that clients may list and call.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// Tools, those of the gateway itself included.
    pub tools: Section<Tool>,
    /// Resources by URI.
    pub resources: Section<Resource>,
    /// Resource templates by URI template.
    pub templates: Section<ResourceTemplate>,
    /// Prompts.
    pub prompts: Section<Prompt>,
    /// Entries that are not here as their plugins gave them.
    pub problems: Vec<Problem>,
    /// What the catalog would be if all plugins that are known took calls; `None` where they do.
    pub resting: Option<Box<Self>>,
}

impl Catalog {
    /// Which lists a client of the older catalog has to read again.
    #[must_use]
    pub fn changes_since(&self, older: &Self) -> Changes {
        Changes {
            tools: self.tools.digest != older.tools.digest,
            resources: self.resources.digest != older.resources.digest
                || self.templates.digest != older.templates.digest,
            prompts: self.prompts.digest != older.prompts.digest,
        }
    }

    /// Who serves a URI: the resource of that URI, else the first template that it matches.
    #[must_use]
    pub fn resource_route(&self, uri: &str) -> Option<&Route> {
        let serves = match self.resources.get(uri) {
            Some(item) => &item.serves,
            None => {
                let mut templates = self.templates.items().iter();
                let matches =
                    |item: &&Item<_>| mesh_core::uri_template::matches(&item.key, uri).is_some();
                &templates.find(matches)?.serves
            }
        };
        match serves {
            Serves::Plugin(route) => Some(route),
            Serves::Management => None,
        }
    }
}
