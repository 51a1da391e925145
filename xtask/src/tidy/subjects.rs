//! NATS subjects are formed and parsed in one module: no other source spells one.

use super::Finding;
use super::rust_file::{Kind, RustFile};

/// How a subject of ours or of JetStream begins.
const BEGINNINGS: &[&str] = &["pm.", "$JS", "$KV", "_INBOX"];

/// A place, the beginnings it may spell, and why.
const ALLOWED: &[(&str, &[&str], &str)] = &[
    ("mesh-core/src/subject.rs", BEGINNINGS, "it is the module"),
    ("mesh-core/src/subject/", BEGINNINGS, "it is the module"),
    (
        "mesh-bus/src/",
        &["$JS", "$KV"],
        "the names of JetStream's own interface, which no other crate may know",
    ),
    (
        "xtask/src/tidy/subjects.rs",
        BEGINNINGS,
        "this list of what to look for",
    ),
];

pub fn check(sources: &[RustFile], findings: &mut Vec<Finding>) {
    for source in sources {
        for token in source.product_tokens() {
            let Kind::Str(text) = &token.kind else {
                continue;
            };
            let begins = |beginning: &&&str| text.starts_with(**beginning);
            let Some(beginning) = BEGINNINGS.iter().find(begins) else {
                continue;
            };
            let allowed = ALLOWED.iter().any(|(place, beginnings, _)| {
                source.path.starts_with(place) && beginnings.contains(beginning)
            });
            if !allowed {
                let what = format!(
                    "a NATS subject ({text:?}) is spelled here: form or parse it with \
                     mesh_core::subject"
                );
                findings.push(Finding::new(&source.path, token.line, what));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Subjects planted where they may and may not stand.

    use super::super::lines_of;
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        match RustFile::parse(path, text.to_owned()) {
            Ok(file) => lines_of(|found| check(&[file], found)),
            Err(finding) => panic!("{finding}"),
        }
    }

    #[test]
    fn a_subject_outside_the_module_is_found() {
        let text = "//! a\nfn b() {\n    format!(\"pm.{}.call\", c);\n}\n";
        let found = findings("router/src/call.rs", text);
        assert_eq!(found.len(), 1);
        assert!(found.concat().starts_with("router/src/call.rs:3: "));
        assert!(findings("mesh-core/src/subject.rs", text).is_empty());
        assert!(findings("tests/tests/call.rs", text).is_empty());
    }

    #[test]
    fn the_bus_may_name_what_jetstream_named_but_no_subject_of_ours() {
        assert!(findings("mesh-bus/src/kv.rs", "const A: &str = \"$KV.a\";").is_empty());
        assert_eq!(
            findings("mesh-bus/src/kv.rs", "const A: &str = \"pm.a\";").len(),
            1
        );
        assert_eq!(
            findings("agent-node/src/a.rs", "const A: &str = \"$JS.a\";").len(),
            1
        );
    }

    #[test]
    fn a_subject_in_a_comment_or_inside_a_sentence_is_none() {
        let text = "/// pm.default.call\nfn a() { b(\"at 5 pm. or later\"); }";
        assert!(findings("router/src/a.rs", text).is_empty());
    }
}
