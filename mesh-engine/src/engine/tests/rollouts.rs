//! Rollouts: forward step by step by whoever holds the office, back when the new version fails.

use super::splits::split;
use super::*;
use crate::record::{RolloutPlan, RolloutRecord, RolloutState};
use InstanceState::{Active, Initialized};
use mesh_core::error::ErrorCode;

fn plan(to: &str) -> RolloutPlan {
    RolloutPlan {
        to: to.parse().unwrap(),
        steps: vec![10, 50, 100],
        interval_ms: 10_000,
        max_errors: 50_000,
        within_ms: 60_000,
    }
}

fn start(to: &str) -> Change {
    Change::Rollout(plan(to))
}

/// Two coordinators; node a at the first, node b at the second; calculator 1.4.0 on a.
fn one() -> World {
    let mut world = World::new(2);
    world.open(0, 1, "a", 7);
    world.announce(0, 1, vec![]);
    world.open(1, 2, "b", 7);
    world.announce(1, 2, vec![]);
    let old = manifest("calculator@1.4.0", &[], &["tool:add"]);
    world.report(0, 1, report(1, &old, Phase::Ready));
    world
}

/// The new version, on b.
fn arrive(world: &mut World) {
    let new = manifest("calculator@2.0.0", &[], &["tool:add"]);
    world.report(1, 2, report(2, &new, Phase::Ready));
}

fn record(world: &World) -> RolloutRecord {
    let up = world.coordinators.iter().find(|it| it.connected).unwrap();
    up.engine.rollouts(None).remove(0)
}

fn state(world: &World) -> (RolloutState, u32) {
    let record = record(world);
    (record.state, record.percent())
}

fn told(world: &World) -> String {
    let table = &world.coordinators[0].table;
    let split = table.split(&"calculator".parse().unwrap());
    split.unwrap().to_string()
}

fn pass(world: &mut World, millis: u64) {
    world.pass(millis, &[(0, SessionId(1)), (1, SessionId(2))]);
}

fn count(world: &mut World, calls: u64, errors: u64) {
    let event = Event::AgentCounted {
        session: SessionId(2),
        counts: vec![(id(2), Tally { calls, errors })],
    };
    world.tell(1, event);
}

#[test]
fn a_rollout_waits_shifts_step_by_step_and_retires_the_old_version() {
    let mut world = one();
    world.ask("calculator", start("2.0.0")).unwrap();
    assert_eq!(told(&world), "1.4.0=100 2.0.0=0");
    pass(&mut world, 120_000);
    assert_eq!(state(&world), (RolloutState::Waiting, 0));
    let waits = "it waits for an instance of 2.0.0 that is active";
    assert_eq!(record(&world).reason, waits);

    arrive(&mut world);
    assert_eq!(
        told(&world),
        "1.4.0=100 2.0.0=0",
        "it gets nothing before its time"
    );
    pass(&mut world, 2_000);
    assert_eq!(state(&world), (RolloutState::Shifting, 10));
    assert_eq!(told(&world), "1.4.0=90 2.0.0=10");
    pass(&mut world, 7_000);
    assert_eq!(state(&world).1, 10);
    pass(&mut world, 4_000);
    assert_eq!(told(&world), "1.4.0=50 2.0.0=50");
    pass(&mut world, 11_000);
    assert_eq!(told(&world), "1.4.0=0 2.0.0=100");
    assert_eq!(
        world.state(id(1)),
        Some(Active),
        "it can go back as long as it is watched"
    );
    pass(&mut world, 60_000);
    assert_eq!(state(&world), (RolloutState::Done, 100));
    assert_eq!(world.state(id(1)), Some(Initialized));
    assert_eq!(world.reason(id(1)), "a rollout has replaced it by 2.0.0");
    assert_eq!(world.state(id(2)), Some(Active));

    // And back by hand: the old version is there at once.
    world.ask("calculator", start("1.4.0")).unwrap();
    assert_eq!(world.state(id(1)), Some(Active));
    pass(&mut world, 2_000);
    assert_eq!(told(&world), "1.4.0=10 2.0.0=90");
}

#[test]
fn an_old_version_that_somebody_needs_goes_on() {
    let mut world = one();
    let top = manifest("top@1.0.0", &["calculator ^1"], &[]);
    world.report(0, 1, report(3, &top, Phase::Ready));
    world.ask("calculator", start("2.0.0")).unwrap();
    arrive(&mut world);
    pass(&mut world, 120_000);
    let record = record(&world);
    assert_eq!(
        (record.state, record.reason.as_str()),
        (
            RolloutState::Done,
            "2.0.0 gets all calls; 1.4.0 goes on for top@1.0.0"
        )
    );
    assert_eq!(
        (world.state(id(1)), world.state(id(3))),
        (Some(Active), Some(Active))
    );
}

