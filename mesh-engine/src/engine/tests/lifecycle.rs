//! From attached to active, and what happens when a dependency comes and goes.

use super::*;
use InstanceState::{Active, Blocked, Degraded, Discovered, Draining, Failed, Loaded};

/// One node, one session, nothing announced yet.
fn one_node() -> World {
    let mut world = World::new(1);
    world.open(0, 1, "a", 7);
    world.announce(0, 1, vec![]);
    world
}

#[test]
fn an_instance_is_active_once_it_is_ready_and_says_why_it_is_not_before() {
    let mut world = one_node();
    let calculator = manifest("calculator@1.0.0", &[], &["tool:add"]);
    for (phase, state) in [
        (Phase::Starting, Discovered),
        (Phase::Loaded, Loaded),
        (Phase::Ready, Active),
        (Phase::Unhealthy, Degraded),
        (Phase::Draining, Draining),
        (Phase::Failed, Failed),
    ] {
        world.now.0 += 10;
        world.report(0, 1, report(1, &calculator, phase));
        assert_eq!(world.state(id(1)), Some(state));
        assert!(!world.reason(id(1)).is_empty(), "{state}");
        assert_eq!(world.since(id(1)), world.now.0, "{state}");
    }
    world.gone(0, 1, id(1));
    assert_eq!(world.state(id(1)), None);
    assert_eq!(world.at(0).table.manifests().count(), 0);
}

#[test]
fn a_dependent_is_blocked_with_the_reason_until_its_dependency_is_active() {
    let mut world = one_node();
    let planner = manifest("planner@1.0.0", &["calculator ^2"], &[]);
    world.report(0, 1, report(1, &planner, Phase::Ready));
    assert_eq!(world.state(id(1)), Some(Blocked));
    assert_eq!(
        world.reason(id(1)),
        "planner@1.0.0 needs calculator ^2, which is not here"
    );
    let old = manifest("calculator@1.0.0", &[], &[]);
    world.report(0, 1, report(2, &old, Phase::Ready));
    assert_eq!(world.state(id(1)), Some(Blocked));
    assert_eq!(
        world.reason(id(1)),
        "planner@1.0.0 needs calculator ^2, but only 1.0.0 is here"
    );
    let new = manifest("calculator@2.1.0", &[], &[]);
    world.report(0, 1, report(3, &new, Phase::Loaded));
    assert_eq!(
        world.reason(id(1)),
        "planner@1.0.0 needs calculator ^2, but calculator@2.1.0 is not active"
    );
    world.now.0 += 5;
    world.report(0, 1, report(3, &new, Phase::Ready));
    assert_eq!(world.state(id(1)), Some(Active));
    assert_eq!(world.since(id(1)), world.now.0);
}

#[test]
fn a_lost_dependency_degrades_at_once_blocks_after_the_grace_and_heals() {
    let mut world = one_node();
    let base = manifest("base@1.0.0", &[], &["service:base.get"]);
    let middle = manifest("middle@1.0.0", &["service:base.get ^1"], &[]);
    let top = manifest("top@1.0.0", &["middle ^1"], &[]);
    for (number, manifest) in [(1, &base), (2, &middle), (3, &top)] {
        world.report(0, 1, report(number, manifest, Phase::Ready));
    }
    assert_eq!(world.state(id(3)), Some(Active));
    world.now.0 += 500;
    let lost_at = world.now.0;
    world.gone(0, 1, id(1));
    for number in [2, 3] {
        assert_eq!(world.state(id(number)), Some(Degraded));
        assert!(
            world
                .reason(id(number))
                .starts_with("it lost a dependency: ")
        );
        assert_eq!(world.since(id(number)), lost_at);
    }
    let beating = [(0, SessionId(1))];
    world.pass(GRACE - 1_000, &beating);
    assert_eq!(world.state(id(3)), Some(Degraded));
    world.pass(2_000, &beating);
    for number in [2, 3] {
        assert_eq!(world.state(id(number)), Some(Blocked));
    }
    world.report(0, 1, report(4, &base, Phase::Ready));
    for number in [2, 3, 4] {
        assert_eq!(world.state(id(number)), Some(Active));
    }
}

