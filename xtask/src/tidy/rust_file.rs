//! A Rust source as tokens with their lines, and what of it is test code.
//!
//! Checks look at tokens, so a word in a comment or in another string is no finding, and code inside
//! a macro call is seen.

use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::Finding;
use crate::tree::Tree;

/// One token, groups opened and closed in line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Ident(String),
    Punct(char),
    /// The text between the quotes, escapes as written.
    Str(String),
    /// `(`, `[` or `{`.
    Open(char),
    /// The same character as its opening token.
    Close(char),
    /// Numbers, characters, lifetimes.
    Other,
}

#[derive(Debug, Clone)]
pub struct Token {
    pub kind: Kind,
    /// From 1.
    pub line: usize,
    /// Inside an item that only tests have.
    pub in_test: bool,
}

impl Token {
    pub fn is_ident(&self, name: &str) -> bool {
        matches!(&self.kind, Kind::Ident(ident) if ident == name)
    }

    pub fn is_punct(&self, punct: char) -> bool {
        self.kind == Kind::Punct(punct)
    }
}

#[derive(Debug)]
pub struct RustFile {
    pub path: String,
    pub text: String,
    pub tokens: Vec<Token>,
}

impl RustFile {
    pub fn parse(path: &str, text: String) -> Result<Self, Finding> {
        let stream = TokenStream::from_str(&text).map_err(|error| {
            let line = error.span().start().line.max(1);
            Finding::new(path, line, "is not Rust: mend the syntax")
        })?;
        let mut tokens = Vec::new();
        flatten(stream, is_test_path(path), &mut tokens);
        Ok(Self {
            path: path.to_owned(),
            text,
            tokens,
        })
    }

    /// The tokens of code that is not for tests only.
    pub fn product_tokens(&self) -> impl Iterator<Item = &Token> {
        self.tokens.iter().filter(|token| !token.in_test)
    }

    /// How many of the lines belong to the product: all but those of test items.
    pub fn product_lines(&self) -> usize {
        // Comments and blank lines between two tokens of a test item are the item's.
        let runs = self.tokens.chunk_by(|a, b| a.in_test == b.in_test);
        let lines_of = |run: &[Token]| match (run.first(), run.last()) {
            (Some(first), Some(last)) if first.in_test => last.line - first.line + 1,
            _ => 0,
        };
        let test_lines: usize = runs.map(lines_of).sum();
        self.text.lines().count().saturating_sub(test_lines)
    }

    /// Line `number`, from 1; empty when there is none.
    pub fn line(&self, number: usize) -> &str {
        let index = number.checked_sub(1);
        index
            .and_then(|index| self.text.lines().nth(index))
            .unwrap_or("")
    }
}

/// All Rust sources but generated ones; those that are not Rust become findings.
pub fn read_all(tree: &Tree, findings: &mut Vec<Finding>) -> Vec<RustFile> {
    let mut sources = Vec::new();
    for path in tree.files().filter(|path| path.ends_with(".rs")) {
        let Some(text) = tree.text(path).filter(|_| !is_generated(path)) else {
            continue;
        };
        match RustFile::parse(path, text) {
            Ok(source) => sources.push(source),
            Err(finding) => findings.push(finding),
        }
    }
    sources
}

pub fn is_generated(path: &str) -> bool {
    path.contains("/generated/")
}

/// Whether a whole file is test code by its place or name.
pub fn is_test_path(path: &str) -> bool {
    let mut folders: Vec<&str> = path.split('/').collect();
    let name = folders.pop().unwrap_or("");
    let test_folder = |folder: &&str| matches!(*folder, "tests" | "benches");
    folders.iter().any(test_folder) || name == "tests.rs" || name.ends_with("_tests.rs")
}

