//! Names of tools and prompts as clients see them: prefixed by policy, within what every client
//! takes, never two alike, and never changed without saying so.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use mesh_core::capability::Capability;
use mesh_core::hash::Fnv1a;
use mesh_core::id::PluginName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest name, in bytes. Names are within `[A-Za-z0-9_./-]{1,64}`.
pub const MAX_NAME: usize = 64;

/// Hexadecimal digits of the hash that keeps cut names apart.
const HASH_DIGITS: usize = 8;

/// When the plugin's name stands before the name of its tool or prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrefixPolicy {
    /// Always: `calculator_add`. A name stays the same whatever other plugins come.
    #[default]
    Always,
    /// Only where several plugins give the same name; then to all of them.
    OnCollision,
    /// Never: of several plugins that give the same name, the first one by name serves it.
    Never,
}

/// Why an entry is not in the catalog as its plugin gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The name has characters that clients refuse.
    Characters,
    /// The name is longer than clients take.
    TooLong,
    /// Another entry has the name or URI; the text says which.
    Collision(String),
    /// The gateway's own tool has the name.
    Reserved,
    /// The entry breaks a rule of MCP; the text says which.
    InvalidEntry(String),
}

impl Reason {
    /// One word for metrics.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Characters | Self::TooLong => "renamed",
            Self::Collision(_) | Self::Reserved => "collision",
            Self::InvalidEntry(_) => "invalid_entry",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Characters => {
                f.write_str("its name has characters other than letters, digits, _ . / and -")
            }
            Self::TooLong => write!(
                f,
                "its name with the prefix is longer than {MAX_NAME} bytes"
            ),
            Self::Collision(with) => f.write_str(with),
            Self::Reserved => f.write_str("a tool of the gateway itself has the name"),
            Self::InvalidEntry(why) => write!(f, "its entry is not valid: {why}"),
        }
    }
}

/// An entry that is not in the catalog as its plugin gave it. Never silent: logged once, counted, and
/// shown by `get_plugin_info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whose entry.
    pub plugin: PluginName,
    /// Which entry.
    pub capability: Capability,
    /// The name that clients see; `None`: it is left out.
    pub public: Option<String>,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            plugin,
            capability,
            public,
            reason,
        } = self;
        match public {
            Some(public) => write!(f, "{capability} of {plugin} is called {public}: {reason}"),
            None => write!(f, "{capability} of {plugin} is left out: {reason}"),
        }
    }
}

/// A name that a plugin gave.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The plugin.
    pub plugin: &'a str,
    /// The name as the plugin gave it.
    pub name: &'a str,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The name that clients see; `None`: the entry is left out.
    pub public: Option<String>,
    /// Why it is not the plain one; `None`: it is.
    pub reason: Option<Reason>,
}

/// Gives out names.
pub struct Namer<'a> {
    policy: PrefixPolicy,
    reserved: BTreeSet<&'a str>,
}

