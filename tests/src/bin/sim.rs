//! Runs the simulation: many seeds, or one of which it prints what happened.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it reports to a person"
)]

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context as _, bail};
use harness::sim::{Outcome, Planted, run, run_many};

/// Failing seeds that are told in full.
const MOST: usize = 5;

struct Options {
    first: u64,
    seeds: u64,
    only: Option<u64>,
    planted: Planted,
    /// Each seed is run twice, and must be the same.
    twice: bool,
}

fn options(words: &[String]) -> anyhow::Result<Options> {
    let mut options = Options {
        first: 1,
        seeds: 10_000,
        only: None,
        planted: Planted::None,
        twice: false,
    };
    for pair in words.chunks(2) {
        let [name, value] = pair else {
            bail!("{pair:?}: a value is missing");
        };
        let number = || value.parse::<u64>().context(format!("{name}: a number"));
        match name.as_str() {
            "--seeds" => options.seeds = number()?,
            "--first" => options.first = number()?,
            "--twice" => options.twice = value == "yes",
            "--seed" => options.only = Some(number()?),
            "--planted" => {
                let known = Planted::ALL.iter().find(|(known, _)| known == value);
                let names = Planted::ALL.map(|(name, _)| name).join(", ");
                options.planted = known
                    .with_context(|| format!("--planted: one of {names}"))?
                    .1;
            }
            _ => bail!("{name}: use --seeds N, --first N, --seed N, --planted BUG, --twice yes"),
        }
    }
    Ok(options)
}

fn main() -> anyhow::Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let options = options(&words)?;
    if let Some(seed) = options.only {
        let outcome = run(seed, options.planted, true);
        for line in &outcome.trace {
            println!("{line}");
        }
        println!("{:?}", outcome.counts);
        return Ok(verdict(&outcome));
    }
    let begun = Instant::now();
    let failed = Mutex::new(Vec::new());
    let counts = run_many(
        options.first,
        options.seeds,
        options.planted,
        |mut outcome| {
            if options.twice {
                let again = run(outcome.seed, options.planted, false);
                if again.digest != outcome.digest {
                    let text = "it is another one when it is run again".to_owned();
                    outcome.violations.push(text);
                }
            }
            if !outcome.violations.is_empty() {
                failed
                    .lock()
                    .unwrap_or_else(|lock| lock.into_inner())
                    .push(outcome);
            }
        },
    );
    let mut failed = failed.into_inner().unwrap_or_else(|lock| lock.into_inner());
    failed.sort_by_key(|outcome| outcome.seed);
    println!(
        "{} seeds in {:.1} s, {:.0} h simulated, {} messages, {} faults",
        options.seeds,
        begun.elapsed().as_secs_f64(),
        counts.simulated.as_secs_f64() / 3_600.0,
        counts.messages,
        counts.faults
    );
    println!(
        "{} calls: {} well, {} not processed, {} unknown, {} failed, {} given up; {} begun more than once",
        counts.calls,
        counts.well,
        counts.not_processed,
        counts.unknown,
        counts.failed,
        counts.given_up,
        counts.repeated
    );
    for outcome in failed.iter().take(MOST) {
        verdict(outcome);
    }
    println!("{} of {} seeds failed", failed.len(), options.seeds);
    if !failed.is_empty() {
        let seeds: Vec<String> = failed.iter().map(|one| one.seed.to_string()).collect();
        println!("they are: {}", seeds.join(" "));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn verdict(outcome: &Outcome) -> ExitCode {
    let seed = outcome.seed;
    if outcome.violations.is_empty() {
        println!("seed {seed} holds; digest {:016x}", outcome.digest);
        return ExitCode::SUCCESS;
    }
    println!("seed {seed} FAILS (make sim SEED={seed} replays it):");
    for violation in &outcome.violations {
        println!("  {violation}");
    }
    ExitCode::FAILURE
}