#[test]
fn an_old_version_goes_on_for_one_that_waits_for_something_else_as_well() {
    let mut world = one();
    let top = manifest("top@1.0.0", &["calculator ^1", "slack ^1"], &[]);
    world.report(0, 1, report(3, &top, Phase::Ready));
    world.ask("calculator", start("2.0.0")).unwrap();
    arrive(&mut world);
    pass(&mut world, 120_000);
    let done = record(&world);
    assert_eq!(done.state, RolloutState::Done);
    assert!(done.retired.is_empty(), "{}", done.reason);
    let slack = manifest("slack@1.0.0", &[], &[]);
    world.report(0, 1, report(4, &slack, Phase::Ready));
    assert_eq!(world.state(id(3)), Some(Active));
}

#[test]
fn what_a_rollout_has_replaced_stays_so_in_the_next_one() {
    let mut world = one();
    world.ask("calculator", start("2.0.0")).unwrap();
    arrive(&mut world);
    pass(&mut world, 120_000);
    assert_eq!(world.state(id(1)), Some(Initialized));
    world.ask("calculator", start("3.0.0")).unwrap();
    assert_eq!(world.state(id(1)), Some(Initialized), "while it goes on");
    let newest = manifest("calculator@3.0.0", &[], &["tool:add"]);
    world.report(0, 1, report(5, &newest, Phase::Ready));
    pass(&mut world, 120_000);
    assert_eq!(state(&world), (RolloutState::Done, 100));
    assert_eq!(
        [1, 2, 5].map(|number| world.state(id(number))),
        [Some(Initialized), Some(Initialized), Some(Active)]
    );
}

#[test]
fn errors_that_any_coordinator_counts_take_the_calls_back() {
    let mut world = one();
    arrive(&mut world);
    // What was before the rollout does not count.
    count(&mut world, 100, 90);
    world.ask("calculator", start("2.0.0")).unwrap();
    pass(&mut world, 2_000);
    assert_eq!(state(&world), (RolloutState::Shifting, 10));
    count(&mut world, 119, 109);
    pass(&mut world, 1_000);
    assert_eq!(
        state(&world),
        (RolloutState::Shifting, 10),
        "too few to judge by"
    );
    count(&mut world, 140, 93);
    pass(&mut world, 1_000);
    let returned = record(&world);
    assert_eq!(
        (returned.state, returned.reason.as_str()),
        (
            RolloutState::Returned,
            "3 of 40 calls of 2.0.0 failed, 7.5 %; the limit is 5 %"
        )
    );
    assert_eq!(told(&world), "1.4.0=100 2.0.0=0");
    pass(&mut world, 120_000);
    assert_eq!(told(&world), "1.4.0=100 2.0.0=0", "it stays so");
    assert!(record(&world).retired.is_empty());
}

#[test]
fn a_new_version_that_breaks_or_goes_takes_nothing_along() {
    for broken in [true, false] {
        let mut world = one();
        arrive(&mut world);
        world.ask("calculator", start("2.0.0")).unwrap();
        pass(&mut world, 2_000);
        let why = if broken {
            let new = manifest("calculator@2.0.0", &[], &["tool:add"]);
            let mut sick = report(2, &new, Phase::Unhealthy);
            sick.reason = "it aches".to_owned();
            world.report(1, 2, sick);
            "no instance of 2.0.0 is active: degraded (its health is failing: it aches)"
        } else {
            world.gone(1, 2, id(2));
            "no instance of 2.0.0 is left"
        };
        pass(&mut world, 1_000);
        let returned = record(&world);
        assert_eq!(
            (returned.state, returned.reason.as_str()),
            (RolloutState::Returned, why)
        );
        assert_eq!(told(&world), "1.4.0=100 2.0.0=0");
    }
}

#[test]
fn an_abort_ends_it_at_any_point_and_once() {
    let mut world = one();
    let error = world.ask("calculator", Change::AbortRollout).unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
    for (wait, arrives) in [(0, false), (15_000, true)] {
        if arrives {
            arrive(&mut world);
        }
        world.ask("calculator", start("2.0.0")).unwrap();
        pass(&mut world, wait);
        let outcome = world.ask("calculator", Change::AbortRollout).unwrap();
        assert_eq!(names(&outcome.changed), ["calculator"]);
        assert_eq!(record(&world).reason, "aborted by ann: a test");
        assert_eq!(told(&world), "1.4.0=100 2.0.0=0");
        pass(&mut world, 60_000);
        assert_eq!(state(&world), (RolloutState::Aborted, 0));
        let error = world.ask("calculator", Change::AbortRollout).unwrap_err();
        assert!(error.message.contains("is over"), "{error}");
    }
}

#[test]
fn the_next_holder_of_the_office_goes_on_from_the_record() {
    let mut world = one();
    arrive(&mut world);
    world.ask("calculator", start("2.0.0")).unwrap();
    pass(&mut world, 2_000);
    assert_eq!(state(&world), (RolloutState::Shifting, 10));
    let now = world.now;
    let holds =
        |world: &World, number: usize, now| world.coordinators[number].engine.holds_office(now);
    let first = usize::from(!holds(&world, 0, now));
    assert!(holds(&world, first, now));
    // It is lost without a word.
    world.at(first).connected = false;
    world.at(first).writes.clear();
    let second = 1 - first;
    let session = SessionId(second as u64 + 1);
    let lonely = |world: &mut World, seconds: u64| {
        for _ in 0..seconds {
            world.now.0 += 1_000;
            world.tell(second, Event::AgentHeartbeat { session });
            world.tell(second, Event::Tick);
            while world.write_one(second) || world.hear_one(second) {}
        }
    };
    lonely(&mut world, 30);
    assert_eq!(
        state(&world),
        (RolloutState::Shifting, 10),
        "the office is another's"
    );
    lonely(&mut world, 40);
    assert!(holds(&world, second, world.now));
    assert!(state(&world).1 >= 50, "{:?}", record(&world));
    lonely(&mut world, 120);
    assert_eq!(state(&world), (RolloutState::Done, 100));
}

