//! Every error code has its page in `docs/errors/`, and every page its code.
//!
//! The pages' names are read from the source of the codes: this crate depends on no other of ours.

use std::collections::BTreeMap;

use super::Finding;
use super::rust_file::{Kind, RustFile, Token};
use crate::tree::Tree;

const CODES: &str = "mesh-core/src/error.rs";
const PAGES: &str = "docs/errors/";

pub fn check(tree: &Tree, sources: &[RustFile], findings: &mut Vec<Finding>) {
    let Some(source) = sources.iter().find(|source| source.path == CODES) else {
        return;
    };
    let slugs = slugs(source);
    if slugs.is_empty() {
        let what =
            "no table `codes! {..}` with the page of each code: mend xtask/src/tidy/error_pages.rs";
        findings.push(Finding::new(CODES, 1, what));
    }
    for (slug, line) in &slugs {
        let page = format!("{PAGES}{slug}.md");
        if !tree.has(&page) {
            findings.push(Finding::new(
                CODES,
                *line,
                format!("{page} is missing: write it"),
            ));
        }
    }
    for path in tree.files() {
        let page = path
            .strip_prefix(PAGES)
            .and_then(|name| name.strip_suffix(".md"));
        let Some(page) = page.filter(|name| !matches!(*name, "README" | "index")) else {
            continue;
        };
        if !slugs.is_empty() && !slugs.contains_key(page) {
            let what = format!("no error code in {CODES} has the slug {page}: remove the page");
            findings.push(Finding::new(path, 1, what));
        }
    }
}

/// The page of each code, with its line: the last string of each row of the table `codes! {..}`, rows
/// ending in `;`.
fn slugs(source: &RustFile) -> BTreeMap<String, usize> {
    let is_table = |pair: &[Token]| match pair {
        [name, bang] => name.is_ident("codes") && bang.is_punct('!'),
        _ => false,
    };
    let mut slugs = BTreeMap::new();
    let Some(start) = source.tokens.windows(2).position(is_table) else {
        return slugs;
    };
    let table = source.tokens.iter().skip(start + 3);
    let table = table.take_while(|token| token.kind != Kind::Close('{'));
    let mut last = None;
    for token in table {
        match &token.kind {
            Kind::Str(text) => last = Some((text.clone(), token.line)),
            Kind::Punct(';') => slugs.extend(last.take()),
            _ => {}
        }
    }
    slugs
}

#[cfg(test)]
mod tests {
    //! A code without a page, and a page without a code.

    use super::super::{lines_of, rust_file};
    use super::*;
    use anyhow::Result;

    const SLUGS: &str = "macro_rules! codes { ($a:literal) => { \"other\"; } }
        codes! {
            /// Nobody has it.
            NoProvider = 3, \"no_provider\", \"no-provider\", No, 5, 404, -32602;
            Overloaded = 5, \"overloaded\", \"overloaded\", No, 8, 429, -32011;
        }
        fn name() -> &'static str { \"other\"; }";

    fn findings(files: &[(&str, &str)]) -> Result<Vec<String>> {
        let (_folder, tree) = Tree::planted(files)?;
        Ok(lines_of(|found| {
            let sources = rust_file::read_all(&tree, found);
            check(&tree, &sources, found);
        }))
    }

    #[test]
    fn codes_and_pages_that_match_pass() -> Result<()> {
        let found = findings(&[
            (CODES, SLUGS),
            ("docs/errors/no-provider.md", ""),
            ("docs/errors/overloaded.md", ""),
            ("docs/errors/README.md", ""),
        ])?;
        assert_eq!(found, Vec::<String>::new());
        Ok(())
    }

    #[test]
    fn a_missing_page_and_a_stray_page_are_found() -> Result<()> {
        let found = findings(&[
            (CODES, SLUGS),
            ("docs/errors/no-provider.md", ""),
            ("docs/errors/stray.md", ""),
        ])?;
        let text = found.join("\n");
        assert!(
            text.contains("error.rs:5: docs/errors/overloaded.md is missing"),
            "{text}"
        );
        assert!(
            text.contains("docs/errors/stray.md:1: no error code"),
            "{text}"
        );
        Ok(())
    }

    #[test]
    fn a_tree_without_codes_has_nothing_to_check() -> Result<()> {
        assert!(findings(&[("docs/errors/stray.md", "")])?.is_empty());
        assert_eq!(findings(&[(CODES, "enum ErrorCode {}")])?.len(), 1);
        Ok(())
    }
}
