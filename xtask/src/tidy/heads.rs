//! Every module says at its head what it is for.

use super::Finding;
use super::rust_file::RustFile;

pub fn check(sources: &[RustFile], findings: &mut Vec<Finding>) {
    for source in sources {
        let name = source.path.rsplit('/').next().unwrap_or("");
        if name == "build.rs" || source.path.contains("/fixtures/") {
            continue;
        }
        let first = source.text.lines().find(|line| !line.trim().is_empty());
        if !first.is_some_and(|line| line.starts_with("//!")) {
            let what = "does not begin with `//!`: say what the module is for, and what it must not \
                        know";
            findings.push(Finding::new(&source.path, 1, what));
        }
    }
}

#[cfg(test)]
mod tests {
    //! A module without a head.

    use super::super::lines_of;
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        match RustFile::parse(path, text.to_owned()) {
            Ok(file) => lines_of(|found| check(&[file], found)),
            Err(finding) => panic!("{finding}"),
        }
    }

    #[test]
    fn a_module_without_a_head_is_found() {
        assert!(findings("cli/src/main.rs", "//! The program.\nfn main() {}\n").is_empty());
        assert_eq!(findings("cli/src/main.rs", "fn main() {}\n").len(), 1);
        assert_eq!(
            findings("cli/src/main.rs", "// The program.\nfn main() {}\n").len(),
            1
        );
        assert!(findings("cli/build.rs", "fn main() {}\n").is_empty());
    }
}
