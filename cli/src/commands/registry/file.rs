//! The file: operators' wishes as TOML, one table for each kind of wish.

use std::collections::BTreeMap;

use mesh_core::id::PluginName;
use mesh_core::split::{Group, Split};
use mesh_proto::admin::{ListWishesResponse, RolloutState};
use mesh_proto::control::{Revision, TrafficSplit};
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::exit::Failure;

/// The format that is written, and the newest that is read.
const FORMAT: u32 = 1;

/// Longest reason, in bytes, as coordinators take it.
const MAX_REASON: usize = 1_024;

/// What operators want, by plugin. What is not here is as it is without them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wishes {
    format: u32,
    /// Plugins that are disabled or unloaded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plugin: BTreeMap<String, Plugin>,
    /// Traffic splits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub split: BTreeMap<String, SplitWish>,
}

/// What is wanted of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    pub state: State,
    #[serde(default)]
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Disabled,
    Unloaded,
}

/// How a plugin's calls are shared out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitWish {
    #[serde(default)]
    pub reason: String,
    pub shares: BTreeMap<Version, u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
}

impl SplitWish {
    fn to_split(&self, plugin: PluginName) -> Split {
        Split {
            plugin,
            shares: self.shares.clone(),
            groups: self.groups.clone(),
        }
    }

    /// The split on the wire.
    pub fn to_wire(&self, plugin: &str) -> TrafficSplit {
        // A name that is none is refused by the coordinator.
        let wire = PluginName::new(plugin).map(|name| self.to_split(name).into());
        wire.unwrap_or_default()
    }
}

impl Wishes {
    pub fn len(&self) -> usize {
        self.plugin.len() + self.split.len()
    }

    /// The file.
    ///
    /// # Errors
    /// None is known.
    pub fn write(&self, at: &str, rollouts: &Rollouts) -> Result<String, Failure> {
        let text = toml::to_string(self).map_err(|error| {
            Failure::failed(format!("the wishes can't be written as TOML: {error}"))
        })?;
        let running = rollouts.iter().filter(|(_, rollout)| rollout.goes_on);
        let running = running.map(|(plugin, rollout)| {
            format!(
                "# A rollout of {plugin} to {} is under way, and is not in here: the split is what the \
                 other versions had before it.\n",
                rollout.to
            )
        });
        let running: String = running.collect();
        Ok(format!(
            "# What operators want of the plugins of a mesh, exported {at}.\n\
             # Read it back with `plugmesh registry import FILE`, which shows a plan first.\n\
             # What is not here is taken back: the plugin is enabled, or has no split.\n{running}{text}"
        ))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The first mistake, with its line or its field.
    pub fn read(text: &str) -> Result<Self, String> {
        let broken = |error: &toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(1, |before| before.matches('\n').count() + 1);
            (line, error.message().replace('\n', " "))
        };
        let parsed = toml::Deserializer::parse(text).map_err(|error| {
            let (line, why) = broken(&error);
            format!("line {line}: {why}: write it as TOML")
        })?;
        let read: Self = serde_path_to_error::deserialize(parsed).map_err(|error| {
            let (line, why) = broken(error.inner());
            match error.path().to_string().as_str() {
                "." => format!("line {line}: {why}"),
                field => format!("{field} (line {line}): {why}"),
            }
        })?;
        if read.format != FORMAT {
            let format = read.format;
            return Err(format!(
                "format: is {format}, and this program reads {FORMAT}: use the release that wrote it"
            ));
        }
        for (name, plugin) in &read.plugin {
            PluginName::new(name).map_err(|error| format!("plugin.{name}: {error}"))?;
            check_reason(&plugin.reason).map_err(|why| format!("plugin.{name}.reason: {why}"))?;
        }
        for (name, split) in &read.split {
            let plugin = PluginName::new(name).map_err(|error| format!("split.{name}: {error}"))?;
            let checked = split.to_split(plugin).check();
            checked.map_err(|(field, why)| format!("split.{name}.{field}: {why}"))?;
            check_reason(&split.reason).map_err(|why| format!("split.{name}.reason: {why}"))?;
        }
        Ok(read)
    }
}

/// The rollouts that say how calls are shared out, by plugin.
pub type Rollouts = BTreeMap<String, Rollout>;

/// A rollout that says how a plugin's calls are shared out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// The new version.
    pub to: String,
    /// It is not over.
    pub goes_on: bool,
}

fn check_reason(reason: &str) -> Result<(), String> {
    match reason.len() {
        0..=MAX_REASON => Ok(()),
        bytes => Err(format!(
            "has {bytes} bytes, {MAX_REASON} is the most: shorten it"
        )),
    }
}

/// What is wanted now, and as of which revision of the registry.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored {
    pub wishes: Wishes,
    epoch: u64,
    plugins: BTreeMap<String, Revision>,
    splits: BTreeMap<String, Revision>,
    /// Where splits come from rollouts.
    pub rollouts: Rollouts,
}