#[test]
fn a_dependency_that_returns_within_the_grace_changes_nothing_for_good() {
    let mut world = one_node();
    let base = manifest("base@1.0.0", &[], &[]);
    let user = manifest("user@1.0.0", &["base ^1"], &[]);
    world.report(0, 1, report(1, &base, Phase::Ready));
    world.report(0, 1, report(2, &user, Phase::Ready));
    world.report(0, 1, report(1, &base, Phase::Failed));
    assert_eq!(world.state(id(2)), Some(Degraded));
    world.report(0, 1, report(1, &base, Phase::Ready));
    assert_eq!(world.state(id(2)), Some(Active));
    world.pass(3 * GRACE, &[(0, SessionId(1))]);
    assert_eq!(world.state(id(2)), Some(Active));
}

#[test]
fn a_dependency_that_is_unhealthy_takes_calls_and_counts_as_lost() {
    let mut world = one_node();
    let base = manifest("base@1.0.0", &[], &[]);
    let user = manifest("user@1.0.0", &["base ^1"], &[]);
    world.report(0, 1, report(1, &base, Phase::Ready));
    world.report(0, 1, report(2, &user, Phase::Ready));
    let mut sick = report(1, &base, Phase::Unhealthy);
    sick.reason = "disk full".into();
    world.report(0, 1, sick);
    assert_eq!(world.state(id(1)), Some(Degraded));
    assert_eq!(world.reason(id(1)), "its health is failing: disk full");
    assert_eq!(world.state(id(2)), Some(Degraded));
}

#[test]
fn optional_needs_block_nothing() {
    let mut world = one_node();
    let user = manifest("user@1.0.0", &["?base ^1"], &[]);
    world.report(0, 1, report(1, &user, Phase::Ready));
    assert_eq!(world.state(id(1)), Some(Active));
}

#[test]
fn one_of_several_instances_serves_its_dependents() {
    let mut world = one_node();
    let base = manifest("base@1.0.0", &[], &[]);
    let user = manifest("user@1.0.0", &["base ^1"], &[]);
    for (number, manifest) in [(1, &base), (2, &base), (3, &user)] {
        world.report(0, 1, report(number, manifest, Phase::Ready));
    }
    world.gone(0, 1, id(1));
    assert_eq!(world.state(id(3)), Some(Active));
}

#[test]
fn a_cycle_is_refused_at_registration_with_the_whole_path() {
    let mut world = one_node();
    world.report(
        0,
        1,
        report(1, &manifest("b@1.0.0", &["a ^1"], &[]), Phase::Ready),
    );
    world.report(
        0,
        1,
        report(2, &manifest("a@1.0.0", &["b ^1"], &[]), Phase::Ready),
    );
    let rejected = world.rejected(0);
    assert_eq!(rejected.len(), 1);
    let (instance, error) = &rejected[0];
    assert_eq!(
        (*instance, error.code),
        (id(2), mesh_core::error::ErrorCode::DependencyCycle)
    );
    assert!(
        error.message.contains("a@1.0.0 -> b@1.0.0 -> a@1.0.0"),
        "{error}"
    );
    assert_eq!(error.place.plugin, "a");
    assert_eq!(world.state(id(2)), None);
    assert_eq!(world.state(id(1)), Some(Blocked));
}

#[test]
fn two_that_are_announced_together_close_no_cycle_unseen() {
    let mut world = World::new(1);
    world.open(0, 1, "a", 7);
    let a = manifest("a@1.0.0", &["b ^1"], &[]);
    let b = manifest("b@1.0.0", &["a ^1"], &[]);
    world.announce(
        0,
        1,
        vec![report(1, &a, Phase::Ready), report(2, &b, Phase::Ready)],
    );
    assert_eq!(world.rejected(0).len(), 1);
    assert_eq!(
        (world.state(id(1)), world.state(id(2))),
        (Some(Blocked), None)
    );
}

