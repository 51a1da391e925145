//! The rules of the house that the compiler cannot hold: one module per rule.
//!
//! Every rule reports all that it finds, as `path:line: what, and how to mend it`. An exception is
//! written down beside its rule, with the reason.

mod architecture;
mod core_purity;
mod crates;
mod error_pages;
mod heads;
mod lengths;
mod rust_file;
mod spawns;
mod subjects;
mod words;

use std::fmt;
use std::path::Path;

use anyhow::Result;

use crate::codegen;
use crate::metadata::Metadata;
use crate::tree::Tree;

/// One breach of a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    path: String,
    /// From 1.
    line: usize,
    /// What is wrong and how to mend it.
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// All findings as lines, sorted by place.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let tree = Tree::of_repository(root)?;
    let mut findings = Vec::new();
    let sources = rust_file::read_all(&tree, &mut findings);

    crates::check(&tree, &Metadata::of_members(root)?, &mut findings);
    core_purity::check(&sources, &mut findings);
    subjects::check(&sources, &mut findings);
    spawns::check(&sources, &mut findings);
    heads::check(&sources, &mut findings);
    lengths::check(&tree, &mut findings);
    words::check(&tree, &mut findings);
    architecture::check(&tree, &mut findings);
    error_pages::check(&tree, &sources, &mut findings);

    findings.sort();
    let mut lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    lines.extend(codegen::drift(root)?);
    Ok(lines)
}

/// What the checks of one planted tree found, as lines; for their tests.
#[cfg(test)]
fn lines_of(check: impl FnOnce(&mut Vec<Finding>)) -> Vec<String> {
    let mut findings = Vec::new();
    check(&mut findings);
    findings.iter().map(Finding::to_string).collect()
}

#[cfg(test)]
mod tests {
    //! The rules hold for the repository itself, so that `make test` fails where they do not.

    use super::*;

    #[test]
    fn the_repository_keeps_its_rules_and_its_generated_code_is_fresh() -> Result<()> {
        let found = check(&crate::root()?)?;
        assert!(found.is_empty(), "\n{}", found.join("\n"));
        Ok(())
    }
}
