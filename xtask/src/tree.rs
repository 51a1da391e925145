//! The files of the repository: what git tracks or would track, so nothing built or fetched.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A folder and the files in it that belong to the project.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    files: Vec<String>,
}

impl Tree {
    /// Asks git, so that ignored files are out and files not yet added are in.
    pub fn of_repository(root: &Path) -> Result<Self> {
        let output = Command::new("git")
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .current_dir(root)
            .output()
            .context("cannot run git ls-files")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("git ls-files failed: {}", said.trim());
        }
        let listed = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
        let mut files: Vec<String> = listed
            .split('\0')
            .filter(|name| !name.is_empty() && root.join(name).is_file())
            .map(str::to_owned)
            .collect();
        files.sort();
        files.dedup();
        Ok(Self {
            root: root.into(),
            files,
        })
    }

    /// Where the tree stands on disk.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Paths relative to the root, with `/`, sorted.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }

    /// Whether `path`, a file or a folder, is part of the project.
    pub fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.files().any(|file| {
            file.strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// The text of a file; None when it is binary or gone.
    pub fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    /// A tree on disk made of these files, for the tests of the checks.
    #[cfg(test)]
    pub fn planted(files: &[(&str, &str)]) -> Result<(tempfile::TempDir, Self)> {
        let folder = tempfile::tempdir()?;
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().context("a file needs a folder")?)?;
            std::fs::write(path, text)?;
        }
        let mut names: Vec<String> = files.iter().map(|(path, _)| (*path).to_owned()).collect();
        names.sort();
        let tree = Self {
            root: folder.path().into(),
            files: names,
        };
        Ok((folder, tree))
    }
}