#[test]
fn a_coordinator_that_starts_anew_counts_the_time_anew() {
    let mut world = one();
    arrive(&mut world);
    world.ask("calculator", start("2.0.0")).unwrap();
    pass(&mut world, 11_000);
    world.now.0 += 1;
    for number in 0..2 {
        world.start(number, &format!("coordinator-{number}"));
    }
    world.open(0, 3, "a", 7);
    world.open(1, 4, "b", 7);
    assert_eq!(state(&world), (RolloutState::Shifting, 10));
    assert_eq!(told(&world), "1.4.0=90 2.0.0=10");
}

#[test]
fn split_and_rollout_do_not_get_in_each_others_way() {
    let mut world = one();
    arrive(&mut world);
    let other = manifest("calculator@1.5.0", &[], &["tool:add"]);
    world.report(0, 1, report(4, &other, Phase::Ready));
    world
        .ask("calculator", split(&[("1.4.0", 1), ("1.5.0", 3)]))
        .unwrap();
    // A rollout begins with what the split has.
    world.ask("calculator", start("2.0.0")).unwrap();
    assert_eq!(told(&world), "1.4.0=25 1.5.0=75 2.0.0=0");
    pass(&mut world, 2_000);
    assert_eq!(told(&world), "1.4.0=2250 1.5.0=6750 2.0.0=1000");
    for change in [split(&[("1.4.0", 1)]), Change::ClearSplit, start("1.5.0")] {
        let error = world.ask("calculator", change).unwrap_err();
        let line = "a rollout of calculator to 2.0.0 is under way: wait for its end, or abort it first \
                    (`plugmesh rollout abort calculator`)";
        assert_eq!(
            (error.code, error.message.as_str()),
            (ErrorCode::InvalidArgument, line)
        );
    }
    world.ask("calculator", Change::AbortRollout).unwrap();
    assert_eq!(told(&world), "1.4.0=25 1.5.0=75 2.0.0=0");
    // What operators say afterwards counts, even if they said it before.
    world
        .ask("calculator", split(&[("1.4.0", 1), ("1.5.0", 3)]))
        .unwrap();
    assert_eq!(told(&world), "1.4.0=1 1.5.0=3");
    assert_eq!(
        state(&world).0,
        RolloutState::Aborted,
        "it is still told of"
    );
    world.ask("calculator", Change::ClearSplit).unwrap();
    let table = &world.coordinators[0].table;
    assert_eq!(table.split(&"calculator".parse().unwrap()), None);
}

#[test]
fn a_rollout_that_makes_no_sense_is_one_clear_error() {
    let mut world = one();
    let with = |change: fn(&mut RolloutPlan)| {
        let mut plan = plan("2.0.0");
        change(&mut plan);
        Change::Rollout(plan)
    };
    for (change, line) in [
        (
            start("1.4.0"),
            "to: calculator runs in no other version than 1.4.0, so there is nothing that could give it \
             calls: enable it instead, or name another version",
        ),
        (
            with(|plan| plan.steps = vec![50, 10]),
            "steps: 50,10 is no way to 100: name up to 32 rising percentages, the last of them 100, such \
             as 10,50,100",
        ),
        (
            with(|plan| plan.interval_ms = u64::MAX),
            "interval: is longer than 30 days",
        ),
    ] {
        let error = world.ask("calculator", change).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (ErrorCode::InvalidArgument, line)
        );
    }
    let error = world.ask("nobody", start("2.0.0")).unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
    assert!(world.at(0).engine.rollouts(None).is_empty());
}

#[test]
fn a_rollout_beside_as_many_weighted_versions_as_there_may_be_is_refused() {
    let mut world = one();
    let versions: Vec<String> = (0..16).map(|minor| format!("1.{minor}.0")).collect();
    for (number, version) in (10..).zip(&versions) {
        let old = manifest(&format!("calculator@{version}"), &[], &["tool:add"]);
        world.report(0, 1, report(number, &old, Phase::Ready));
    }
    let shares: Vec<(&str, u32)> = versions.iter().map(|it| (it.as_str(), 1)).collect();
    world.ask("calculator", split(&shares)).unwrap();
    let error = world.ask("calculator", start("2.0.0")).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArgument);
    assert_eq!(
        error.message,
        "to: calculator has 16 versions with a share of its calls, and may have 16 with 2.0.0: set a split \
         with fewer first"
    );
    world.ask("calculator", split(&shares[1..])).unwrap();
    world.ask("calculator", start("2.0.0")).unwrap();
    assert_eq!(record(&world).before.len(), 15);
}
