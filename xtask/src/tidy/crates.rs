//! Which crate may depend on which, and which outside crates only some may use.
//!
//! The table is that of ARCHITECTURE.md. A crate that is not in it is a finding, so that a new one
//! gets its row.

use super::Finding;
use crate::metadata::{Dependency, Metadata, Package};
use crate::tree::Tree;

/// Every library of the product.
const LIBRARIES: &[&str] = &[
    "mesh-core",
    "mesh-graph",
    "mesh-engine",
    "mesh-proto",
    "mesh-bus",
    "mesh-runtime",
    "router",
    "coordinator",
    "agent-node",
    "gateway",
    "plugmesh-sdk",
    "quiet-socket",
    "heap-trim",
];

/// A crate and the crates of ours that it may use.
const EDGES: &[(&str, &[&str])] = &[
    ("mesh-core", &[]),
    ("mesh-graph", &["mesh-core"]),
    ("mesh-engine", &["mesh-core", "mesh-graph"]),
    ("mesh-proto", &["mesh-core"]),
    ("mesh-bus", &["mesh-core", "mesh-proto"]),
    ("mesh-runtime", &["mesh-core", "heap-trim"]),
    ("router", &["mesh-core", "mesh-proto", "mesh-bus"]),
    (
        "coordinator",
        &[
            "mesh-core",
            "mesh-graph",
            "mesh-engine",
            "mesh-proto",
            "mesh-bus",
            "mesh-runtime",
        ],
    ),
    (
        "agent-node",
        &[
            "mesh-core",
            "mesh-proto",
            "mesh-bus",
            "mesh-runtime",
            "router",
            "quiet-socket",
        ],
    ),
    (
        "gateway",
        &[
            "mesh-core",
            "mesh-proto",
            "mesh-bus",
            "mesh-runtime",
            "router",
        ],
    ),
    // A plugin's author gets the SDK alone, and what both ends of its socket are.
    ("plugmesh-sdk", &["quiet-socket"]),
    ("quiet-socket", &[]),
    ("heap-trim", &[]),
    ("cli", LIBRARIES),
    ("calculator", &["plugmesh-sdk"]),
    ("time", &["plugmesh-sdk"]),
    ("planner", &["plugmesh-sdk"]),
    ("xtask", &[]),
];

/// The one crate that may use all of ours, as it tests them together.
const TESTS: &str = "mesh-tests";

/// An outside crate, who alone may use it, and why.
const CONFINED: &[(&str, &[&str], &str)] = &[(
    "async-nats",
    // The benchmarks of the tests measure bare NATS beside ours.
    &["mesh-bus", TESTS],
    "only mesh-bus knows NATS: use its types",
)];

/// Outside crates that would bring IO, a clock or randomness into them.
const IMPURE: &[&str] = &[
    "tokio",
    "tokio-stream",
    "tokio-util",
    "tonic",
    "async-nats",
    "hyper",
    "axum",
    "rustix",
    "socket2",
    "rand",
    "fastrand",
    "getrandom",
];

/// The crates that decide and do nothing else.
const PURE: &[&str] = &["mesh-core", "mesh-graph", "mesh-engine"];

/// The most normal dependencies that each of them may have.
const CORE_DEPENDENCIES: usize = 6;

pub fn check(tree: &Tree, metadata: &Metadata, findings: &mut Vec<Finding>) {
    let members: Vec<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    for package in &metadata.packages {
        let manifest = manifest_of(tree, package);
        let mut found = |dependency: &str, what: String| {
            let line = line_of(tree, &manifest, dependency);
            findings.push(Finding::new(&manifest, line, what));
        };
        let row = EDGES.iter().find(|(name, _)| *name == package.name);
        if row.is_none() && package.name != TESTS {
            found(
                "name",
                format!(
                    "crate {} is not in the table of crates: give it a row in ARCHITECTURE.md and \
                     in xtask/src/tidy/crates.rs",
                    package.name
                ),
            );
            continue;
        }
        for dependency in &package.dependencies {
            if let Some(what) = fault(package, row.map(|(_, may)| *may), dependency, &members) {
                found(&dependency.name, what);
            }
        }
        let normal = package.dependencies.iter().filter(|d| d.kind.is_none());
        let count = normal.count();
        if PURE.contains(&package.name.as_str()) && count > CORE_DEPENDENCIES {
            found(
                "[dependencies]",
                format!(
                    "{} has {count} dependencies, {CORE_DEPENDENCIES} is the most: move what needs \
                     the new one to another crate",
                    package.name
                ),
            );
        }
    }
}

