//! What operators may do, and what it does to others.

use super::*;
use InstanceState::{Active, Blocked, Degraded, Draining, Initialized};
use mesh_core::error::ErrorCode;

const UNLOAD: Change = Change::Unload { cascade: false };
const CASCADE: Change = Change::Unload { cascade: true };

/// base <- middle <- top, all active on one node.
fn chain() -> World {
    let mut world = World::new(1);
    world.open(0, 1, "a", 7);
    world.announce(0, 1, vec![]);
    for (number, manifest) in [
        (1, manifest("base@1.0.0", &[], &["service:base.get"])),
        (2, manifest("middle@1.0.0", &["base ^1"], &[])),
        (3, manifest("top@1.0.0", &["middle ^1"], &[])),
    ] {
        world.report(0, 1, report(number, &manifest, Phase::Ready));
    }
    world.at(0).said.clear();
    world
}

#[test]
fn a_disabled_plugin_takes_no_calls_and_its_dependents_lose_it() {
    let mut world = chain();
    let outcome = world.ask("base", Change::Disable).unwrap();
    assert_eq!(names(&outcome.changed), ["base"]);
    assert_eq!(names(&outcome.affected), ["middle", "top"]);
    assert!(outcome.revision <= world.at(0).table.revision());
    assert_eq!(world.state(id(1)), Some(Initialized));
    assert_eq!(world.reason(id(1)), "disabled by ann: a test");
    assert_eq!(
        (world.state(id(2)), world.state(id(3))),
        (Some(Degraded), Some(Degraded))
    );
    let view = world.coordinators[0]
        .engine
        .plugin(&"base".parse().unwrap());
    assert!(view[0].disabled && !view[0].unloaded);
    assert!(world.directives(0).is_empty(), "its processes go on");

    let outcome = world.ask("base", Change::Enable).unwrap();
    assert_eq!(
        (names(&outcome.changed), names(&outcome.affected)),
        (vec!["base"], vec![])
    );
    for number in [1, 2, 3] {
        assert_eq!(world.state(id(number)), Some(Active));
    }
}

#[test]
fn a_change_that_changes_nothing_is_answered_at_once() {
    let mut world = chain();
    world.ask("base", Change::Disable).unwrap();
    let before = world.store.told.len();
    let outcome = world.ask("base", Change::Disable).unwrap();
    assert!(outcome.changed.is_empty() && outcome.affected.is_empty());
    assert_eq!(world.store.told.len(), before);
}

#[test]
fn a_disabled_plugin_stays_disabled_when_it_attaches_anew() {
    let mut world = chain();
    world.ask("top", Change::Disable).unwrap();
    world.gone(0, 1, id(3));
    let top = manifest("top@1.0.0", &["middle ^1"], &[]);
    world.report(0, 1, report(4, &top, Phase::Ready));
    assert_eq!(world.state(id(4)), Some(Initialized));
}

