//! Some hundreds of seeds of the simulation; `make sim` runs thousands. docs/simulation.md tells more.

use std::sync::Mutex;

use harness::sim::{Planted, run, run_many};

#[test]
fn hundreds_of_seeds_break_no_promise() {
    let failed = Mutex::new(Vec::new());
    let counts = run_many(1, 200, Planted::None, |outcome| {
        if !outcome.violations.is_empty() {
            let (seed, violations) = (outcome.seed, outcome.violations.join("\n  "));
            let text = format!("make sim SEED={seed} replays this:\n  {violations}");
            failed.lock().unwrap().push(text);
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    // All kinds of ends were seen, so it was no empty exercise.
    for (count, least) in [
        (counts.well, 1_000),
        (counts.not_processed, 50),
        (counts.unknown, 50),
        (counts.failed, 50),
        (counts.repeated, 5),
        (counts.faults, 200),
    ] {
        assert!(count >= least, "{counts:?}");
    }
}

#[test]
fn a_seed_is_the_same_each_time() {
    for seed in [3, 52, 157] {
        let (one, other) = (
            run(seed, Planted::None, true),
            run(seed, Planted::None, true),
        );
        assert_eq!(one.trace, other.trace, "seed {seed}");
        assert_eq!(one.digest, other.digest, "seed {seed}");
    }
}

/// What each planted bug is found by, within the first seeds; docs/simulation.md names some of them.
const PLANTED: [(Planted, &str); 3] = [
    (
        Planted::RepeatsUnknown,
        "may not be repeated and was begun 2 times",
    ),
    (Planted::KeepsCredit, "it must have hung"),
    (Planted::OldTables, "before that it is gone"),
];

#[test]
fn planted_bugs_are_found() {
    for (planted, says) in PLANTED {
        let finds = |seed| {
            let violations = run(seed, planted, false).violations;
            violations.iter().any(|text| text.contains(says))
        };
        assert!((1..=20).any(finds), "nothing found {planted:?}");
    }
}