/// What is wrong with this dependency of this package, if anything. `may` is None for the tests.
fn fault(
    package: &Package,
    may: Option<&[&str]>,
    dependency: &Dependency,
    members: &[&str],
) -> Option<String> {
    let (user, used) = (package.name.as_str(), dependency.name.as_str());
    if members.contains(&used) {
        let allowed = may.is_none_or(|may| may.contains(&used));
        return (!allowed).then(|| {
            let allowed = may.filter(|may| !may.is_empty());
            let list = allowed.map_or("no crate of ours".to_owned(), |may| may.join(", "));
            format!("{user} may not depend on {used}, it may use {list}: move the code")
        });
    }
    if PURE.contains(&user) && IMPURE.contains(&used) {
        return Some(format!(
            "{user} may not depend on {used}, it does no IO and has no clock and no chance: take \
             what it gives as an argument"
        ));
    }
    CONFINED
        .iter()
        .find(|(name, users, _)| *name == used && !users.contains(&user))
        .map(|(_, _, why)| format!("{user} may not depend on {used}: {why}"))
}

/// The manifest's path in the tree.
fn manifest_of(tree: &Tree, package: &Package) -> String {
    let path = std::path::Path::new(&package.manifest_path);
    let root = tree.root().canonicalize().unwrap_or_default();
    let relative = path
        .strip_prefix(tree.root())
        .or_else(|_| path.strip_prefix(&root))
        .unwrap_or(path);
    relative.to_string_lossy().into_owned()
}

/// The first line that begins with `word`, or 1.
fn line_of(tree: &Tree, manifest: &str, word: &str) -> usize {
    let text = tree.text(manifest).unwrap_or_default();
    let begins = |line: &str| {
        line.strip_prefix(word)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '.', '=']))
    };
    text.lines().position(begins).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    //! Planted edges that the table does not have.

    use super::super::lines_of;
    use super::*;
    use anyhow::Result;
    use serde_json::{Value, json};

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Value {
        let dependencies: Vec<Value> = dependencies
            .iter()
            .map(|(name, kind)| json!({ "name": name, "kind": kind }))
            .collect();
        json!({
            "name": name, "version": "0.1.0", "id": name, "source": null, "license": null,
            "dependencies": dependencies, "manifest_path": format!("{name}/Cargo.toml"),
        })
    }

    fn findings(packages: Vec<Value>) -> Result<Vec<String>> {
        let metadata: Metadata =
            serde_json::from_value(json!({ "packages": packages, "workspace_members": [] }))?;
        let manifest = "[package]\nname = \"a\"\n[dependencies]\ntokio.workspace = true\n";
        let (_folder, tree) = Tree::planted(&[("mesh-core/Cargo.toml", manifest)])?;
        Ok(lines_of(|found| check(&tree, &metadata, found)))
    }

    #[test]
    fn edges_of_the_table_and_those_of_the_tests_pass() -> Result<()> {
        let found = findings(vec![
            package("mesh-core", &[("serde", None)]),
            package("mesh-bus", &[("mesh-core", None), ("async-nats", None)]),
            package("mesh-tests", &[("mesh-bus", None), ("async-nats", None)]),
        ])?;
        assert_eq!(found, Vec::<String>::new());
        Ok(())
    }

    #[test]
    fn an_edge_that_is_not_in_the_table_is_found_even_in_dev_dependencies() -> Result<()> {
        let found = findings(vec![
            package("gateway", &[("coordinator", None)]),
            package("coordinator", &[]),
            package("plugmesh-sdk", &[("mesh-core", Some("dev"))]),
            package("mesh-core", &[]),
        ])?;
        assert_eq!(found.len(), 2, "{found:?}");
        let text = found.join("\n");
        assert!(text.contains("gateway/Cargo.toml:1: gateway may not depend on coordinator"));
        assert!(text.contains("plugmesh-sdk may not depend on mesh-core, it may use quiet-socket"));
        Ok(())
    }

    #[test]
    fn nats_outside_the_bus_and_tokio_in_the_core_are_found_with_their_line() -> Result<()> {
        let found = findings(vec![
            package("router", &[("async-nats", None)]),
            package("mesh-core", &[("tokio", None)]),
        ])?;
        let text = found.join("\n");
        assert!(
            text.contains("router may not depend on async-nats"),
            "{text}"
        );
        assert!(text.contains("mesh-core/Cargo.toml:4: mesh-core may not depend on tokio"));
        Ok(())
    }

    #[test]
    fn a_seventh_dependency_of_the_core_and_a_crate_without_a_row_are_found() -> Result<()> {
        let seven = ["a", "b", "c", "d", "e", "f", "g"].map(|name| (name, None));
        let found = findings(vec![package("mesh-core", &seven), package("stray", &[])])?;
        let text = found.join("\n");
        assert!(text.contains("mesh-core/Cargo.toml:3: mesh-core has 7 dependencies"));
        assert!(text.contains("crate stray is not in the table"), "{text}");
        Ok(())
    }
}
