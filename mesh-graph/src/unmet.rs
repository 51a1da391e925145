//! Needs that nobody fulfils, as a line for a person that names both sides.

use std::fmt;

use super::{Graph, NeedOf, Needed, label};
use mesh_core::manifest::Manifest;

/// How many of those who do not fit a line names.
const NAMED: usize = 5;

/// A need that nobody fulfils who runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    /// `name@version` of the one that needs.
    pub from: String,
    /// The need as written, such as `calculator ^2.0`.
    pub requirement: String,
    /// What is here instead.
    pub instead: Instead,
}

/// What is here instead of what is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instead {
    /// No plugin of that name, in any version.
    NoPlugin,
    /// Nobody who provides the capability, in any version.
    NoProvider,
    /// Only other versions of the plugin.
    OtherVersions(Vec<String>),
    /// Only plugins whose version does not fit, as `name@version`.
    OtherProviders(Vec<String>),
    /// Those who fit, as `name@version`, but none of them is active.
    NotActive(Vec<String>),
}

impl Unmet {
    pub(super) fn of(graph: &Graph, manifest: &Manifest, need: NeedOf<'_>) -> Self {
        let labels = |found: Vec<&Manifest>| -> Vec<String> {
            let mut labels: Vec<String> = found.into_iter().map(label).collect();
            labels.dedup();
            labels
        };
        let fitting: Vec<&Manifest> = graph.providers(need).map(|(_, m)| &**m).collect();
        let others: Vec<&Manifest> = graph.offers(need.needed).map(|(_, m)| &**m).collect();
        let instead = match need.needed {
            _ if !fitting.is_empty() => Instead::NotActive(labels(fitting)),
            Needed::Plugin(_) if others.is_empty() => Instead::NoPlugin,
            Needed::Capability(_) if others.is_empty() => Instead::NoProvider,
            Needed::Plugin(_) => {
                let mut versions: Vec<String> = others
                    .iter()
                    .map(|other| other.version.to_string())
                    .collect();
                versions.dedup();
                Instead::OtherVersions(versions)
            }
            Needed::Capability(_) => Instead::OtherProviders(labels(others)),
        };
        Self {
            from: label(manifest),
            requirement: need.to_string(),
            instead,
        }
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} needs {}", self.from, self.requirement)?;
        match &self.instead {
            Instead::NoPlugin => f.write_str(", which is not here"),
            Instead::NoProvider => f.write_str(", which no plugin here provides"),
            Instead::OtherVersions(versions) => {
                let verb = if versions.len() == 1 { "is" } else { "are" };
                write!(f, ", but only {} {verb} here", list(versions))
            }
            Instead::OtherProviders(labels) => {
                let verb = if labels.len() == 1 {
                    "provides"
                } else {
                    "provide"
                };
                write!(f, ", but only {} {verb} it", list(labels))
            }
            Instead::NotActive(labels) => {
                let verb = if labels.len() == 1 { "is" } else { "are" };
                write!(f, ", but {} {verb} not active", list(labels))
            }
        }
    }
}

fn list(names: &[String]) -> String {
    let named = names
        .iter()
        .take(NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
