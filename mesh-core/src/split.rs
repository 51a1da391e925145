//! Traffic splits: which versions of a plugin get which shares of its calls, and which test groups are
//! served by a version of their own.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::id::PluginName;

/// Most versions in a split.
pub const MOST_SHARES: usize = 16;
/// Most test groups in a split.
pub const MOST_GROUPS: usize = 8;
/// The greatest weight of a version.
pub const MOST_WEIGHT: u32 = 10_000;
/// Longest name of a group's header, and longest value.
pub const MOST_GROUP_BYTES: usize = 64;

/// The test groups that a request belongs to: a header's name in small letters, and its value.
pub type Groups = BTreeMap<String, String>;

/// The shares that the versions of a plugin get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// The plugin.
    pub plugin: PluginName,
    /// What each version gets, in relation to the others; 0: nothing. Versions that are not here get
    /// nothing while one that is here takes calls.
    pub shares: BTreeMap<Version, u32>,
    /// Who is served by a version of their own, whatever the shares are; the first that fits counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
}

/// Requests with this value of a header prefer a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The header's name, in small letters.
    pub header: String,
    /// Its value.
    pub value: String,
    /// The version.
    pub version: Version,
}

impl Split {
    /// No split: it has no shares.
    #[must_use]
    pub fn none(plugin: PluginName) -> Self {
        Self {
            plugin,
            shares: BTreeMap::new(),
            groups: Vec::new(),
        }
    }

    /// What is wrong with shares and groups that somebody asks for, each as the field and the problem.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if !(1..=MOST_SHARES).contains(&self.shares.len()) {
            let text = format!(
                "{} versions are named; name 1 to {MOST_SHARES}",
                self.shares.len()
            );
            return Err(("shares", text));
        }
        if let Some((version, weight)) = self.shares.iter().find(|(_, it)| **it > MOST_WEIGHT) {
            let text = format!("{version} has a weight of {weight}, {MOST_WEIGHT} is the most");
            return Err(("shares", text));
        }
        if self.shares.values().all(|weight| *weight == 0) {
            let text = "all weights are 0, so no version would serve: give one of them more";
            return Err(("shares", text.to_owned()));
        }
        if self.groups.len() > MOST_GROUPS {
            let text = format!("{} are named, {MOST_GROUPS} is the most", self.groups.len());
            return Err(("groups", text));
        }
        self.groups.iter().try_for_each(Group::check)
    }

    /// The version of the test group that a request belongs to.
    #[must_use]
    pub fn version_of(&self, groups: &Groups) -> Option<&Version> {
        let fits = |group: &&Group| groups.get(&group.header) == Some(&group.value);
        let found = self.groups.iter().find(fits);
        found.map(|group| &group.version)
    }
}

impl Group {
    fn check(&self) -> Result<(), (&'static str, String)> {
        let length = 1..=MOST_GROUP_BYTES;
        let of_name = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_".contains(&c);
        if !length.contains(&self.header.len()) || !self.header.bytes().all(of_name) {
            let given: String = self.header.chars().take(80).collect();
            let text = format!(
                "header {given:?} is not valid: use 1 to {MOST_GROUP_BYTES} small letters, digits, - \
                 and _"
            );
            return Err(("groups", text));
        }
        let of_value = |c: u8| c.is_ascii_graphic();
        if !length.contains(&self.value.len()) || !self.value.bytes().all(of_value) {
            let given: String = self.value.chars().take(80).collect();
            let text = format!(
                "value {given:?} of header {} is not valid: use 1 to {MOST_GROUP_BYTES} letters, \
                 digits and signs without spaces",
                self.header
            );
            return Err(("groups", text));
        }
        Ok(())
    }
}

/// As it is typed: `1.4.0=90 2.0.0=10 x-test-group=beta:2.0.0`.
impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for (version, weight) in &self.shares {
            write!(text, " {version}={weight}")?;
        }
        for group in &self.groups {
            write!(text, " {}={}:{}", group.header, group.value, group.version)?;
        }
        f.pad(text.trim_start())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(shares: &[(&str, u32)], groups: &[(&str, &str)]) -> Split {
        Split {
            plugin: "a".parse().unwrap(),
            shares: shares
                .iter()
                .map(|(version, weight)| (version.parse().unwrap(), *weight))
                .collect(),
            groups: groups
                .iter()
                .map(|(header, value)| Group {
                    header: (*header).to_owned(),
                    value: (*value).to_owned(),
                    version: Version::new(2, 0, 0),
                })
                .collect(),
        }
    }

    #[test]
    fn a_split_needs_versions_with_weight_and_groups_with_clean_headers() {
        let good = [("1.0.0", 1), ("2.0.0", 0)];
        assert_eq!(split(&good, &[("x-test-group", "beta")]).check(), Ok(()));
        let many: Vec<_> = (0..17).map(|minor| format!("1.{minor}.0")).collect();
        let many: Vec<_> = many.iter().map(|version| (version.as_str(), 1)).collect();
        for (wrong, field, part) in [
            (split(&[], &[]), "shares", "0 versions are named"),
            (split(&many, &[]), "shares", "17 versions are named"),
            (split(&[("1.0.0", 0)], &[]), "shares", "all weights are 0"),
            (
                split(&[("1.0.0", 10_001)], &[]),
                "shares",
                "1.0.0 has a weight of 10001, 10000 is the most",
            ),
            (
                split(&good, &[("X-Test", "b")]),
                "groups",
                "header \"X-Test\"",
            ),
            (split(&good, &[("", "b")]), "groups", "header \"\""),
            (split(&good, &[("x", "a b")]), "groups", "value \"a b\""),
            (split(&good, &[("x", "b"); 9]), "groups", "9 are named"),
        ] {
            let (at, why) = wrong.check().expect_err(part);
            assert!(at == field && why.contains(part), "{at}: {why}");
        }
    }

    #[test]
    fn the_first_group_that_fits_counts() {
        let split = split(&[("1.0.0", 1)], &[("x", "beta")]);
        let groups = |value: &str| Groups::from([("x".to_owned(), value.to_owned())]);
        assert_eq!(
            split.version_of(&groups("beta")),
            Some(&Version::new(2, 0, 0))
        );
        assert_eq!(split.version_of(&groups("gamma")), None);
        assert_eq!(split.to_string(), "1.0.0=1 x=beta:2.0.0");
    }
}
