//! What operators are shown of nodes and coordinators.

use super::*;
use crate::engine::{NodeStanding, NodeView};

fn node(world: &mut World, number: usize, name: &str) -> NodeView {
    let nodes = world.at(number).engine.nodes();
    let mut nodes = nodes
        .into_iter()
        .filter(|view| view.route.node.as_str() == name);
    nodes.next().expect("the node is shown")
}

fn part(world: &mut World, number: usize, session: u64, parting: Parting) {
    let session = SessionId(session);
    world.tell(number, Event::AgentClosed { session, parting });
    world.settle();
}

#[test]
fn all_coordinators_show_how_a_node_parted() {
    for (parting, standing) in [
        (Parting::Left, NodeStanding::Left),
        (Parting::Broken, NodeStanding::Broken),
        (Parting::SentOn, NodeStanding::Between),
    ] {
        let mut world = World::new(2);
        world.open(0, 1, "a", 7);
        for number in [0, 1] {
            let view = node(&mut world, number, "a");
            assert_eq!(view.standing, NodeStanding::Connected);
            let holder = world.at(0).engine.config.name.clone();
            assert_eq!((view.coordinator, view.note.as_str()), (Some(holder), ""));
        }
        part(&mut world, 0, 1, parting);
        for number in [0, 1] {
            let view = node(&mut world, number, "a");
            assert_eq!((view.standing, view.coordinator), (standing, None));
            assert!(view.note.contains("out of the table"), "{}", view.note);
        }
    }
}

#[test]
fn one_that_was_silent_before_its_stream_broke_is_told_from_one_that_was_not() {
    // The end of a connection that was given up looks like a farewell.
    for parting in [Parting::Broken, Parting::Left] {
        let mut world = World::new(1);
        world.open(0, 1, "a", 7);
        world.pass(LEASE / 2 + 1_000, &[]);
        part(&mut world, 0, 1, parting);
        let view = node(&mut world, 0, "a");
        assert_eq!(view.standing, NodeStanding::Silent);
        assert!(view.note.contains("may run"), "{}", view.note);
    }
}

#[test]
fn coordinators_that_share_the_nodes_are_shown_and_who_holds_the_office_since_when() {
    let mut world = World::new(2);
    world.open(0, 1, "a", 7);
    world.open(1, 1, "b", 7);
    world.pass(LEASE, &[(0, SessionId(1)), (1, SessionId(1))]);
    let shown = world.at(0).engine.coordinators();
    let known: Vec<_> = shown
        .iter()
        .map(|it| (it.here, it.nodes, it.silent))
        .collect();
    assert_eq!(known, [(true, 1, false), (false, 1, false)]);
    assert!(shown.iter().all(|it| it.office.is_none()), "{shown:?}");
    let before = world.now;
    part(&mut world, 1, 1, Parting::Broken);
    world.pass(LEASE / 2, &[(0, SessionId(1))]);
    for number in [0, 1] {
        let shown = world.at(number).engine.coordinators();
        let offices: Vec<_> = shown.iter().filter_map(|it| it.office).collect();
        let [(since, term)] = offices.as_slice() else {
            panic!("{shown:?}");
        };
        assert!(*since >= before, "{since:?} {before:?}");
        assert_eq!(*term, 1);
    }
}