impl<'a> Namer<'a> {
    /// `reserved` are names that no plugin gets.
    #[must_use]
    pub fn new(policy: PrefixPolicy, reserved: &[&'a str]) -> Self {
        Self {
            policy,
            reserved: reserved.iter().copied().collect(),
        }
    }

    /// Names for all, in the order of `wanted`. It depends on the set alone: where two meet, those
    /// that need no change come first, then the plugin's name decides.
    #[must_use]
    pub fn assign(&self, wanted: &[Wanted<'_>]) -> Vec<Named> {
        let mut uses: BTreeMap<Cow<'_, str>, usize> = BTreeMap::new();
        for one in wanted {
            *uses.entry(cleaned(one.name)).or_default() += 1;
        }
        let shared = |one: &Wanted<'_>| {
            let bare = cleaned(one.name);
            self.reserved.contains(&*bare) || uses.get(&bare).is_some_and(|count| *count > 1)
        };
        let plain: Vec<(String, Option<Reason>)> = wanted
            .iter()
            .map(|one| self.plain(one, shared(one)))
            .collect();

        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by_key(|&index| {
            let changed = plain
                .get(index)
                .is_none_or(|(_, reason)| is_changed(reason.as_ref()));
            let one = wanted.get(index).map(|one| (one.plugin, one.name));
            (changed, one)
        });
        let mut taken: BTreeMap<String, &Wanted<'_>> = BTreeMap::new();
        let mut named = vec![
            Named {
                public: None,
                reason: None,
            };
            wanted.len()
        ];
        for index in order {
            let (Some(one), Some((name, reason)), Some(slot)) =
                (wanted.get(index), plain.get(index), named.get_mut(index))
            else {
                continue;
            };
            *slot = self.place(one, name, reason.clone(), &taken);
            if let Some(public) = &slot.public {
                taken.insert(public.clone(), one);
            }
        }
        named
    }

    /// The name by policy, before it meets others.
    fn plain(&self, one: &Wanted<'_>, shared: bool) -> (String, Option<Reason>) {
        let prefixed = match self.policy {
            PrefixPolicy::Always => true,
            PrefixPolicy::OnCollision => shared,
            PrefixPolicy::Never => false,
        };
        let whole = if prefixed {
            format!("{}_{}", one.plugin, one.name)
        } else {
            one.name.to_owned()
        };
        let clean = cleaned(&whole);
        if clean.len() > MAX_NAME {
            return (with_hash(&clean, one), Some(Reason::TooLong));
        }
        let reason = if clean != whole {
            Some(Reason::Characters)
        } else if prefixed && self.policy == PrefixPolicy::OnCollision {
            Some(Reason::Collision(format!(
                "others give the name {}, too",
                one.name
            )))
        } else {
            None
        };
        (clean.into_owned(), reason)
    }

    /// The name among those that are taken.
    fn place(
        &self,
        one: &Wanted<'_>,
        name: &str,
        reason: Option<Reason>,
        taken: &BTreeMap<String, &Wanted<'_>>,
    ) -> Named {
        let met = match taken.get(name) {
            _ if self.reserved.contains(name) => Reason::Reserved,
            Some(first) => Reason::Collision(format!(
                "{} of plugin {} has the name {name}",
                first.name, first.plugin
            )),
            None => {
                return Named {
                    public: Some(name.to_owned()),
                    reason,
                };
            }
        };
        let other = (self.policy != PrefixPolicy::Never).then(|| with_hash(name, one));
        let free =
            |other: &String| !taken.contains_key(other) && !self.reserved.contains(other.as_str());
        Named {
            public: other.filter(free),
            reason: Some(met),
        }
    }
}

/// Whether the plugin would not recognise its name.
fn is_changed(reason: Option<&Reason>) -> bool {
    matches!(reason, Some(Reason::Characters | Reason::TooLong))
}

/// The name with every character that clients refuse replaced by `_`.
fn cleaned(name: &str) -> Cow<'_, str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
    if name.chars().all(allowed) {
        return Cow::Borrowed(name);
    }
    let replaced = name.chars().map(|c| if allowed(c) { c } else { '_' });
    Cow::Owned(replaced.collect())
}

/// The beginning of a clean name and a hash of what the plugin gave, together within [`MAX_NAME`].
fn with_hash(clean: &str, one: &Wanted<'_>) -> String {
    let mut digest = Fnv1a::default();
    digest.add(one.plugin.as_bytes());
    digest.add(b"\0");
    digest.add(one.name.as_bytes());
    let value = digest.value();
    let short = (value ^ (value >> 32)) & 0xffff_ffff;
    let end = clean.len().min(MAX_NAME - HASH_DIGITS - 1);
    let head = clean.get(..end).unwrap_or_default();
    format!("{head}_{short:0HASH_DIGITS$x}")
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed test may panic"
)]
mod tests {
    use super::*;

    fn assign(policy: PrefixPolicy, wanted: &[(&str, &str)]) -> Vec<Named> {
        let wanted: Vec<Wanted<'_>> = wanted
            .iter()
            .map(|&(plugin, name)| Wanted { plugin, name })
            .collect();
        Namer::new(policy, &["list_plugins"]).assign(&wanted)
    }

    fn public(named: &[Named]) -> Vec<Option<&str>> {
        named.iter().map(|one| one.public.as_deref()).collect()
    }

