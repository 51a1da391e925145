//! Rounds of faults under load, and what they showed.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_core::error::Processed;
use serde::Serialize;
use tokio::time::sleep;

use super::account::{self, Violation, Wrong};
use super::client::{Clients, End, Record, Seen, Tool};
use super::fault::Fault;
use super::ledger::{self, Entries};
use super::rates::Ends;
use super::world::World;

/// How long the rate is measured before a fault.
pub const BEFORE: Duration = Duration::from_secs(1);

/// How long the rate may take to be back once the fault is mended.
const BACK: Duration = Duration::from_secs(10);

/// How long it is looked at after that, as some harm shows late.
const AFTER: Duration = Duration::from_millis(600);

/// When a round's fault began, was mended, and when the round ended.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub fault: Duration,
    pub mended: Duration,
    pub end: Duration,
}

/// Lets one fault happen and waits until the rate and all plugins are back.
pub async fn round(fault: Fault, world: &mut World, clients: &Clients, turn: usize) -> Round {
    sleep(BEFORE).await;
    let now = || clients.begun.elapsed();
    let begun = now();
    let before = recent(clients, begun).rate(begun.saturating_sub(BEFORE), begun);
    fault.strike(world, turn).await;
    let mended = now();
    loop {
        sleep(Duration::from_millis(100)).await;
        let seen = recent(clients, begun);
        let back = seen.recovery(before, begun, now());
        if (back.is_some() && now() > mended + AFTER) || now() > mended + BACK {
            break;
        }
    }
    let end = now();
    world.wait_well().await;
    Round {
        fault: begun,
        mended,
        end,
    }
}

/// Good answers since a little before a time.
fn recent(clients: &Clients, since: Duration) -> Ends {
    let from = since.saturating_sub(BEFORE);
    clients.look(|seen| {
        // Records are kept in the order of their ends.
        let late = seen.records.iter().rev();
        let late = late.take_while(|record| record.ended >= from);
        Ends::new(late.filter_map(good_end).collect())
    })
}

fn good_end(record: &Record) -> Option<Duration> {
    (record.end == End::Ok).then_some(record.ended)
}

/// What all rounds of one fault showed. Times are in milliseconds.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub fault: String,
    pub rounds: usize,
    pub calls: usize,
    pub good: usize,
    /// Tries after the first, by their reason.
    pub retries: BTreeMap<String, u64>,
    /// Failures by tool, class and code.
    pub failures: BTreeMap<String, u64>,
    /// Calls of the idempotent tool that the plugins began more than once: the mesh tried again.
    pub repeated: usize,
    pub failed_safe: usize,
    pub double: usize,
    pub dishonest: usize,
    pub hung: usize,
    pub not_back: usize,
    /// The longest time in which no call at all succeeded, for each round.
    pub gaps: Vec<u64>,
    /// From the fault until the rate was back, for each round.
    pub recoveries: Vec<Option<u64>>,
    /// From the fault until it was mended, for each round.
    pub mended: Vec<u64>,
    pub longest_call: u64,
}

impl Report {
    /// Puts together what was seen and what was wrong.
    pub fn new(name: &str, rounds: &[Round], settled: &Settled) -> Self {
        let Settled {
            seen,
            ledger,
            found,
        } = settled;
        let count = |wrongs: &[Wrong]| {
            let of = |one: &&Violation| wrongs.contains(&one.wrong);
            found.iter().filter(of).count()
        };
        let repeated = |record: &&Record| {
            let entry = ledger.get(&record.id);
            record.tool == Tool::Safe && entry.is_some_and(|entry| entry.begins > 1)
        };
        let ends = Ends::new(seen.records.iter().filter_map(good_end).collect());
        let mut report = Self {
            fault: name.to_owned(),
            rounds: rounds.len(),
            calls: seen.records.len(),
            retries: seen.retries.clone(),
            repeated: seen.records.iter().filter(repeated).count(),
            failed_safe: count(&[Wrong::Failed]),
            double: count(&[Wrong::Double]),
            dishonest: count(&[Wrong::Dishonest, Wrong::Unknown]),
            hung: count(&[Wrong::Hung]),
            ..Self::default()
        };
        for record in &seen.records {
            let took = millis(record.ended.saturating_sub(record.begun));
            report.longest_call = report.longest_call.max(took);
            match &record.end {
                End::Ok => report.good += 1,
                End::Failed { code, processed } => {
                    let name = format!("{} {} {code}", tool(record.tool), class(*processed));
                    *report.failures.entry(name).or_default() += 1;
                }
            }
        }
        for round in rounds {
            let before = ends.rate(round.fault.saturating_sub(BEFORE), round.fault);
            let back = ends.recovery(before, round.fault, round.end);
            let gap = ends.longest_gap(round.fault, round.end);
            report.gaps.push(millis(gap));
            report.recoveries.push(back.map(millis));
            report.mended.push(millis(round.mended - round.fault));
        }
        report.not_back = report.recoveries.iter().filter(|one| one.is_none()).count();
        report
    }

    /// Whether everything was as it must be.
    pub fn is_good(&self) -> bool {
        self.failed_safe + self.double + self.dishonest + self.hung + self.not_back == 0
    }
}

fn tool(tool: Tool) -> &'static str {
    match tool {
        Tool::Safe => "safe",
        Tool::Once => "once",
    }
}

fn class(processed: Processed) -> &'static str {
    match processed {
        Processed::No => "not-processed",
        Processed::Unknown => "unknown",
        Processed::Yes => "processed",
    }
}

pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// All calls, all entries of the ledger, and what was wrong.
pub struct Settled {
    pub seen: Seen,
    pub ledger: Entries,
    pub found: Vec<Violation>,
}

/// Lets the clients' calls end and holds them, and those seen before, against the ledger.
pub async fn settle(world: &World, clients: Clients, early: Seen) -> Settled {
    let mut seen = clients.finish();
    seen.records.extend(early.records);
    world.wait_quiet().await;
    let ledger = ledger::read(world.ledger());
    let found = account::check(&seen.records, &ledger);
    Settled {
        seen,
        ledger,
        found,
    }
}
