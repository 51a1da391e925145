//! `plugmesh`: the roles of a mesh, a whole mesh on one machine, and the operator's commands.

mod admin;
mod args;
mod commands;
mod config;
mod dev;
mod exit;
mod http;
mod mcp;
mod output;
mod role;
mod run;
mod tied;
mod view;

use std::process::ExitCode;

fn main() -> ExitCode {
    run::main()
}