#[test]
fn of_two_that_coordinators_accept_at_once_the_later_is_failed_with_the_path() {
    let mut world = World::new(2);
    world.open(0, 1, "a", 7);
    world.open(1, 2, "b", 7);
    let (first, second) = (SessionId(1), SessionId(2));
    let a = report(1, &manifest("a@1.0.0", &["b ^1"], &[]), Phase::Ready);
    let b = report(2, &manifest("b@1.0.0", &["a ^1"], &[]), Phase::Ready);
    // Neither has heard of the other when it accepts.
    world.tell(
        0,
        Event::AgentReported {
            session: first,
            report: a.clone(),
        },
    );
    world.tell(
        1,
        Event::AgentReported {
            session: second,
            report: b,
        },
    );
    world.settle();
    assert!(world.rejected(0).is_empty() && world.rejected(1).is_empty());
    assert_eq!(world.state(id(1)), Some(Blocked));
    assert_eq!(world.state(id(2)), Some(Failed));
    assert_eq!(
        world.reason(id(2)),
        "it closes a cycle of dependencies: b@1.0.0 -> a@1.0.0 -> b@1.0.0"
    );
    // A change of the earlier one does not make it the later one.
    let changed = Report {
        concurrency: 9,
        ..a
    };
    world.report(0, 1, changed);
    assert_eq!(
        (world.state(id(1)), world.state(id(2))),
        (Some(Blocked), Some(Failed))
    );
    let (one, other) = (&world.coordinators[0].table, &world.coordinators[1].table);
    assert_eq!(one.revision(), other.revision());
    assert!(one.instances().eq(other.instances()));
}

#[test]
fn a_ring_that_lost_its_way_in_does_not_hold_itself_up() {
    let mut world = one_node();
    let way_in = manifest("c@1.0.0", &[], &["service:x.y"]);
    let a = manifest("a@1.0.0", &["service:x.y ^1"], &[]);
    let b = manifest("b@1.0.0", &["a ^1"], &["service:x.y"]);
    for (number, manifest) in [(1, &way_in), (2, &a), (3, &b)] {
        world.report(0, 1, report(number, manifest, Phase::Ready));
    }
    assert_eq!(world.state(id(3)), Some(Active));
    world.gone(0, 1, id(1));
    assert_eq!(
        (world.state(id(2)), world.state(id(3))),
        (Some(Degraded), Some(Degraded))
    );
    world.report(0, 1, report(4, &way_in, Phase::Ready));
    assert_eq!(
        (world.state(id(2)), world.state(id(3))),
        (Some(Active), Some(Active))
    );
}

#[test]
fn what_is_not_announced_is_gone_and_what_changed_is_taken() {
    let mut world = one_node();
    let calculator = manifest("calculator@1.0.0", &[], &["tool:add"]);
    world.report(0, 1, report(1, &calculator, Phase::Ready));
    world.report(0, 1, report(2, &calculator, Phase::Ready));
    let changed = manifest("calculator@1.0.0", &[], &["tool:add", "tool:subtract"]);
    world.announce(0, 1, vec![report(2, &changed, Phase::Ready)]);
    assert_eq!(
        (world.state(id(1)), world.state(id(2))),
        (None, Some(Active))
    );
    let table = &world.coordinators[0].table;
    assert_eq!(table.providers(&"tool:subtract".parse().unwrap()), [id(2)]);
    assert_eq!(table.manifests().count(), 1);
}

#[test]
fn an_instance_of_another_node_is_refused() {
    let mut world = one_node();
    world.open(0, 2, "b", 7);
    let calculator = manifest("calculator@1.0.0", &[], &[]);
    world.report(0, 1, report(1, &calculator, Phase::Ready));
    world.report(0, 2, report(1, &calculator, Phase::Ready));
    let rejected = world.rejected(0);
    assert!(
        rejected[0].1.message.contains("runs on node a"),
        "{}",
        rejected[0].1
    );
    world.announce(0, 2, vec![]);
    assert_eq!(world.state(id(1)), Some(Active));
}

#[test]
fn an_agent_that_announces_nothing_is_asked() {
    let mut world = World::new(1);
    world.open(0, 1, "a", 7);
    let asked = |world: &mut World| {
        let said = world.at(0).said.iter();
        said.filter(|it| matches!(it, Command::AskAnnounce { .. }))
            .count()
    };
    world.pass(11_000, &[(0, SessionId(1))]);
    assert_eq!(asked(&mut world), 2);
    world.announce(0, 1, vec![]);
    world.pass(11_000, &[(0, SessionId(1))]);
    assert_eq!(asked(&mut world), 2);
}
