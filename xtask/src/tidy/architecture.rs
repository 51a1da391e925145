//! ARCHITECTURE.md and README.md stay true: every path that they name exists.
//!
//! A path is text in backticks that holds a `/` or ends like a file of ours. What is no path but
//! looks like one (an address, a method's name) is told apart by how it begins.

use super::Finding;
use crate::tree::Tree;

const PAGES: [&str; 2] = ["ARCHITECTURE.md", "README.md"];

const ENDINGS: &[&str] = &[".rs", ".md", ".proto"];

/// Beginnings of what is no path of the repository, and what it is.
const NO_PATHS: &[(&str, &str)] = &[
    ("/", "an address on a server, or a place on a machine"),
    ("~", "a place on a machine"),
    ("http", "an address"),
    ("plugmesh.", "a gRPC method"),
    ("grpc.", "a gRPC method"),
    ("tools/", "an MCP method"),
    ("resources/", "an MCP method"),
    ("prompts/", "an MCP method"),
    ("notifications/", "an MCP method"),
    ("completion/", "an MCP method"),
    ("logging/", "an MCP method"),
    ("application/", "a media type"),
    ("text/", "a media type"),
    ("target/", "built, not checked in"),
    (".tools/", "fetched, not checked in"),
    (".plugmesh/", "a mesh's own data"),
];

pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for page in PAGES {
        check_page(tree, page, findings);
    }
}

fn check_page(tree: &Tree, page: &str, findings: &mut Vec<Finding>) {
    let text = tree.text(page).unwrap_or_default();
    let mut in_block = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
            continue;
        }
        if in_block {
            continue;
        }
        // What stands between backticks is every second piece.
        for quoted in line.split('`').skip(1).step_by(2) {
            for path in paths(quoted) {
                if !exists(tree, &path) {
                    let what = format!("`{path}` does not exist: name what is there now");
                    findings.push(Finding::new(page, index + 1, what));
                }
            }
        }
    }
}

/// The paths that a quoted piece names: none, one, or one for each choice in `{a,b}`.
fn paths(quoted: &str) -> Vec<String> {
    let like_a_path = quoted.contains('/') || ENDINGS.iter().any(|ending| quoted.ends_with(ending));
    let other = quoted.contains([' ', '(', '"']) || quoted.contains("://");
    let known = NO_PATHS
        .iter()
        .any(|(begins, _)| quoted.starts_with(begins));
    if !like_a_path || other || known {
        return Vec::new();
    }
    let mut ready = Vec::new();
    let mut open = vec![quoted.to_owned()];
    while let Some(path) = open.pop() {
        let choice = path
            .split_once('{')
            .and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
        match choice {
            Some((before, (choices, after))) => {
                open.extend(
                    choices
                        .split(',')
                        .map(|one| format!("{before}{one}{after}")),
                );
            }
            None => ready.push(path),
        }
    }
    ready.sort();
    ready
}

/// Whether the tree has it: a name without a folder anywhere, a pattern as far as its folder.
fn exists(tree: &Tree, path: &str) -> bool {
    if !path.contains('/') {
        let ending = format!("/{path}");
        return tree
            .files()
            .any(|file| file == path || file.ends_with(&ending));
    }
    let plain: Vec<&str> = path
        .split('/')
        .take_while(|part| !part.contains(['*', '<', '…']))
        .collect();
    tree.has(&plain.join("/"))
}

#[cfg(test)]
mod tests {
    //! A page with paths that are there, that are gone, and that are none.

    use super::super::lines_of;
    use super::*;
    use anyhow::Result;

    fn findings(page: &str) -> Result<Vec<String>> {
        let (_folder, tree) = Tree::planted(&[
            (PAGES[0], page),
            ("mesh-core/src/subject.rs", ""),
            ("proto/plugmesh/common/v1/call.proto", ""),
        ])?;
        Ok(lines_of(|found| check(&tree, found)))
    }

    #[test]
    fn paths_that_are_there_and_text_that_is_no_path_pass() -> Result<()> {
        let found = findings(
            "`mesh-core/` `mesh-core/src/subject.rs` `subject.rs` `proto/plugmesh/{common}/v1/*.proto`\n\
             `/mcp` `tools/call` `plugmesh.plugin.v1.PluginHost/Attach` `step(a/b)` `mesh_core::id`\n\
             ```mermaid\n`gone/gone.rs`\n```\n",
        )?;
        assert_eq!(found, Vec::<String>::new());
        Ok(())
    }

    #[test]
    fn every_path_that_is_gone_is_found_with_its_line() -> Result<()> {
        let found = findings(
            "a\n`mesh-core/src/gone.rs` and `gone.md`\n`proto/plugmesh/{common,gone}/v1/`\n",
        )?;
        let text = found.join("\n");
        assert_eq!(found.len(), 3, "{text}");
        assert!(text.contains("ARCHITECTURE.md:2: `mesh-core/src/gone.rs` does not exist"));
        assert!(text.contains("ARCHITECTURE.md:2: `gone.md` does not exist"));
        assert!(text.contains("ARCHITECTURE.md:3: `proto/plugmesh/gone/v1/` does not exist"));
        Ok(())
    }
}