#[test]
fn unloading_what_others_need_is_refused_with_the_list() {
    let mut world = chain();
    let error = world.ask("base", UNLOAD).unwrap_err();
    assert_eq!(error.code, ErrorCode::StillRequired);
    assert!(
        error.message.contains("middle@1.0.0 (needs base ^1)"),
        "{error}"
    );
    assert!(
        error.message.contains("top@1.0.0 (needs middle ^1)"),
        "{error}"
    );
    assert_eq!(
        error.details.as_deref(),
        Some(r#"{"blocked":["middle@1.0.0","top@1.0.0"]}"#)
    );
    assert_eq!(world.state(id(1)), Some(Active));
}

#[test]
fn what_another_version_or_provider_serves_may_be_unloaded() {
    let mut world = chain();
    let user = manifest("user@1.0.0", &["service:base.get ^1"], &[]);
    world.report(0, 1, report(4, &user, Phase::Ready));
    let other = manifest("other@1.0.0", &[], &["service:base.get"]);
    world.report(0, 1, report(5, &other, Phase::Ready));
    let error = world.ask("base", UNLOAD).unwrap_err();
    assert!(
        !error.message.contains("user@"),
        "another provider serves it: {error}"
    );
    world.ask("middle", CASCADE).unwrap();
    world.ask("base", UNLOAD).unwrap();
    assert_eq!(world.state(id(4)), Some(Active));
}

#[test]
fn a_dependent_that_is_blocked_or_disabled_anyway_is_not_listed() {
    let mut world = chain();
    let hopeless = manifest("hopeless@1.0.0", &["base ^1", "gone ^1"], &[]);
    world.report(0, 1, report(4, &hopeless, Phase::Ready));
    world.ask("middle", Change::Disable).unwrap();
    world.pass(2 * GRACE, &[(0, SessionId(1))]);
    assert_eq!(world.state(id(3)), Some(Blocked));
    assert_eq!(names(&world.ask("base", UNLOAD).unwrap().changed), ["base"]);
}

#[test]
fn a_cascade_stops_dependents_first_and_each_waits_for_those_before_it() {
    let mut world = chain();
    let outcome = world.ask("base", CASCADE).unwrap();
    assert_eq!(names(&outcome.changed), ["top", "middle", "base"]);
    assert!(outcome.affected.is_empty());
    assert_eq!(world.directives(0), [(1, Action::Unload, "top".into())]);
    assert_eq!(world.state(id(3)), Some(Draining));
    // What top may still call goes on meanwhile.
    assert_eq!(
        (world.state(id(2)), world.state(id(1))),
        (Some(Active), Some(Active))
    );
    assert_eq!(
        world.reason(id(2)),
        "it will be unloaded when top@1.0.0 has stopped"
    );
    world.at(0).said.clear();
    world.gone(0, 1, id(3));
    assert_eq!(world.directives(0), [(1, Action::Unload, "middle".into())]);
    world.at(0).said.clear();
    world.gone(0, 1, id(2));
    assert_eq!(world.directives(0), [(1, Action::Unload, "base".into())]);
    world.gone(0, 1, id(1));
    let shown = world.coordinators[0]
        .engine
        .plugins(&PluginFilter::default());
    assert_eq!(shown.len(), 3, "what is unloaded is still shown");
    assert!(
        shown
            .iter()
            .all(|view| view.unloaded && view.instances.is_empty())
    );
}

#[test]
fn an_agent_that_comes_later_is_told_what_is_unloaded_and_what_was_enabled_again() {
    let mut world = chain();
    world.ask("top", UNLOAD).unwrap();
    world.open(0, 2, "b", 1);
    assert_eq!(
        world.directives(0),
        [
            (1, Action::Unload, "top".into()),
            (2, Action::Unload, "top".into())
        ]
    );
    world.gone(0, 1, id(3));
    world.ask("top", Change::Enable).unwrap();
    let mut told = world.directives(0);
    told.sort_by_key(|(session, ..)| *session);
    assert_eq!(
        told,
        [
            (1, Action::Start, "top".into()),
            (2, Action::Start, "top".into())
        ]
    );
    world.at(0).said.clear();
    world.open(0, 3, "c", 1);
    assert_eq!(world.directives(0), [(3, Action::Start, "top".into())]);
}

#[test]
fn an_unknown_plugin_is_named() {
    let mut world = chain();
    let error = world.ask("nobody", Change::Disable).unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
    assert!(
        error.to_string().contains("there is no plugin nobody"),
        "{error}"
    );
}

#[test]
fn without_the_store_a_change_is_refused_at_once_and_works_again_afterwards() {
    let mut world = chain();
    world.disconnect(0);
    world.begin("base", Change::Disable);
    let error = world.answer().expect("at once").unwrap_err();
    assert_eq!(error.code, ErrorCode::Disconnected);
    world.reconnect(0);
    assert!(world.ask("base", Change::Disable).is_ok());
}

#[test]
fn a_store_that_is_lost_before_it_confirms_leaves_no_request_open() {
    let mut world = chain();
    world.begin("base", Change::Disable);
    assert!(world.answer().is_none());
    world.disconnect(0);
    assert_eq!(
        world.answer().unwrap().unwrap_err().code,
        ErrorCode::OutcomeUnknown
    );
    world.settle();
    world.reconnect(0);
    world.settle();
    assert_eq!(
        world.state(id(1)),
        Some(Active),
        "a change that was given up does not come later"
    );
}

#[test]
fn a_store_that_never_confirms_is_reported_in_time() {
    let mut world = chain();
    world.begin("base", Change::Disable);
    world.now.0 += 6_000;
    world.tell(0, Event::Tick);
    let error = world.answer().expect("in time").unwrap_err();
    assert_eq!(error.code, ErrorCode::OutcomeUnknown);
    assert!(
        error.message.contains("look before you try again"),
        "{error}"
    );
}

#[test]
fn a_second_change_of_a_plugin_waits_for_the_first() {
    let mut world = chain();
    world.begin("base", Change::Disable);
    world.begin("base", Change::Enable);
    assert_eq!(
        world.answer().unwrap().unwrap_err().code,
        ErrorCode::Unavailable
    );
    world.settle();
    assert_eq!(world.state(id(1)), Some(Initialized));
}

#[test]
fn a_change_of_another_coordinator_in_between_is_overtaken() {
    let mut world = World::new(2);
    world.open(0, 1, "a", 7);
    world.report(
        0,
        1,
        report(1, &manifest("base@1.0.0", &[], &[]), Phase::Ready),
    );
    let operation = |change| Operation {
        plugin: "base".parse().unwrap(),
        change,
        by: String::new(),
        reason: String::new(),
        expected: None,
    };
    for (number, change) in [(0, Change::Disable), (1, UNLOAD)] {
        let request = RequestId(number as u64);
        world.tell(
            number,
            Event::Requested {
                request,
                operation: operation(change),
            },
        );
    }
    world.settle();
    for number in [0, 1] {
        let replies = world.at(number).said.iter();
        let ok = |it: &&Command| matches!(it, Command::Reply { result: Ok(_), .. });
        assert_eq!(replies.filter(ok).count(), 1);
    }
    assert_eq!(
        world.coordinators[0].table.revision(),
        world.coordinators[1].table.revision()
    );
}

#[test]
fn views_show_plugins_nodes_and_the_graph() {
    let mut world = chain();
    let engine = &world.coordinators[0].engine;
    let filter = PluginFilter {
        kind: Some("services".parse().unwrap()),
        ..PluginFilter::default()
    };
    assert_eq!(engine.plugins(&filter).len(), 1);
    let filter = PluginFilter {
        state: Some(Blocked),
        ..PluginFilter::default()
    };
    assert!(engine.plugins(&filter).is_empty());
    let graph = engine.graph(Some(&"base".parse().unwrap()));
    assert_eq!(
        graph.start_order,
        ["base@1.0.0", "middle@1.0.0", "top@1.0.0"]
    );
    assert_eq!(graph.edges.len(), 2);
    let nodes = engine.nodes();
    assert!(nodes[0].connected && nodes[0].instances == 3);
    assert_eq!(engine.counts().instances, [(Active, 3)].into());
    world.close(0, 1);
    assert!(!world.coordinators[0].engine.nodes()[0].connected);
}

#[test]
fn all_versions_of_a_plugin_wait_for_those_who_need_one_of_them() {
    let mut world = chain();
    let newer = manifest("base@2.0.0", &[], &[]);
    world.report(0, 1, report(4, &newer, Phase::Ready));
    world.ask("base", CASCADE).unwrap();
    assert_eq!(
        (world.state(id(1)), world.state(id(4))),
        (Some(Active), Some(Active))
    );
    // However the records come, the table is the same.
    let changed = Report {
        concurrency: 3,
        ..report(
            1,
            &manifest("base@1.0.0", &[], &["service:base.get"]),
            Phase::Ready,
        )
    };
    world.report(0, 1, changed);
    let before = world.coordinators[0].table.clone();
    world.start(0, "coordinator-0");
    assert!(
        before
            .instances()
            .eq(world.coordinators[0].table.instances())
    );
    // Its only user needs the old version; when that one goes, nothing is left to wait for.
    world.open(0, 2, "a", 7);
    world.announce(
        0,
        2,
        vec![
            report(3, &manifest("top@1.0.0", &["middle ^1"], &[]), Phase::Ready),
            report(
                2,
                &manifest("middle@1.0.0", &["base ^1"], &[]),
                Phase::Ready,
            ),
            report(4, &newer, Phase::Ready),
        ],
    );
    assert_eq!(world.state(id(4)), Some(Draining));
}

#[test]
fn a_change_that_expects_what_is_no_more_is_refused_before_and_while_it_is_written() {
    let mut world = World::new(2);
    world.open(0, 1, "a", 7);
    let base = manifest("base@1.0.0", &[], &[]);
    world.report(0, 1, report(1, &base, Phase::Ready));
    let key: Key = "wish.base".parse().unwrap();
    let now = |world: &World| Revision {
        sequence: world.coordinators[0].engine.registry.sequence_of(&key),
        ..world.coordinators[0].engine.latest()
    };
    let none = now(&world);
    assert_eq!(none.sequence, 0);
    let asked = |world: &mut World, change, expected| {
        world.begin_if("base", change, Some(expected));
        world.settle();
        world.answer().unwrap()
    };
    assert!(asked(&mut world, Change::Disable, none).is_ok());
    let disabled = now(&world);
    for stale in [
        none,
        Revision {
            epoch: disabled.epoch + 1,
            ..disabled
        },
    ] {
        let error = asked(&mut world, Change::Enable, stale).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument);
        assert!(error.to_string().contains("expected: "), "{error}");
    }
    assert_eq!(now(&world), disabled);

    // Another coordinator is faster: the write is refused by the store, and not tried again.
    world.begin_if("base", Change::Enable, Some(disabled));
    let operation = Operation {
        plugin: "base".parse().unwrap(),
        change: UNLOAD,
        by: "bob".into(),
        reason: String::new(),
        expected: None,
    };
    let request = RequestId(2);
    world.tell(1, Event::Requested { request, operation });
    assert!(world.write_one(1));
    world.settle();
    assert!(world.answer().unwrap().is_err());
    let wish = world.coordinators[1]
        .engine
        .registry
        .wish(&"base".parse().unwrap());
    assert_eq!(wish, Some(crate::record::Wish::Unloaded));
}
