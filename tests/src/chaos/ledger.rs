//! Reads what the plugins wrote.

use std::collections::HashMap;
use std::path::Path;

/// What the ledger says of one call.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub begins: u16,
    pub ends: u16,
    /// A try of the client's that began: the only one where one began.
    pub attempt: u32,
}

/// All entries by call.
pub type Entries = HashMap<u64, Entry>;

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let all = std::fs::read_dir(folder).expect("the ledger's folder");
    let mut files: Vec<_> = all.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "ledger"));
    files.sort();
    files
}

/// Reads the ledgers of all processes that ever wrote one. A line is whole or not there.
pub fn read(folder: &Path) -> Entries {
    let mut entries = Entries::new();
    for path in files(folder) {
        let text = std::fs::read_to_string(&path).expect("a ledger");
        for line in text.lines() {
            note(&mut entries, line).unwrap_or_else(|| panic!("{}: {line:?}", path.display()));
        }
    }
    entries
}

fn note(entries: &mut Entries, line: &str) -> Option<()> {
    let mut words = line.split(' ');
    let (mark, id, attempt) = (words.next()?, words.next()?, words.next()?);
    let entry = entries.entry(id.parse().ok()?).or_default();
    match mark {
        "B" => {
            entry.begins += 1;
            entry.attempt = attempt.parse().ok()?;
        }
        "E" => entry.ends += 1,
        _ => return None,
    }
    Some(())
}

/// The lines of one call, each with its file.
pub fn lines_of(folder: &Path, id: u64) -> Vec<String> {
    let word = format!(" {id} ");
    let mut found = Vec::new();
    for path in files(folder) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let lines = text.lines().filter(|line| line.contains(&word));
        found.extend(lines.map(|line| format!("{name}: {line}")));
    }
    found
}

/// The size of all of it: it stands still when nobody works any more.
pub fn size(folder: &Path) -> u64 {
    let sizes = files(folder)
        .into_iter()
        .filter_map(|path| path.metadata().ok());
    sizes.map(|meta| meta.len()).sum()
}
