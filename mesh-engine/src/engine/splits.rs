//! Traffic splits: what operators may ask for, and how they are shown.

use std::collections::BTreeSet;

use semver::Version;

use super::Engine;
use super::event::Operation;
use super::registry::Registry;
use super::requests::Intent;
use crate::record::{Key, Record, SplitRecord};
use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::PluginName;
use mesh_core::revision::Timestamp;
use mesh_core::split::{Group, Split};
use mesh_core::state::InstanceState;

/// How the calls of one plugin are shared out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitView {
    /// The plugin.
    pub plugin: PluginName,
    /// Every version that has a share or an instance, by version.
    pub shares: Vec<SplitShare>,
    /// Requests that prefer a version.
    pub groups: Vec<Group>,
    /// Who wants it, as far as is known.
    pub by: String,
    /// Why; may be empty.
    pub reason: String,
    /// Since when, by the clock of the coordinator that took it.
    pub since: Timestamp,
}

/// What one version gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitShare {
    /// The version.
    pub version: Version,
    /// Its weight.
    pub weight: u32,
    /// How many of its instances are Active.
    pub active: usize,
}

impl Registry {
    /// Which versions of a plugin get which shares of its calls, as the table has it: by its rollout, if
    /// that counts, or else by its split; the test groups are always the split's.
    pub fn split(&self, plugin: &PluginName) -> Option<Split> {
        let stored = self.splits.get(plugin).map(|stored| &stored.record);
        match self.rollout_that_counts(plugin) {
            Some(rollout) => Some(Split {
                plugin: plugin.clone(),
                shares: rollout.shares(),
                groups: stored.map_or_else(Vec::new, |stored| stored.split.groups.clone()),
            }),
            None => stored?.split(),
        }
    }

    /// All of them, by plugin.
    pub fn all_splits(&self) -> impl Iterator<Item = Split> {
        let mut plugins: BTreeSet<&PluginName> = self.splits.keys().collect();
        plugins.extend(self.rollouts.keys());
        plugins.into_iter().filter_map(|plugin| self.split(plugin))
    }

    /// Whether there is anything of a plugin.
    pub fn is_known(&self, plugin: &PluginName) -> bool {
        self.graph.specs_of(plugin).next().is_some()
            || self.wishes.contains_key(plugin)
            || self.split(plugin).is_some()
    }

    /// The versions of a plugin that have an instance.
    pub fn versions(&self, plugin: &PluginName) -> BTreeSet<Version> {
        let specs = self.graph.specs_of(plugin);
        let manifests = specs.filter_map(|spec| self.graph.manifest(spec));
        manifests.map(|manifest| manifest.version.clone()).collect()
    }

    /// How many instances of a version are Active.
    pub fn active(&self, plugin: &PluginName, version: &Version) -> usize {
        let routes = self.routes_in(plugin, version);
        routes
            .filter(|route| route.state == InstanceState::Active)
            .count()
    }

    /// What an operator should know of a split that may be made.
    ///
    /// # Errors
    /// `InvalidArgument` when it may not, with the field.
    pub fn check_split(&self, split: &Split) -> Result<Vec<String>, MeshError> {
        let refuse = |field: &str, why: String| {
            MeshError::new(ErrorCode::InvalidArgument, format!("{field}: {why}"))
        };
        split.check().map_err(|(field, why)| refuse(field, why))?;
        let plugin = &split.plugin;
        let here = self.versions(plugin);
        let serves = |(version, weight): (&Version, &u32)| *weight > 0 && here.contains(version);
        if !split.shares.iter().any(serves) {
            let here: Vec<String> = here.iter().map(ToString::to_string).collect();
            let here = match here.as_slice() {
                [] => "none at all".to_owned(),
                here => here.join(", "),
            };
            let text = format!(
                "no version with a weight is here; {plugin} has instances of {here}: give one of \
                 those a weight, or start what is missing first"
            );
            return Err(refuse("shares", text));
        }
        let named = split.shares.keys();
        let named = named.chain(split.groups.iter().map(|group| &group.version));
        let missing: BTreeSet<&Version> = named.filter(|version| !here.contains(version)).collect();
        let note = |version: &Version| {
            format!("{plugin} {version} has no instance: the others serve until one is active")
        };
        Ok(missing.into_iter().map(note).collect())
    }
}

impl Engine {
    /// The record of a split, or of one without shares that clears it: so it is known who did it, and
    /// why. It counts for more than a rollout that was over before. `None`: it is so already.
    pub(super) fn split_intent(
        &self,
        split: Split,
        operation: &Operation,
        now: Timestamp,
    ) -> Result<Option<Intent>, MeshError> {
        self.no_rollout_runs(&split.plugin)?;
        let key = Key::Split(split.plugin.clone());
        let record = SplitRecord {
            split,
            by: operation.by.clone(),
            reason: operation.reason.clone(),
            since: now,
        };
        let is_news = self.registry.split(&operation.plugin) != record.split();
        Ok(is_news.then_some(Intent {
            key,
            record: Record::Split(record),
        }))
    }

    /// The splits, by plugin; of one plugin only its own.
    #[must_use]
    pub fn splits(&self, plugin: Option<&PluginName>) -> Vec<SplitView> {
        let splits = self.registry.all_splits();
        let splits = splits.filter(|split| plugin.is_none_or(|name| split.plugin == *name));
        splits.map(|split| self.split_view(split)).collect()
    }

    fn split_view(&self, split: Split) -> SplitView {
        let plugin = &split.plugin;
        let mut versions = self.registry.versions(plugin);
        versions.extend(split.shares.keys().cloned());
        let share = |version: Version| SplitShare {
            weight: split.shares.get(&version).copied().unwrap_or_default(),
            active: self.registry.active(plugin, &version),
            version,
        };
        let shares = versions.into_iter().map(share).collect();
        let stored = self.registry.splits.get(plugin).map(|it| &it.record);
        let (by, reason, since) = match (self.registry.rollout_that_counts(plugin), stored) {
            (Some(it), _) => (
                it.by.clone(),
                format!("its rollout: {}", it.reason),
                it.since,
            ),
            (None, Some(it)) => (it.by.clone(), it.reason.clone(), it.since),
            (None, None) => (String::new(), String::new(), Timestamp::default()),
        };
        SplitView {
            plugin: plugin.clone(),
            shares,
            groups: split.groups,
            by,
            reason,
            since,
        }
    }

    /// Whether a plugin is known here.
    #[must_use]
    pub fn knows(&self, plugin: &PluginName) -> bool {
        self.registry.is_known(plugin)
    }
}
