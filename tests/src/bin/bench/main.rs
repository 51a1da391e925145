//! What the mesh costs beside the bare parts that it is made of, measured side by side in one run.
//!
//! `make bench` runs all; `make bench ONLY=call` runs the comparisons whose id begins so. Each figure
//! is the median of several rounds in which ours and bare alternate, so that both see the same
//! machine.
#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    reason = "it prints tables, and a benchmark that meets the unexpected has failed"
)]

mod bare;
mod caller;
mod calls;
mod choice;
mod clients;
mod control;
mod mcp;
mod memory;
mod overload;
mod parts;
mod payloads;
mod report;
mod scale;
mod side;
mod streams;

use std::time::Duration;

use anyhow::{Context as _, bail};
use harness::mesh::{Mesh, Plan};
use harness::process;
use report::Report;
use side::Bench;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["serve", part @ ..] = words.as_slice() {
        return runtime.block_on(bare::serve(part));
    }
    let bench = options(&words)?;
    tokio::task::LocalSet::new().block_on(&runtime, run(bench))
}

fn options(words: &[&str]) -> anyhow::Result<Bench> {
    let mut bench = Bench {
        only: String::new(),
        rounds: 5,
        time: Duration::from_secs(1),
        folder: tempfile::tempdir()?,
        report: Report::default(),
    };
    for pair in words.chunks(2) {
        match pair {
            ["--only", id] => bench.only = (*id).to_owned(),
            ["--rounds", count] => bench.rounds = count.parse().context("--rounds: a number")?,
            ["--seconds", time] => {
                let seconds = time.parse().context("--seconds: a number")?;
                bench.time = Duration::try_from_secs_f64(seconds)?;
            }
            _ => bail!("{pair:?}: use --only ID, --rounds N (default 5), --seconds S (default 1)"),
        }
    }
    if bench.rounds == 0 {
        bail!("--rounds: at least 1");
    }
    Ok(bench)
}

/// The mesh of the small calls: one node, a plugin that answers and one that calls.
async fn small_mesh() -> Mesh {
    let mesh = Plan::new()
        .quiet()
        .agent("node-a")
        .plugin("probe")
        .plugin_as("caller", &["probe"], &[("PROBE_NAME", "caller")])
        .start()
        .await;
    mesh.wait_state("probe", "active").await;
    mesh.wait_state("caller", "active").await;
    mesh.wait_tool("probe_echo").await;
    mesh.wait_tool("caller_load").await;
    mesh
}

async fn run(mut bench: Bench) -> anyhow::Result<()> {
    Report::print_head();
    let small = ["call", "payload", "stream", "mcp"];
    if small.iter().any(|id| bench.wants(id)) {
        let mesh = small_mesh().await;
        calls::cross_node(&mut bench, &mesh).await?;
        calls::neighbour(&mut bench, &mesh).await?;
        payloads::echo(&mut bench, &mesh).await?;
        streams::server_streaming(&mut bench, &mesh).await?;
        streams::client_streaming(&mut bench, &mesh).await?;
        mcp::tools_call(&mut bench, &mesh).await?;
    }
    choice::choice(&mut bench)?;
    scale::scale(&mut bench).await?;
    control::control(&mut bench).await?;
    overload::overload(&mut bench).await?;
    memory::memory(&mut bench).await?;
    let target = process::binaries();
    let target = target.parent().context("the target folder")?;
    bench.report.write(target)
}
