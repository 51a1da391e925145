//! The office: one coordinator at a time evicts nodes, and none that is too late.

use super::*;
use crate::record::{LeaseRecord, Record};

/// Two coordinators and a node whose session was closed in order.
fn with_somebody_gone() -> World {
    let mut world = World::new(2);
    world.open(0, 1, "a", 7);
    let calculator = manifest("calculator@1.0.0", &[], &["tool:add"]);
    world.announce(0, 1, vec![report(1, &calculator, Phase::Ready)]);
    world.close(0, 1);
    world
}

fn lease(world: &World) -> LeaseRecord {
    let entry = world.store.newest("lease").expect("somebody took it");
    let record = Record::decode(&Key::Lease, entry.value.as_ref().unwrap()).unwrap();
    match record {
        Record::Lease(record) => record,
        other => panic!("{other:?}"),
    }
}

fn holders(world: &World) -> Vec<usize> {
    let all = world.coordinators.iter().enumerate();
    let holding = all.filter(|(_, it)| it.engine.holds_office(world.now));
    holding.map(|(number, _)| number).collect()
}

fn here(world: &World) -> bool {
    world.coordinators[1].table.instances().count() == 1
}

/// Time for one coordinator; the other one stands still.
fn pass_for(world: &mut World, living: usize, millis: u64) {
    for _ in 0..millis / 1_000 {
        world.now.0 += 1_000;
        world.tell(living, Event::Tick);
        while world.write_one(living) || world.hear_one(living) {}
    }
}

#[test]
fn nobody_holds_it_and_nothing_is_written_while_all_are_well() {
    let mut world = World::new(1);
    world.open(0, 1, "a", 7);
    let before = world.store.told.len();
    world.pass(5 * LEASE, &[(0, SessionId(1))]);
    assert_eq!((holders(&world), world.store.told.len()), (vec![], before));
}

#[test]
fn one_takes_it_renews_it_and_lets_it_go_when_it_is_done() {
    let mut world = with_somebody_gone();
    world.pass(1_000, &[]);
    assert_eq!(holders(&world), [0]);
    let first = lease(&world);
    assert_eq!((first.holder.as_str(), first.term), ("coordinator-0", 1));
    for _ in 0..=LEASE / 1_000 {
        world.pass(1_000, &[]);
        assert_eq!(holders(&world), [0]);
    }
    assert_eq!(lease(&world).evicted.len(), 1, "one lease after it took it");
    world.pass(LEASE + 1_000, &[]);
    assert_eq!(holders(&world), [0_usize; 0]);
    assert_eq!(lease(&world).term, 1);
}

#[test]
fn it_is_over_for_its_holder_before_another_takes_it_who_then_waits_one_lease() {
    let mut world = with_somebody_gone();
    world.pass(1_000, &[]);
    assert_eq!(holders(&world), [0]);
    // The holder stands still; what it was about to write comes late.
    let mut both = false;
    let mut taken = None;
    for second in 1..200 {
        pass_for(&mut world, 1, 1_000);
        both |= holders(&world).len() > 1;
        if taken.is_none() && holders(&world) == [1] {
            taken = Some(second * 1_000);
            assert_eq!(lease(&world).term, 2);
        }
        if !here(&world) {
            let taken = taken.expect("it holds the office");
            assert!(taken > LEASE, "{taken}");
            assert!(second * 1_000 - taken > LEASE, "{second} {taken}");
            assert!(!both);
            return;
        }
    }
    panic!("it is never evicted");
}

#[test]
fn a_decision_that_comes_after_another_has_taken_it_is_refused() {
    let mut world = with_somebody_gone();
    pass_for(&mut world, 0, LEASE + 1_000);
    world.now.0 += 1_000;
    world.tell(0, Event::Tick);
    let late = world.at(0).writes.pop_front().expect("its decision");
    let value = String::from_utf8(late.2.clone().unwrap()).unwrap();
    assert!(value.contains(r#""evicted":{"a":"#), "{value}");
    // It is on its way for long.
    pass_for(&mut world, 1, 2 * LEASE);
    assert_eq!(lease(&world).term, 2);
    let (_, key, value, expected) = late;
    let now = world.now;
    let error = world.store.write(&key, value, expected, now);
    assert_eq!(error, Err(WriteError::Conflict));
    assert!(here(&world), "the new one has not waited yet");
}

#[test]
fn a_node_that_changes_after_the_decision_stays() {
    let mut world = with_somebody_gone();
    pass_for(&mut world, 0, LEASE + 1_000);
    world.now.0 += 1_000;
    world.tell(0, Event::Tick);
    assert!(world.write_one(0));
    // Decided; and the node is back at the other one before its record is deleted.
    while world.hear_one(1) {}
    let open = Event::AgentOpened {
        session: SessionId(2),
        node: node("a", 7),
        table: None,
    };
    world.tell(1, open);
    assert!(world.write_one(1));
    world.settle();
    world.pass(3 * LEASE, &[(1, SessionId(2))]);
    assert!(here(&world));
}

#[test]
fn a_holder_that_lost_the_store_in_between_takes_it_anew_and_waits() {
    let mut world = with_somebody_gone();
    world.pass(LEASE - 1_000, &[]);
    world.disconnect(0);
    assert_eq!(holders(&world), [0_usize; 0]);
    world.reconnect(0);
    world.settle();
    world.pass(1_000, &[]);
    assert_eq!((holders(&world), lease(&world).term), (vec![0], 2));
    world.pass(LEASE, &[]);
    assert!(here(&world));
    world.pass(2_000, &[]);
    assert!(!here(&world));
}

#[test]
fn a_copy_of_the_store_that_knows_of_no_holder_makes_nobody_one_at_once() {
    let mut world = with_somebody_gone();
    let copied = world.store.told.len();
    world.pass(1_000, &[]);
    assert_eq!(holders(&world), [0]);
    // The holder stands still.
    world.store.go_back(copied);
    world.disconnect(1);
    world.reconnect(1);
    for _ in 0..2 * LEASE / 1_000 {
        pass_for(&mut world, 1, 1_000);
        assert!(holders(&world).len() < 2);
    }
    assert_eq!(holders(&world), [1]);
}

#[test]
fn a_copy_of_the_store_by_which_one_holds_it_who_lost_it_does_not_give_it_back_at_once() {
    let mut world = with_somebody_gone();
    pass_for(&mut world, 0, 1_000);
    let copied = world.store.told.len();
    pass_for(&mut world, 1, 2 * LEASE);
    assert_eq!(holders(&world), [1]);
    // Who holds it now stands still.
    world.store.go_back(copied);
    world.disconnect(0);
    world.reconnect(0);
    for _ in 0..2 * LEASE / 1_000 {
        pass_for(&mut world, 0, 1_000);
        assert!(holders(&world).len() < 2);
    }
    assert_eq!(holders(&world), [0]);
}
