//! The faults of the control plane: run, and printed as docs/chaos.md explains them.

use std::path::Path;
use std::time::Duration;

use harness::chaos::control::ControlFault;
use harness::chaos::control::rounds::{self, ControlReport, Trial};
use harness::netns::Namespace;

use super::{CLIENTS, HOLD, evidence};

/// How long all coordinators are away at once.
const DOWN: Duration = Duration::from_secs(60);

/// Each coordinator in turn; more says nothing new.
const ROUNDS: usize = 3;

pub fn head() {
    println!(
        "\n{:<18} {:>6} {:>7} {:>6} {:>8} {:>9} {:>11} {:>13} {:>11} {:>11}  verdict",
        "control fault",
        "rounds",
        "calls",
        "failed",
        "evicted",
        "usual ms",
        "noticed ms",
        "current ms",
        "arrived ms",
        "gap ms"
    );
}

/// Runs one fault; whether all was as promised.
pub async fn one(fault: ControlFault, count: usize, target: &Path) -> anyhow::Result<bool> {
    let count = match fault {
        ControlFault::AllCoordinators => 1,
        _ => count.min(ROUNDS),
    };
    if fault == ControlFault::CoordinatorCut
        && let Err(why) = Namespace::new()
    {
        println!("{:<18} skipped: {why:#}", fault.name());
        return Ok(true);
    }
    let trial = Trial {
        clients: CLIENTS,
        hold: HOLD,
        down: DOWN,
    };
    let (world, settled, report) = rounds::run(fault, count, trial).await?;
    let broken = report.broken();
    row(fault, &report, &broken);
    let text = serde_json::to_string_pretty(&report)?;
    std::fs::write(target.join(format!("{}.json", fault.name())), text + "\n")?;
    if !broken.is_empty() {
        evidence::show(&world, &target.join(fault.name()), &settled.found)?;
    }
    Ok(broken.is_empty())
}

fn row(fault: ControlFault, report: &ControlReport, broken: &[String]) {
    let calls = &report.calls;
    let verdict = match broken {
        [] => "good".to_owned(),
        broken => format!("WRONG: {}", broken.join(", ")),
    };
    let gaps: Vec<Option<u64>> = calls.gaps.iter().copied().map(Some).collect();
    println!(
        "{:<18} {:>6} {:>7} {:>6} {:>8} {:>9} {:>11} {:>13} {:>11} {:>11}  {verdict}",
        fault.name(),
        calls.rounds,
        calls.calls,
        calls.failures.values().sum::<u64>(),
        report.evictions,
        report.usual.map_or("-".to_owned(), |it| it.to_string()),
        list(&report.noticed),
        list(&report.current),
        list(&report.arrivals),
        list(&gaps),
    );
    for (what, counts) in [("retried", &calls.retries), ("failed", &calls.failures)] {
        for (reason, count) in counts {
            println!("    {what:<8} {count:>7} × {reason}");
        }
    }
}

/// One figure for each round.
fn list(values: &[Option<u64>]) -> String {
    let shown: Vec<String> = values
        .iter()
        .map(|value| value.map_or("-".to_owned(), |it| it.to_string()))
        .collect();
    shown.join("/")
}