    #[test]
    fn names_are_prefixed_by_default_and_that_is_no_problem() {
        let named = assign(
            PrefixPolicy::Always,
            &[("calculator", "add"), ("time", "now")],
        );
        assert_eq!(public(&named), [Some("calculator_add"), Some("time_now")]);
        assert!(named.iter().all(|one| one.reason.is_none()));
    }

    #[test]
    fn characters_that_clients_refuse_become_underscores_and_are_reported() {
        let named = assign(PrefixPolicy::Always, &[("a", "größe: x")]);
        assert_eq!(public(&named), [Some("a_gr__e__x")]);
        assert_eq!(named[0].reason, Some(Reason::Characters));
    }

    #[test]
    fn a_long_name_is_cut_and_ends_with_a_hash_that_never_changes() {
        let long = "x".repeat(100);
        let longer = "x".repeat(101);
        let named = assign(PrefixPolicy::Always, &[("a", &long), ("a", &longer)]);
        let first = named[0].public.clone().unwrap();
        assert_eq!(first.len(), MAX_NAME);
        assert!(first.starts_with("a_xxx"), "{first}");
        assert_ne!(named[0].public, named[1].public);
        assert_eq!(named[0].reason, Some(Reason::TooLong));
        // Clients keep names: they must be the same in every release.
        assert_eq!(&first[MAX_NAME - 9..], "_5ba75bc3", "{first}");
    }

    #[test]
    fn a_name_of_64_bytes_is_taken_as_it_is() {
        let name = "y".repeat(MAX_NAME - 2);
        let named = assign(PrefixPolicy::Always, &[("a", &name)]);
        assert_eq!(named[0].reason, None);
    }

    #[test]
    fn on_collision_all_that_collide_are_prefixed_so_that_none_changes_hands() {
        let policy = PrefixPolicy::OnCollision;
        let named = assign(
            policy,
            &[("a", "x"), ("b", "x"), ("b", "y"), ("c", "list_plugins")],
        );
        let names = [Some("a_x"), Some("b_x"), Some("y"), Some("c_list_plugins")];
        assert_eq!(public(&named), names);
        assert!(matches!(named[0].reason, Some(Reason::Collision(_))));
        assert_eq!(named[2].reason, None);
    }

    #[test]
    fn with_never_the_first_plugin_keeps_the_name_and_the_others_are_reported() {
        let named = assign(
            PrefixPolicy::Never,
            &[("a", "x"), ("b", "x"), ("c", "list_plugins")],
        );
        assert_eq!(public(&named), [Some("x"), None, None]);
        let reason = named[1].reason.as_ref().unwrap().to_string();
        assert_eq!(reason, "x of plugin a has the name x");
        assert_eq!(named[2].reason, Some(Reason::Reserved));
    }

    #[test]
    fn two_names_that_become_alike_are_kept_apart_and_the_unchanged_one_keeps_its_own() {
        let named = assign(PrefixPolicy::Always, &[("a", "b c"), ("a", "b_c")]);
        assert_eq!(named[1].public.as_deref(), Some("a_b_c"));
        assert_eq!(named[1].reason, None);
        let renamed = named[0].public.as_deref().unwrap();
        assert!(
            renamed.starts_with("a_b_c_") && renamed.len() == 14,
            "{renamed}"
        );
        assert!(matches!(named[0].reason, Some(Reason::Collision(_))));
    }

    #[test]
    fn every_name_is_within_what_clients_take() {
        let odd = "☃".repeat(50);
        let all = [("a", "a/b.c-d_e"), ("b", odd.as_str()), ("c", " ")];
        for policy in [
            PrefixPolicy::Always,
            PrefixPolicy::OnCollision,
            PrefixPolicy::Never,
        ] {
            for named in assign(policy, &all) {
                let name = named.public.unwrap();
                assert!((1..=MAX_NAME).contains(&name.len()), "{name}");
                assert!(
                    name.bytes()
                        .all(|c| c.is_ascii_alphanumeric() || b"_./-".contains(&c)),
                    "{name}"
                );
            }
        }
    }
}
