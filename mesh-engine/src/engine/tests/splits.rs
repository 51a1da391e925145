//! Traffic splits: stored, told by the table, and refused when they make no sense.

use super::*;
use mesh_core::error::ErrorCode;
use mesh_core::split::{Group, Split};
use semver::Version;

/// calculator in two versions, both active.
fn two() -> World {
    let mut world = World::new(2);
    world.open(0, 1, "a", 7);
    world.announce(0, 1, vec![]);
    for (number, id) in [(1, "calculator@1.4.0"), (2, "calculator@2.0.0")] {
        world.report(
            0,
            1,
            report(number, &manifest(id, &[], &["tool:add"]), Phase::Ready),
        );
    }
    world
}

fn shares(shares: &[(&str, u32)]) -> BTreeMap<Version, u32> {
    let shares = shares.iter();
    shares
        .map(|(version, weight)| (version.parse().unwrap(), *weight))
        .collect()
}

pub fn split(of: &[(&str, u32)]) -> Change {
    Change::Split {
        shares: shares(of),
        groups: Vec::new(),
    }
}

fn told(world: &World, coordinator: usize) -> Option<String> {
    let table = &world.coordinators[coordinator].table;
    let split = table.split(&"calculator".parse().unwrap());
    split.map(ToString::to_string)
}

#[test]
fn a_split_is_told_by_every_coordinators_table_until_it_is_cleared() {
    let mut world = two();
    let outcome = world
        .ask("calculator", split(&[("1.4.0", 90), ("2.0.0", 10)]))
        .unwrap();
    assert_eq!(names(&outcome.changed), ["calculator"]);
    assert!(outcome.notes.is_empty(), "{:?}", outcome.notes);
    for coordinator in 0..2 {
        assert_eq!(told(&world, coordinator).unwrap(), "1.4.0=90 2.0.0=10");
    }
    assert!(outcome.revision <= world.at(0).table.revision());
    let view = world.at(0).engine.splits(None);
    assert_eq!((view.len(), view[0].by.as_str()), (1, "ann"));
    let seen: Vec<(u32, usize)> = view[0]
        .shares
        .iter()
        .map(|it| (it.weight, it.active))
        .collect();
    assert_eq!(seen, [(90, 1), (10, 1)]);

    // The same once more changes nothing.
    let again = world.ask("calculator", split(&[("1.4.0", 90), ("2.0.0", 10)]));
    assert!(again.unwrap().changed.is_empty());

    let outcome = world.ask("calculator", Change::ClearSplit).unwrap();
    assert_eq!(names(&outcome.changed), ["calculator"]);
    assert_eq!((told(&world, 0), told(&world, 1)), (None, None));
    let again = world.ask("calculator", Change::ClearSplit).unwrap();
    assert!(again.changed.is_empty());
}

#[test]
fn a_split_outlives_the_coordinator_and_the_instances() {
    let mut world = two();
    world.ask("calculator", split(&[("1.4.0", 1)])).unwrap();
    world.gone(0, 1, id(1));
    world.gone(0, 1, id(2));
    world.now.0 += 1;
    world.start(1, "coordinator-1");
    assert_eq!(told(&world, 1).unwrap(), "1.4.0=1");
    // It can be cleared though nothing of the plugin is left.
    assert!(world.ask("calculator", Change::ClearSplit).is_ok());
    let error = world.ask("calculator", Change::ClearSplit).unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
}

#[test]
fn what_changed_while_the_store_was_lost_is_told_afterwards() {
    let mut world = two();
    world.ask("calculator", split(&[("1.4.0", 1)])).unwrap();
    world.disconnect(1);
    world.ask("calculator", split(&[("2.0.0", 1)])).unwrap();
    assert_eq!(told(&world, 1).unwrap(), "1.4.0=1");
    world.reconnect(1);
    assert_eq!(told(&world, 1).unwrap(), "2.0.0=1");
    world.disconnect(1);
    world.ask("calculator", Change::ClearSplit).unwrap();
    world.reconnect(1);
    assert_eq!(told(&world, 1), None);
}

#[test]
fn a_version_that_is_not_here_is_noted_and_a_split_of_such_alone_is_refused() {
    let mut world = two();
    let group = Group {
        header: "x-test-group".into(),
        value: "beta".into(),
        version: Version::new(3, 0, 0),
    };
    let change = Change::Split {
        shares: shares(&[("1.4.0", 1), ("2.1.0", 0)]),
        groups: vec![group],
    };
    let outcome = world.ask("calculator", change).unwrap();
    assert_eq!(
        outcome.notes,
        [
            "calculator 2.1.0 has no instance: the others serve until one is active",
            "calculator 3.0.0 has no instance: the others serve until one is active",
        ]
    );
    for (shares, line) in [
        (
            &[("2.1.0", 1), ("1.4.0", 0)][..],
            "invalid_argument: shares: no version with a weight is here; calculator has instances of \
             1.4.0, 2.0.0: give one of those a weight, or start what is missing first (plugin \
             calculator)",
        ),
        (
            &[("1.4.0", 0)],
            "invalid_argument: shares: all weights are 0, so no version would serve: give one of \
             them more (plugin calculator)",
        ),
    ] {
        let error = world.ask("calculator", split(shares)).unwrap_err();
        assert_eq!(error.to_string(), line);
    }
    let error = world.ask("nobody", split(&[("1.0.0", 1)])).unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
    // What was refused changed nothing.
    let told = world
        .at(0)
        .table
        .split(&"calculator".parse().unwrap())
        .cloned();
    assert_eq!(told.unwrap().shares, shares(&[("1.4.0", 1), ("2.1.0", 0)]));
}

#[test]
fn a_record_that_can_not_be_read_is_no_split_and_can_be_cleared() {
    let mut world = two();
    let at = world.now;
    world
        .store
        .put("split.calculator", Some(b"{}".to_vec()), at);
    world.settle();
    assert_eq!(told(&world, 0), None);
    world.ask("calculator", split(&[("1.4.0", 1)])).unwrap();
    assert_eq!(told(&world, 0).unwrap(), "1.4.0=1");
    let follower: Option<&Split> = world.coordinators[1].table.splits().next();
    assert_eq!(follower.unwrap().to_string(), "1.4.0=1");
}