/// Appends the tokens of one delimited level, noting which items only tests have.
fn flatten(stream: TokenStream, in_test: bool, tokens: &mut Vec<Token>) {
    let mut in_test = in_test;
    // Set by a test attribute, until the item that it stands on ends.
    let mut item_is_test = false;
    let mut trees = stream.into_iter().peekable();
    while let Some(tree) = trees.next() {
        let line = tree.span().start().line;
        if matches!(&tree, TokenTree::Punct(punct) if punct.as_char() == '#') {
            let inner = trees
                .next_if(|next| matches!(next, TokenTree::Punct(punct) if punct.as_char() == '!'));
            let attribute = trees.next_if(|next| {
                matches!(next, TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket)
            });
            if let Some(TokenTree::Group(group)) = attribute {
                let mut content = Vec::new();
                flatten(group.stream(), in_test, &mut content);
                match (means_test(&content), inner.is_some()) {
                    (true, true) => in_test = true,
                    (true, false) => item_is_test = true,
                    (false, _) => {}
                }
                // Comments are no code.
                if !content.first().is_some_and(|token| token.is_ident("doc")) {
                    tokens.append(&mut content);
                }
                continue;
            }
        }
        let now = in_test || item_is_test;
        let mut push = |kind, line| {
            tokens.push(Token {
                kind,
                line,
                in_test: now,
            });
        };
        match tree {
            TokenTree::Ident(ident) => push(Kind::Ident(ident.to_string()), line),
            TokenTree::Punct(punct) => {
                push(Kind::Punct(punct.as_char()), line);
                if punct.as_char() == ';' {
                    item_is_test = false;
                }
            }
            TokenTree::Literal(literal) => {
                let kind = string_of(&literal.to_string()).map_or(Kind::Other, Kind::Str);
                push(kind, line);
            }
            TokenTree::Group(group) => {
                let bracket = match group.delimiter() {
                    Delimiter::Parenthesis => '(',
                    Delimiter::Bracket => '[',
                    Delimiter::Brace => '{',
                    Delimiter::None => ' ',
                };
                push(Kind::Open(bracket), line);
                flatten(group.stream(), now, tokens);
                tokens.push(Token {
                    kind: Kind::Close(bracket),
                    line: group.span_close().start().line,
                    in_test: now,
                });
                if bracket == '{' {
                    item_is_test = false;
                }
            }
        }
    }
}

/// Whether an attribute's content is `test`, `tokio::test` or a `cfg` that holds in tests only.
fn means_test(content: &[Token]) -> bool {
    let has = |name: &str| content.iter().any(|token| token.is_ident(name));
    if content.first().is_some_and(|token| token.is_ident("cfg")) {
        return has("test") && !has("not") && !has("any");
    }
    // The attribute's path ends where its arguments begin.
    content
        .iter()
        .take_while(|token| matches!(token.kind, Kind::Ident(_) | Kind::Punct(':')))
        .last()
        .is_some_and(|token| token.is_ident("test"))
}

/// The text of a string literal of any sort; None for numbers and characters.
fn string_of(literal: &str) -> Option<String> {
    let quoted = literal.trim_start_matches(['b', 'c', 'r', '#']);
    let text = quoted.strip_prefix('"')?;
    Some(text.trim_end_matches('#').trim_end_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    //! What counts as test code, and what as a string.

    use super::*;

    fn parse(text: &str) -> RustFile {
        match RustFile::parse("a/src/lib.rs", text.to_owned()) {
            Ok(file) => file,
            Err(finding) => panic!("{finding}"),
        }
    }

    fn product_strings(text: &str) -> Vec<String> {
        let file = parse(text);
        let string = |token: &Token| match &token.kind {
            Kind::Str(text) => Some(text.clone()),
            _ => None,
        };
        file.product_tokens().filter_map(string).collect()
    }

    #[test]
    fn test_items_are_told_apart_and_comments_are_no_strings() {
        let text = r##"
            //! "head"
            /// "doc"
            fn a() { b!("one", r#"two"#); }
            #[cfg(test)]
            mod tests { fn c() { "hidden"; } }
            #[tokio::test(flavor = "hidden")]
            async fn d() { "hidden"; }
            #[cfg(not(test))]
            fn e() { "three"; }
        "##;
        let strings = product_strings(text);
        assert!(strings.starts_with(&["one".into(), "two".into()]));
        assert!(strings.contains(&"three".to_owned()));
        assert_eq!(strings.iter().filter(|text| *text == "hidden").count(), 1);
    }

    #[test]
    fn a_test_import_ends_at_its_semicolon() {
        let strings = product_strings("#[cfg(test)] use a::b; fn c() { \"seen\" }");
        assert_eq!(strings, ["seen"]);
    }

    #[test]
    fn lines_of_tests_are_not_counted() {
        let text = "//! a\nfn b() {}\n#[cfg(test)]\nmod tests {\n    // why\n    fn c() {}\n}\n";
        assert_eq!(parse(text).product_lines(), 3);
    }
}
