//! Every public item has an example in its documentation, which `cargo test` runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// All sources but generated ones and tests.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() && name != "generated" {
            sources(&path, found)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") && name != "tests.rs" {
            found.push(path);
        }
    }
    Ok(())
}

/// The items of a source whose documentation has no example, as `line: item`.
fn without_example(text: &str) -> Vec<String> {
    const ITEMS: &[&str] = &[
        "pub fn ",
        "pub async fn ",
        "pub struct ",
        "pub enum ",
        "pub trait ",
        "pub const ",
        "pub type ",
    ];
    let mut found = Vec::new();
    let mut has_example = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let is_item = ITEMS.iter().any(|item| line.starts_with(item));
        if line.starts_with("///") {
            has_example |= line.contains("```");
        } else if !line.starts_with('#') && !line.starts_with("//") {
            if is_item && !has_example {
                found.push(format!("{}: {line}", number + 1));
            }
            // Attributes between the documentation and its item may span lines.
            has_example &= !(is_item || line.is_empty() || line.ends_with([';', '{', '}']));
        }
    }
    found
}

#[test]
fn every_public_item_has_an_example() -> io::Result<()> {
    let mut files = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    sources(&root, &mut files)?;
    assert!(files.len() > 30, "{files:?}");
    let mut missing = Vec::new();
    for file in &files {
        let name = file.strip_prefix(&root).unwrap_or(file).display();
        for item in without_example(&fs::read_to_string(file)?) {
            missing.push(format!("src/{name}:{item}"));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    Ok(())
}

#[test]
fn an_item_without_an_example_is_found() {
    let text =
        "/// A.\n///\n/// ```\n/// ```\n#[must_use]\npub fn a() {}\n\n/// B.\npub fn b() {}\n";
    assert_eq!(without_example(text), ["9: pub fn b() {}"]);
}
