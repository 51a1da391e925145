//! A simulation of the control plane: coordinators around the real engine, agents and gateways, with a
//! store, a network and processes that fail in every way that is known. One thread, one seed; the same
//! seed gives the same run.
//!
//! `make sim` runs thousands of seeds; a few hundred run with the tests. A run that breaks a promise
//! says its seed, and `PLUGMESH_SIM_SEED=n` tells all that happened in it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking, and say how to see more"
)]

mod agents;
mod chance;
mod coordinator;
mod faults;
mod feed;
mod invariants;
mod store;
mod streams;
mod world;

use std::env;
use std::ops::Range;
use std::time::Instant;

use world::{LEASE, World};

/// Mistakes that are made on purpose, to see that the simulation finds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// Who takes the office decides at once.
    SkipTheWait,
    /// The office's record is written whatever it is by then.
    NoEpochCheck,
    /// What was decided by an old state of the store is written over a newer one.
    StaleRead,
}

/// What a run had in it.
#[derive(Debug, Default, Clone, Copy)]
struct Run {
    happened: u64,
    evictions: u64,
    /// That came to their last step.
    rollouts: u64,
    calls: u64,
}

/// Runs one seed to its end; the first promise that was broken.
fn run(seed: u64, planted: Option<Planted>, telling: bool) -> Result<Run, String> {
    let mut world = World::new(seed, planted, telling);
    let until = world.now + world.chance.within(60_000..240_000);
    let half = (world.now + until) / 2;
    world.run_until(half);
    match seed % 8 {
        1 => world.store_is_lost(),
        3 | 7 => world.store_goes_back(),
        5 => world.store_is_emptied(),
        _ => {}
    }
    world.run_until(until);
    world.calm();
    let mut converged = Ok(());
    // A lease for those who are dead, three until they are held to be so, and the time of a takeover.
    for _ in 0..10 * LEASE / 5_000 {
        let next = world.now + 5_000;
        world.run_until(next);
        converged = world.has_converged();
        converged = converged.and_then(|()| world.rollouts_have_ended());
        if converged.is_ok() {
            break;
        }
    }
    if world.failure.is_none() {
        let converged = converged.map_err(|why| format!("it does not come to rest: {why}"));
        world.check(converged);
    }
    for line in world.told.iter().flatten() {
        eprintln!("{line}");
    }
    match world.failure {
        Some(broken) => Err(broken),
        None => Ok(Run {
            happened: world.happened,
            evictions: world.invariants.evictions(),
            rollouts: world.invariants.rollouts.counted,
            calls: world.invariants.routes.counted,
        }),
    }
}

/// Failing seeds that are named; further ones are only counted.
const NAMED: usize = 20;

fn run_all(seeds: Range<u64>) {
    let (begun, count) = (Instant::now(), seeds.end - seeds.start);
    let mut sum = Run::default();
    let mut failed = Vec::new();
    for seed in seeds {
        match run(seed, None, false) {
            Ok(one) => {
                sum.happened += one.happened;
                sum.evictions += one.evictions;
                sum.rollouts += one.rollouts;
                sum.calls += one.calls;
            }
            Err(broken) => {
                if failed.len() < NAMED {
                    eprintln!("seed {seed}: {broken}");
                }
                failed.push(seed);
            }
        }
    }
    eprintln!(
        "control plane: {count} seeds in {:.1} s, {} events, {} evictions, {} rollouts, {} calls, {} broke a promise",
        begun.elapsed().as_secs_f64(),
        sum.happened,
        sum.evictions,
        sum.rollouts,
        sum.calls,
        failed.len()
    );
    if let [first, ..] = failed[..] {
        panic!(
            "to see all of seed {first}: PLUGMESH_SIM_SEED={first} cargo test -p mesh-engine --lib \
             sim::one_seed -- --nocapture"
        );
    }
    assert!(sum.evictions > 0, "nothing was evicted in {count} seeds");
    assert!(sum.rollouts > 0, "nothing was rolled out in {count} seeds");
    assert!(sum.calls > 0, "nobody called in {count} seeds");
}

/// The first seed that finds a mistake.
fn found_by(planted: Planted, mut seeds: Range<u64>) -> Option<(u64, String)> {
    seeds.find_map(|seed| Some((seed, run(seed, Some(planted), false).err()?)))
}

#[test]
fn a_few_hundred_seeds_keep_every_promise() {
    run_all(0..300);
}

#[test]
#[ignore = "minutes long: make sim"]
fn many_seeds_keep_every_promise() {
    let count = env::var("SEEDS").map_or(Ok(10_000), |text| text.parse());
    run_all(0..count.expect("SEEDS is a number"));
}

#[test]
fn one_seed() {
    if let Ok(seed) = env::var("PLUGMESH_SIM_SEED") {
        let seed = seed.parse().expect("PLUGMESH_SIM_SEED is a number");
        if let Err(broken) = run(seed, None, true) {
            panic!("{broken}");
        }
    }
}

#[test]
fn one_seed_is_one_run() {
    let again = |seed| run(seed, None, false).map(|run| run.happened);
    assert_eq!(again(5), again(5));
}

#[test]
fn planted_mistakes_are_found() {
    // Each range has a seed that finds it; what changes the runs may change the seeds.
    for (planted, seeds) in [
        (Planted::SkipTheWait, 0..200),
        (Planted::NoEpochCheck, 0..200),
        (Planted::StaleRead, 0..1_000),
    ] {
        match found_by(planted, seeds) {
            Some((seed, broken)) => eprintln!("{planted:?}: seed {seed}: {broken}"),
            None => panic!("{planted:?} is not found"),
        }
    }
}
