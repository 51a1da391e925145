//! What `deny.toml` says, as far as we check it ourselves.
//!
//! Keys of cargo-deny that are not checked here are left alone; a key that is read wrongly would
//! make the check weaker than it looks, so what is read is read strictly.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use spdx::{LicenseReq, Licensee};

use crate::metadata::Package;

/// The policy, ready to ask.
#[derive(Debug)]
pub struct Policy {
    /// The target triples whose dependencies count.
    pub targets: Vec<String>,
    /// A banned crate's name, and why.
    pub bans: HashMap<String, String>,
    allow: Vec<Licensee>,
    /// What one crate may have beyond `allow`.
    exceptions: HashMap<String, Vec<Licensee>>,
    /// The licence of crates that state none.
    clarifications: HashMap<String, String>,
}

impl Policy {
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    pub fn parse(text: &str) -> Result<Self> {
        let file: File = toml::from_str(text)?;
        if file.graph.targets.is_empty() {
            bail!("graph.targets is empty: name the targets we build for");
        }
        let mut exceptions = HashMap::new();
        for exception in &file.licenses.exceptions {
            exceptions.insert(exception.name.clone(), licensees(&exception.allow)?);
        }
        let clarifications = file.licenses.clarify.into_iter();
        Ok(Self {
            targets: file.graph.targets,
            bans: file
                .bans
                .deny
                .into_iter()
                .map(|ban| (ban.name, ban.reason))
                .collect(),
            allow: licensees(&file.licenses.allow)?,
            exceptions,
            clarifications: clarifications
                .map(|one| (one.name, one.expression))
                .collect(),
        })
    }

    /// The SPDX expression that counts for a crate.
    pub fn licence_of<'a>(&'a self, package: &'a Package) -> Option<&'a str> {
        let clarified = self.clarifications.get(&package.name);
        clarified.or(package.license.as_ref()).map(String::as_str)
    }

    /// Whether the allow-list, with the exceptions for this crate, has what is asked.
    pub fn allows(&self, name: &str, request: &LicenseReq) -> bool {
        let more = self
            .exceptions
            .get(name)
            .map(Vec::as_slice)
            .unwrap_or_default();
        self.allow
            .iter()
            .chain(more)
            .any(|licensee| licensee.satisfies(request))
    }
}

fn licensees(names: &[String]) -> Result<Vec<Licensee>> {
    let unique: HashSet<&String> = names.iter().collect();
    if unique.len() != names.len() {
        bail!("a licence stands in a list twice");
    }
    names
        .iter()
        .map(|name| Licensee::parse(name).map_err(|error| anyhow!("licence {name:?}: {error}")))
        .collect()
}

#[derive(Deserialize)]
struct File {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
    #[serde(default)]
    clarify: Vec<Clarification>,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Clarification {
    #[serde(rename = "crate")]
    name: String,
    expression: String,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}
