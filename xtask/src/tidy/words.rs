//! Nothing half done is committed: the words that mark it are refused in every file.

use super::Finding;
use crate::tree::Tree;

/// Put together so that this file does not hold them.
const WORDS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("unimple", "mented!"),
    concat!("to", "do!"),
];

pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for path in tree.files() {
        let text = tree.text(path).unwrap_or_default();
        for (index, line) in text.lines().enumerate() {
            for word in WORDS.iter().filter(|word| holds(line, word)) {
                let what = format!("{word}: finish it, or open an issue and leave this out");
                findings.push(Finding::new(path, index + 1, what));
            }
        }
    }
}

/// Whether `word` stands in `line` by itself, not as a part of a longer one.
fn holds(line: &str, word: &str) -> bool {
    let part = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(start, found)| {
        let before = line.get(..start).and_then(|text| text.chars().next_back());
        let after = line
            .get(start + found.len()..)
            .and_then(|text| text.chars().next());
        let ends = word.ends_with('!') || !after.is_some_and(part);
        ends && !before.is_some_and(part)
    })
}

#[cfg(test)]
mod tests {
    //! Each word planted, and words that only hold one.

    use super::super::lines_of;
    use super::*;
    use anyhow::Result;

    #[test]
    fn each_word_is_found_in_any_file_with_its_line() -> Result<()> {
        for word in WORDS {
            let text = format!("first\n// {word} later\n");
            for path in ["docs/a.md", "a/src/lib.rs", "Makefile"] {
                let (_folder, tree) = Tree::planted(&[(path, &text)])?;
                let found = lines_of(|found| check(&tree, found));
                assert_eq!(found.len(), 1, "{found:?}");
                assert!(found.concat().starts_with(&format!("{path}:2: ")));
            }
        }
        Ok(())
    }

    #[test]
    fn a_longer_word_that_holds_one_passes() -> Result<()> {
        let text = concat!("TO", "DOS mas", "to", "do!()\n", "to", "do = 1\n");
        let (_folder, tree) = Tree::planted(&[("a.txt", text)])?;
        assert_eq!(lines_of(|found| check(&tree, found)), Vec::<String>::new());
        Ok(())
    }
}
