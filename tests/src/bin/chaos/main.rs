//! Faults under load, with every call accounted for (`make chaos`, `make soak`; docs/chaos.md).
//!
//! The same program is also the plugin that keeps the ledger and the one that floods.
#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "it prints tables, and fails by panicking when the harness does"
)]

mod control;
mod evidence;
mod soak;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use harness::chaos::client::{Clients, Pace, Plan, Seen};
use harness::chaos::control::ControlFault;
use harness::chaos::fault::Fault;
use harness::chaos::rounds::{self, Report};
use harness::chaos::world::World;
use harness::chaos::{flood, plugin};
use harness::process;

const CLIENTS: usize = 64;

/// The longest work of a call.
const HOLD: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if words == ["plugin"] {
        return plugin::main();
    }
    match run(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let all = async {
        match words {
            ["rogue", url] => {
                flood::main(url).await;
                Ok(true)
            }
            ["chaos", options @ ..] => chaos(options).await,
            ["soak", options @ ..] => {
                let minutes = option(options, "--minutes")?.unwrap_or("30");
                soak::run(minutes.parse().context("--minutes: a number")?).await
            }
            _ => bail!("{words:?}: use chaos [--only FAULT] [--rounds N], or soak [--minutes N]"),
        }
    };
    tokio::task::LocalSet::new().block_on(&runtime, all)
}

fn option<'a>(words: &[&'a str], name: &str) -> anyhow::Result<Option<&'a str>> {
    match words.iter().position(|word| *word == name) {
        None => Ok(None),
        Some(at) => Ok(Some(words.get(at + 1).with_context(|| name.to_owned())?)),
    }
}

/// Where tables and evidence go.
fn target() -> anyhow::Result<PathBuf> {
    let binaries = process::binaries();
    let folder = binaries
        .parent()
        .context("the target folder")?
        .join("chaos");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

async fn chaos(words: &[&str]) -> anyhow::Result<bool> {
    let only = option(words, "--only")?;
    let rounds = option(words, "--rounds")?.unwrap_or("10");
    let rounds: usize = rounds.parse().context("--rounds: a number")?;
    let wanted = |fault: &&Fault| only.is_none_or(|only| fault.name() == only);
    let faults: Vec<Fault> = Fault::ALL.iter().filter(wanted).copied().collect();
    let wanted = |fault: &&ControlFault| only.is_none_or(|only| fault.name() == only);
    let control: Vec<ControlFault> = ControlFault::ALL.iter().filter(wanted).copied().collect();
    if (faults.is_empty() && control.is_empty()) || rounds == 0 {
        let names = Fault::ALL.iter().map(|fault| fault.name());
        let names: Vec<&str> = names
            .chain(ControlFault::ALL.iter().map(|fault| fault.name()))
            .collect();
        bail!("--only: one of {}; --rounds: at least 1", names.join(", "));
    }
    let mut reports = Vec::new();
    if !faults.is_empty() {
        table::head();
    }
    for fault in faults {
        let report = one(fault, rounds).await?;
        table::row(&report);
        reports.push(report);
        let text = serde_json::to_string_pretty(&reports)?;
        std::fs::write(target()?.join("chaos.json"), text + "\n")?;
    }
    let mut good = reports.iter().all(Report::is_good);
    if !reports.is_empty() {
        table::foot(&reports);
    }
    if !control.is_empty() {
        control::head();
    }
    for fault in control {
        good &= control::one(fault, rounds, &target()?).await?;
    }
    Ok(good)
}

/// All rounds of one fault, on a mesh of their own.
async fn one(fault: Fault, count: usize) -> anyhow::Result<Report> {
    let mut world = World::start(2, fault.brokers()).await;
    let clients = Clients::start(Plan {
        gateways: world.gateways(),
        clients: CLIENTS,
        hold: HOLD,
        // More than fits on the way to a plugin that stands still: some waits in its agent.
        payload: match fault {
            Fault::PluginStop => 64 << 10,
            _ => 0,
        },
        pace: Pace::Closed,
        first: 1,
    });
    tokio::time::sleep(rounds::BEFORE).await;
    let mut all = Vec::new();
    for turn in 0..count {
        all.push(rounds::round(fault, &mut world, &clients, turn).await);
    }
    let settled = rounds::settle(&world, clients, Seen::default()).await;
    let report = Report::new(fault.name(), &all, &settled);
    if !report.is_good() {
        evidence::show(&world, &target()?.join(fault.name()), &settled.found)?;
    }
    Ok(report)
}
