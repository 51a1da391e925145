//! What shows that something was wrong: the calls, their lines in the ledger, and the logs.

use std::path::Path;

use harness::chaos::account::Violation;
use harness::chaos::ledger;
use harness::chaos::world::World;

/// Calls that are shown in full.
const SHOWN: usize = 10;

/// Lines of each log that are shown.
const TAIL: usize = 12;

/// Prints the first violations and keeps logs and ledgers in a folder.
pub fn show(world: &World, folder: &Path, found: &[Violation]) -> anyhow::Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    world.keep(folder)?;
    let all: Vec<String> = found.iter().map(|one| format!("{one:?}\n")).collect();
    std::fs::write(folder.join("violations.txt"), all.concat())?;
    println!("  {} calls were wrong:", found.len());
    for Violation { id, wrong, what } in found.iter().take(SHOWN) {
        println!("  - call {id}: {wrong:?}: {what}");
        for line in ledger::lines_of(world.ledger(), *id) {
            println!("      {line}");
        }
    }
    for file in std::fs::read_dir(folder)?.flatten() {
        let path = file.path();
        if path.extension().is_some_and(|end| end == "log") {
            let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            println!("  the end of {}:", path.display());
            for line in &lines[lines.len().saturating_sub(TAIL)..] {
                let line: String = line.chars().take(300).collect();
                println!("      {line}");
            }
        }
    }
    println!("  all logs and ledgers: {}", folder.display());
    Ok(())
}
