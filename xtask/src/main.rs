//! The chores that need a program: code generation, the rules of the house, licences.
//!
//! `cargo run -p xtask -- codegen [--check] | tidy | licences`. It reads the repository and knows
//! nothing of what the mesh does at run time; no product crate depends on it.

#![allow(
    clippy::print_stdout,
    reason = "findings on stdout are what these commands are for"
)]

mod codegen;
mod licences;
mod metadata;
mod tidy;
mod tree;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: cargo run -p xtask -- codegen [--check] | tidy | licences";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the command found nothing to complain about.
fn run() -> Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = root()?;
    match arguments.as_slice() {
        ["codegen"] => codegen::write(&root).map(|()| true),
        ["codegen", "--check"] => Ok(report(&codegen::drift(&root)?)),
        ["tidy"] => Ok(report(&tidy::check(&root)?)),
        ["licences"] => Ok(report(&licences::check(&root)?)),
        _ => bail!("{USAGE}"),
    }
}

/// One line per finding; true when there is none.
fn report(findings: &[impl std::fmt::Display]) -> bool {
    for finding in findings {
        println!("{finding}");
    }
    findings.is_empty()
}

/// The repository is where this crate was built: its parent folder.
fn root() -> Result<PathBuf> {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    Ok(here.parent().context("xtask has no parent folder")?.into())
}
