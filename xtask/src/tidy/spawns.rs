//! Every task and thread has an owner, a name and a cancel policy: only the task trackers spawn.
//!
//! Where that cannot be, the line or the one above it says `// tidy: allow(spawn): reason`.

use super::Finding;
use super::rust_file::{Kind, RustFile, Token};

/// Where spawning is at home, and why.
const ALLOWED: &[(&str, &str)] = &[
    ("mesh-runtime/src/tasks.rs", "the task tracker"),
    (
        "plugin-sdk/rust/src/tasks.rs",
        "the SDK's own task tracker, as it uses no crate of ours",
    ),
    ("tests/", "tests start what they please"),
    ("xtask/", "no part of a running mesh"),
];

const ESCAPE: &str = "// tidy: allow(spawn)";

/// Modules whose free functions spawn, and the functions.
const MODULES: &[&str] = &["tokio", "task", "thread"];
const FUNCTIONS: &[&str] = &["spawn", "spawn_local"];

pub fn check(sources: &[RustFile], findings: &mut Vec<Finding>) {
    for source in sources {
        if ALLOWED
            .iter()
            .any(|(place, _)| source.path.starts_with(place))
        {
            continue;
        }
        let tokens: Vec<&Token> = source.product_tokens().collect();
        for (index, token) in tokens.iter().enumerate() {
            let rest = tokens.get(index..).unwrap_or_default();
            let Some(spawn) = spawned(rest) else {
                continue;
            };
            let what = match escape(source, token.line) {
                Escape::WithReason => continue,
                Escape::WithoutReason => format!("give a reason: `{ESCAPE}: reason`"),
                Escape::None => format!(
                    "{spawn} leaves a task without an owner: spawn it through the task tracker, or \
                     say `{ESCAPE}: reason`"
                ),
            };
            findings.push(Finding::new(&source.path, token.line, what));
        }
    }
}

/// The spawning path that these tokens begin with: `tokio::spawn`, `thread::Builder::new`,
/// `task::{.., spawn, ..}`.
fn spawned(tokens: &[&Token]) -> Option<String> {
    let [module, colon, second_colon, rest @ ..] = tokens else {
        return None;
    };
    let Kind::Ident(module) = &module.kind else {
        return None;
    };
    if !MODULES.contains(&module.as_str()) || !colon.is_punct(':') || !second_colon.is_punct(':') {
        return None;
    }
    let first = rest.first()?;
    match &first.kind {
        Kind::Ident(name) if FUNCTIONS.contains(&name.as_str()) => {
            Some(format!("{module}::{name}"))
        }
        Kind::Ident(name) if module == "thread" && name == "Builder" => {
            Some("thread::Builder".to_owned())
        }
        // Imported out of a list, it is called by its bare name later.
        Kind::Open('{') => rest
            .iter()
            .take_while(|token| !matches!(token.kind, Kind::Close('{')))
            .find_map(|token| match &token.kind {
                Kind::Ident(name) if FUNCTIONS.contains(&name.as_str()) => {
                    Some(format!("{module}::{name}"))
                }
                _ => None,
            }),
        _ => None,
    }
}

enum Escape {
    None,
    WithoutReason,
    WithReason,
}

/// The escape on this line or on the one above it.
fn escape(source: &RustFile, line: usize) -> Escape {
    let above = line.saturating_sub(1);
    for candidate in [source.line(line), source.line(above)] {
        if let Some((_, rest)) = candidate.split_once(ESCAPE) {
            let reason = rest.strip_prefix(':').unwrap_or("").trim();
            return if reason.is_empty() {
                Escape::WithoutReason
            } else {
                Escape::WithReason
            };
        }
    }
    Escape::None
}

#[cfg(test)]
mod tests {
    //! Spawns planted in all spellings.

    use super::super::lines_of;
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        match RustFile::parse(path, text.to_owned()) {
            Ok(file) => lines_of(|found| check(&[file], found)),
            Err(finding) => panic!("{finding}"),
        }
    }

    #[test]
    fn every_spelling_of_a_spawn_is_found() {
        for text in [
            "fn a() { tokio::spawn(b); }",
            "fn a() { tokio::task::spawn(b); }",
            "fn a() { task::spawn_local(b); }",
            "fn a() { std::thread::spawn(b); }",
            "fn a() { std::thread::Builder::new(); }",
            "use tokio::{sync::mpsc, spawn};",
        ] {
            assert_eq!(findings("router/src/a.rs", text).len(), 1, "{text}");
        }
    }

    #[test]
    fn children_trackers_tests_and_awaited_work_may_spawn() {
        for text in [
            "fn a() { Command::new(b).spawn(); }",
            "fn a() { tasks.spawn(\"name\", b); }",
            "fn a() { tokio::task::spawn_blocking(b); }",
            "#[cfg(test)] mod tests { fn a() { tokio::spawn(b); } }",
        ] {
            assert!(findings("router/src/a.rs", text).is_empty(), "{text}");
        }
        let spawn = "fn a() { tokio::spawn(b); }";
        assert!(findings("mesh-runtime/src/tasks.rs", spawn).is_empty());
        assert!(findings("tests/src/harness.rs", spawn).is_empty());
    }

    #[test]
    fn an_escape_needs_a_reason() {
        let with = "fn a() {\n    // tidy: allow(spawn): joined below\n    tokio::spawn(b);\n}";
        assert!(findings("router/src/a.rs", with).is_empty());
        let without = "fn a() {\n    tokio::spawn(b); // tidy: allow(spawn)\n}";
        assert!(
            findings("router/src/a.rs", without)
                .concat()
                .contains("give a reason")
        );
    }
}
