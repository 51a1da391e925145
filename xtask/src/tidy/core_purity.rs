//! mesh-core, mesh-graph and mesh-engine decide and do nothing else: no IO, no clock, no randomness. They stay small.

use super::Finding;
use super::rust_file::{Kind, RustFile, Token};

const PURE: [&str; 3] = ["mesh-core", "mesh-graph", "mesh-engine"];

/// The most lines of each, tests not counted: beyond it a crate becomes where everything ends.
const MOST_LINES: usize = 6_000;

/// Ends of paths that reach out of the process, the clock or chance.
const IMPURE: &[[&str; 2]] = &[
    ["std", "fs"],
    ["std", "net"],
    ["std", "process"],
    ["std", "thread"],
    ["std", "env"],
    ["SystemTime", "now"],
    ["Instant", "now"],
    ["Uuid", "now_v7"],
    ["Uuid", "new_v4"],
];

pub fn check(sources: &[RustFile], findings: &mut Vec<Finding>) {
    for name in PURE {
        check_crate(name, sources, findings);
    }
}

fn check_crate(name: &str, sources: &[RustFile], findings: &mut Vec<Finding>) {
    let folder = format!("{name}/src/");
    let mut lines = 0;
    for source in sources.iter().filter(|s| s.path.starts_with(&folder)) {
        lines += source.product_lines();
        let tokens: Vec<&Token> = source.product_tokens().collect();
        for window in tokens.windows(4) {
            let [first, colon, second_colon, second] = window else {
                continue;
            };
            let path = colon.is_punct(':') && second_colon.is_punct(':');
            let (Kind::Ident(first), Kind::Ident(last)) = (&first.kind, &second.kind) else {
                continue;
            };
            if path && IMPURE.contains(&[first.as_str(), last.as_str()]) {
                let what = format!(
                    "{name} uses {first}::{last}: it does no IO and has no clock and no chance, \
                     take the value as an argument"
                );
                findings.push(Finding::new(&source.path, second.line, what));
            }
        }
    }
    if lines > MOST_LINES {
        let what = format!(
            "{name} has {lines} lines without tests, {MOST_LINES} is the most: move what only \
             one crate needs to that crate"
        );
        findings.push(Finding::new(&format!("{folder}lib.rs"), 1, what));
    }
}

#[cfg(test)]
mod tests {
    //! A clock, a file and too many lines planted in the core.

    use super::super::lines_of;
    use super::*;

    fn findings(path: &str, text: String) -> Vec<String> {
        match RustFile::parse(path, text) {
            Ok(file) => lines_of(|found| check(&[file], found)),
            Err(finding) => panic!("{finding}"),
        }
    }

    #[test]
    fn a_clock_in_the_core_is_found_but_not_in_its_tests_or_elsewhere() {
        let clock = "//! a\nfn b() { Instant::now(); }\n".to_owned();
        let found = findings("mesh-engine/src/engine.rs", clock.clone());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found.concat().starts_with("mesh-engine/src/engine.rs:2: "));
        assert!(findings("router/src/lib.rs", clock).is_empty());
        let test = "#[cfg(test)] mod tests { fn b() { std::fs::read(c); } }".to_owned();
        assert!(findings("mesh-engine/src/engine.rs", test).is_empty());
    }

    #[test]
    fn a_core_that_grew_too_long_is_found() {
        let found = findings("mesh-engine/src/engine.rs", "\n".repeat(6_001));
        assert!(found.concat().contains("has 6001 lines"), "{found:?}");
    }
}
