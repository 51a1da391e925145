//! What `cargo metadata` says, as far as the checks need it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The answer of `cargo metadata --format-version 1`.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    pub packages: Vec<Package>,
    pub workspace_members: Vec<String>,
    /// Absent with `--no-deps`.
    pub resolve: Option<Resolve>,
}

#[derive(Debug, Deserialize)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub id: String,
    /// None for a crate of this repository.
    pub source: Option<String>,
    pub license: Option<String>,
    #[serde(default)]
    pub dependencies: Vec<Dependency>,
    pub manifest_path: String,
}

#[derive(Debug, Deserialize)]
pub struct Dependency {
    pub name: String,
    /// None is a normal dependency, else `dev` or `build`.
    pub kind: Option<String>,
    /// The versions that will do, `*` when none was named.
    #[serde(default)]
    pub req: String,
    /// Where it stands, if it is a crate of this repository.
    pub path: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Resolve {
    pub nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
pub struct Node {
    pub id: String,
}

impl Metadata {
    /// The crates of this repository alone, without looking at anything but their manifests.
    pub fn of_members(root: &Path) -> Result<Self> {
        Self::read(root, &["--no-deps", "--offline"])
    }

    /// All that is built for `targets`, as Cargo.lock has it.
    pub fn of_everything(root: &Path, targets: &[String]) -> Result<Self> {
        let mut arguments = vec!["--locked"];
        for target in targets {
            arguments.extend(["--filter-platform", target]);
        }
        Self::read(root, &arguments)
    }

    fn read(root: &Path, arguments: &[&str]) -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1"])
            .args(arguments)
            .current_dir(root)
            .output()
            .context("cannot run cargo metadata")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("cargo metadata failed: {}", said.trim());
        }
        serde_json::from_slice(&output.stdout).context("cargo metadata printed something unknown")
    }
}
