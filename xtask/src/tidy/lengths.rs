//! A file holds one thing: sources over 600 lines are refused (about 400 is long already).

use super::Finding;
use super::rust_file::is_generated;
use crate::tree::Tree;

const MOST_LINES: usize = 600;

const ENDINGS: &[&str] = &[".rs", ".py", ".sh", ".ts", ".go"];

/// A longer file, and why it reads easier in one piece.
const ALLOWED: &[(&str, &str)] = &[];

pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for path in tree.files() {
        let source = ENDINGS.iter().any(|ending| path.ends_with(ending)) && !is_generated(path);
        if !source || ALLOWED.iter().any(|(allowed, _)| *allowed == path) {
            continue;
        }
        let lines = tree.text(path).map_or(0, |text| text.lines().count());
        if lines > MOST_LINES {
            let what =
                format!("{lines} lines, {MOST_LINES} is the most: split it by what it holds");
            findings.push(Finding::new(path, MOST_LINES + 1, what));
        }
    }
}

#[cfg(test)]
mod tests {
    //! A file of 601 lines.

    use super::super::lines_of;
    use super::*;
    use anyhow::Result;

    #[test]
    fn a_long_source_is_found_and_a_long_generated_one_is_not() -> Result<()> {
        let (long, most) = ("\n".repeat(601), "\n".repeat(600));
        let (_folder, tree) = Tree::planted(&[
            ("a/src/long.rs", &long),
            ("a/src/most.rs", &most),
            ("a/src/generated/mod.rs", &long),
            ("Cargo.lock", &long),
        ])?;
        let found = lines_of(|found| check(&tree, found));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found.concat().starts_with("a/src/long.rs:601: 601 lines"));
        Ok(())
    }
}
