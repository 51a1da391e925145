//! What cargo-deny checks without a network, for machines that do not have it: licences, banned
//! crates and sources of everything in Cargo.lock that our targets build.
//!
//! `deny.toml` is the one place where the policy stands; both read it.

mod policy;

use std::collections::HashSet;
use std::path::Path;

use anyhow::Result;
use spdx::{Expression, ParseMode};

use crate::metadata::{Dependency, Metadata, Package};
use policy::Policy;

/// The policy's file, at the root of the repository.
const POLICY: &str = "deny.toml";

/// One line for each crate that the policy refuses.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let policy = Policy::read(&root.join(POLICY))?;
    let metadata = Metadata::of_everything(root, &policy.targets)?;
    let findings = judge(&metadata, &policy);
    if findings.is_empty() {
        println!("{} crates, all within {POLICY}", metadata.packages.len());
    }
    Ok(findings)
}

fn judge(metadata: &Metadata, policy: &Policy) -> Vec<String> {
    let built: Option<HashSet<&str>> = metadata
        .resolve
        .as_ref()
        .map(|resolve| resolve.nodes.iter().map(|node| node.id.as_str()).collect());
    let mut findings = Vec::new();
    for package in &metadata.packages {
        if built
            .as_ref()
            .is_none_or(|built| built.contains(package.id.as_str()))
        {
            let ours = metadata.workspace_members.contains(&package.id);
            let faults = [
                licence_fault(package, policy),
                source_fault(package, ours),
                ban_fault(package, policy),
                wildcard_fault(package, ours),
            ];
            findings.extend(faults.into_iter().flatten().map(|fault| {
                format!(
                    "Cargo.lock:1: {} {}: {fault}",
                    package.name, package.version
                )
            }));
        }
    }
    findings
}

fn licence_fault(package: &Package, policy: &Policy) -> Option<String> {
    let Some(text) = policy.licence_of(package) else {
        return Some(format!(
            "states no licence: read its own, and add a [[licenses.clarify]] to {POLICY}, or do \
             without the crate"
        ));
    };
    // Older crates write MIT/Apache-2.0 for MIT OR Apache-2.0.
    let expression = match Expression::parse_mode(text, ParseMode::LAX) {
        Ok(expression) => expression,
        Err(error) => return Some(format!("its licence {text:?} is no SPDX: {}", error.reason)),
    };
    let allowed = |request: &spdx::LicenseReq| policy.allows(&package.name, request);
    (!expression.evaluate(allowed)).then(|| {
        format!("its licence {text} is not within the allow-list of {POLICY}: do without the crate")
    })
}

fn source_fault(package: &Package, ours: bool) -> Option<String> {
    match &package.source {
        None if ours => None,
        None => Some("is a path outside the workspace: use a published version".to_owned()),
        // The registry's index is named so whatever mirror it is fetched from.
        Some(source) if is_default_registry(source) => None,
        Some(source) => Some(format!(
            "comes from {source}: use a version on the default registry"
        )),
    }
}

fn is_default_registry(source: &str) -> bool {
    let index = source
        .strip_prefix("registry+")
        .or_else(|| source.strip_prefix("sparse+"));
    index.is_some_and(|index| index.ends_with("/rust-lang/crates.io-index"))
}

fn ban_fault(package: &Package, policy: &Policy) -> Option<String> {
    let reason = policy.bans.get(&package.name)?;
    Some(format!("is banned: {reason}"))
}

/// A dependency of ours that takes any version would take a broken one.
fn wildcard_fault(package: &Package, ours: bool) -> Option<String> {
    let any = |one: &&Dependency| ours && one.req == "*" && one.path.is_none();
    let name = &package.dependencies.iter().find(any)?.name;
    Some(format!("takes any version of {name}: name the versions"))
}

#[cfg(test)]
mod tests {
    //! Crates that the policy accepts, and one planted fault of each sort.

    use super::*;
    use serde_json::json;

    const TEXT: &str = r#"
        [graph]
        targets = ["x86_64-unknown-linux-gnu"]
        [licenses]
        allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
        exceptions = [{ crate = "special", allow = ["MPL-2.0"] }]
        clarify = [{ crate = "silent", expression = "MIT", license-files = [] }]
        [bans]
        deny = [{ crate = "openssl-sys", reason = "we use rustls" }]
    "#;

    const DEFAULT: &str = "registry+https://example.invalid/rust-lang/crates.io-index";

    fn findings(name: &str, licence: Option<&str>, source: Option<&str>) -> Result<Vec<String>> {
        let metadata: Metadata = serde_json::from_value(json!({
            "packages": [{
                "name": name, "version": "1.0.0", "id": name, "source": source,
                "license": licence, "manifest_path": "",
                "dependencies": [{ "name": "loose", "kind": null, "req": "*" }],
            }],
            "workspace_members": ["ours"],
            "resolve": { "nodes": [{ "id": name }] },
        }))?;
        Ok(judge(&metadata, &Policy::parse(TEXT)?))
    }

    #[test]
    fn licences_within_the_list_pass_in_every_spelling() -> Result<()> {
        for licence in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0-only OR MIT",
            "MIT AND (Apache-2.0 OR BSL-1.0)",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert_eq!(
                findings("a", Some(licence), Some(DEFAULT))?,
                Vec::<String>::new()
            );
        }
        assert!(findings("special", Some("MPL-2.0"), Some(DEFAULT))?.is_empty());
        assert!(findings("silent", None, Some(DEFAULT))?.is_empty());
        Ok(())
    }

    #[test]
    fn licences_outside_the_list_are_found() -> Result<()> {
        for licence in [
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "MPL-2.0",
            "MIT WITH LLVM-exception",
        ] {
            let found = findings("a", Some(licence), Some(DEFAULT))?;
            assert!(
                found.concat().contains("is not within the allow-list"),
                "{licence}"
            );
        }
        assert!(
            findings("a", Some("free for all"), Some(DEFAULT))?
                .concat()
                .contains("no SPDX")
        );
        assert!(
            findings("a", None, Some(DEFAULT))?
                .concat()
                .contains("states no licence")
        );
        Ok(())
    }

    #[test]
    fn a_crate_of_ours_may_be_a_path_but_may_not_take_any_version() -> Result<()> {
        let found = findings("ours", Some("Apache-2.0"), None)?;
        assert_eq!(
            found,
            ["Cargo.lock:1: ours 1.0.0: takes any version of loose: name the versions"]
        );
        Ok(())
    }

    #[test]
    fn other_sources_and_banned_crates_are_found() -> Result<()> {
        for source in [
            "git+https://example.invalid/a",
            "registry+https://example.invalid/index",
        ] {
            let found = findings("a", Some("MIT"), Some(source))?;
            assert!(found.concat().contains("comes from"), "{found:?}");
        }
        assert!(
            findings("stray", Some("MIT"), None)?
                .concat()
                .contains("is a path")
        );
        let found = findings("openssl-sys", Some("MIT"), Some(DEFAULT))?;
        assert!(
            found.concat().contains("is banned: we use rustls"),
            "{found:?}"
        );
        Ok(())
    }
}