impl Stored {
    /// The revision of a plugin's wish, or of its split.
    pub fn revision(&self, plugin: &str, is_split: bool) -> Revision {
        let all = if is_split {
            &self.splits
        } else {
            &self.plugins
        };
        let none = Revision {
            epoch: self.epoch,
            sequence: 0,
        };
        all.get(plugin).copied().unwrap_or(none)
    }
}

impl TryFrom<ListWishesResponse> for Stored {
    type Error = String;
    fn try_from(wire: ListWishesResponse) -> Result<Self, String> {
        let mut wishes = Wishes {
            format: FORMAT,
            ..Wishes::default()
        };
        let (mut plugins, mut splits) = (BTreeMap::new(), BTreeMap::new());
        let mut rollouts = Rollouts::new();
        for wish in wire.wishes {
            let reason = wish.reason;
            let revision = wish.revision.unwrap_or_default();
            if let Some(rollout) = wish.rollout {
                let goes_on = matches!(
                    rollout.state(),
                    RolloutState::Waiting | RolloutState::Shifting
                );
                let to = rollout.plan.unwrap_or_default().to;
                rollouts.insert(wish.plugin.clone(), Rollout { to, goes_on });
            }
            if let Some(split) = wish.split {
                splits.insert(wish.plugin.clone(), revision);
                if split.shares.is_empty() {
                    continue;
                }
                let split = Split::try_from(split).map_err(|error| error.to_string())?;
                let (shares, groups) = (split.shares, split.groups);
                let wanted = SplitWish {
                    reason,
                    shares,
                    groups,
                };
                wishes.split.insert(wish.plugin, wanted);
                continue;
            }
            plugins.insert(wish.plugin.clone(), revision);
            let state = match wish.state.as_str() {
                "disabled" => State::Disabled,
                "unloaded" => State::Unloaded,
                // It is as it is without operators.
                "enabled" => continue,
                other => return Err(format!("{} shall be {other:?}", wish.plugin)),
            };
            wishes.plugin.insert(wish.plugin, Plugin { state, reason });
        }
        Ok(Self {
            wishes,
            epoch: wire.revision.unwrap_or_default().epoch,
            plugins,
            splits,
            rollouts,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    const FILE: &str = r#"
format = 1

[plugin.time]
state = "disabled"
reason = "a \"test\""

[split.calculator]
reason = ""
[split.calculator.shares]
"1.4.0" = 90
"2.0.0" = 10
[[split.calculator.groups]]
header = "x-test-group"
value = "beta"
version = "2.0.0"
"#;

    #[test]
    fn what_is_written_is_read_back_as_it_was() {
        let wishes = Wishes::read(FILE).unwrap();
        let mut none = Rollouts::new();
        assert_eq!(wishes.len(), 2);
        let text = wishes.write("now", &none).unwrap();
        assert!(text.starts_with("# What operators want"), "{text}");
        assert_eq!(Wishes::read(&text).unwrap(), wishes);
        assert_eq!(
            Wishes::read(&text).unwrap().write("now", &none).unwrap(),
            text
        );

        // A rollout is a comment, and what stands for it a split as any.
        let (to, goes_on) = ("2.0.0".to_owned(), true);
        none.insert("calculator".to_owned(), Rollout { to, goes_on });
        let with = wishes.write("now", &none).unwrap();
        let line = "# A rollout of calculator to 2.0.0 is under way, and is not in here";
        assert!(with.lines().any(|it| it.starts_with(line)), "{with}");
        assert_eq!(Wishes::read(&with).unwrap(), wishes);
    }

    #[test]
    fn a_bad_file_gets_one_line_that_names_line_or_field() {
        for (text, parts) in [
            ("", &["line 1", "format"][..]),
            ("format = 2", &["format: is 2"]),
            (
                "format = 1\n[plugin.time]\nstate = \"off\"",
                &["plugin.time.state (line 3)", "off", "disabled"],
            ),
            ("format = 1\n[plugin.time]\n", &["plugin.time", "state"]),
            (
                "format = 1\n[plugins.time]",
                &["line 2", "plugins", "split"],
            ),
            (
                "format = 1\n[plugin.Time]\nstate = \"disabled\"",
                &["plugin.Time", "lowercase"],
            ),
            (
                "format = 1\n[split.a.shares]\n\"1.0.0\" = 0",
                &["split.a.shares", "0", "give one"],
            ),
            (
                "format = 1\n[split.a.shares]\nx = 1",
                &["split.a.shares", "line 3"],
            ),
            ("format = ", &["line 1", "TOML"]),
        ] {
            let error = Wishes::read(text).unwrap_err();
            assert!(!error.contains('\n'), "{error}");
            for part in parts {
                assert!(
                    error.contains(part),
                    "{part:?} is not in {error:?} of {text:?}"
                );
            }
        }
    }
}
