//! A store that is replaced by an older copy: nobody's table goes back, and nobody stays behind.

use super::*;
use InstanceState::Active;

fn calculator() -> Arc<Manifest> {
    manifest("calculator@1.0.0", &[], &["tool:add"])
}

/// A node with a plugin, and how much of the store a copy holds that is older than the plugin.
fn with_calculator() -> (World, usize) {
    let mut world = World::new(1);
    world.open(0, 1, "a", 7);
    let copy = world.store.told.len();
    world.announce(0, 1, vec![report(1, &calculator(), Phase::Ready)]);
    (world, copy)
}

fn open_with(world: &mut World, session: u64, name: &str, table: Revision) {
    let event = Event::AgentOpened {
        session: SessionId(session),
        node: node(name, 7),
        table: Some(table),
    };
    world.tell(0, event);
    world.settle();
}

#[test]
fn a_coordinator_whose_store_went_back_begins_a_new_epoch_when_its_nodes_are_recorded_again() {
    let (mut world, copy) = with_calculator();
    world.ask("calculator", Change::Disable).unwrap();
    let table = world.at(0).table.revision();
    world.disconnect(0);
    world.store.go_back(copy);
    world.reconnect(0);
    assert_eq!(world.at(0).table.revision(), table);
    let why = world.coordinators[0]
        .engine
        .held_back()
        .expect("it says so");
    assert!(why.contains("older than the published table"), "{why}");
    world.settle();
    assert_eq!(world.at(0).table.revision().epoch, table.epoch + 1);
    // The disabling was lost with the copy; the plugin was recorded again.
    assert_eq!(world.state(id(1)), Some(Active));
    assert_eq!(world.coordinators[0].engine.held_back(), None);
}

#[test]
fn a_fresh_coordinator_over_an_older_copy_passes_those_who_follow() {
    for by_agent in [true, false] {
        let (mut world, copy) = with_calculator();
        let table = world.at(0).table.revision();
        world.store.go_back(copy);
        world.now.0 += 1_000;
        world.start(0, "coordinator-0");
        assert!(world.at(0).table.revision() < table);
        if by_agent {
            open_with(&mut world, 2, "a", table);
        } else {
            world.tell(0, Event::TableSeen { table });
            world.open(0, 2, "a", 7);
        }
        world.announce(0, 2, vec![report(1, &calculator(), Phase::Ready)]);
        // Others may still be on their way.
        assert_eq!(world.state(id(1)), None);
        world.pass(LEASE + 1_000, &[(0, SessionId(2))]);
        assert!(world.at(0).table.revision() > table);
        assert_eq!(world.state(id(1)), Some(Active));
        // One that starts later knows it from the store.
        let revision = world.at(0).table.revision();
        world.start(0, "coordinator-0");
        assert_eq!(world.at(0).table.revision(), revision);
    }
}

#[test]
fn who_was_only_late_to_hear_begins_no_epoch() {
    let (mut world, _) = with_calculator();
    let epoch = world.store.epoch;
    world.start(1, "late");
    world.report(0, 1, report(2, &calculator(), Phase::Ready));
    let table = world.at(0).table.revision();
    // The second one has not heard of the last changes, and is told by a follower that there are some.
    let heard = world.store.told.len() - 2;
    world.start(1, "late");
    world.coordinators[1] = {
        let mut late = World::new(0);
        late.now = world.now;
        late.store = Store {
            epoch,
            told: world.store.told.clone(),
            last: 0,
        };
        late.store.go_back(heard);
        late.start(0, "late");
        late.coordinators.remove(0)
    };
    assert!(world.at(1).table.revision() < table);
    world.tell(1, Event::TableSeen { table });
    world.settle();
    let (one, other) = (&world.coordinators[0].table, &world.coordinators[1].table);
    assert!(one.revision() > table);
    assert_eq!(one.revision(), other.revision());
    assert_eq!(one.revision().epoch, epoch);
    // And nobody asks again.
    world.tell(1, Event::TableSeen { table });
    world.pass(5_000, &[(0, SessionId(1))]);
    let asked = world.store.told.iter().filter(|it| it.key == "epoch");
    assert_eq!(asked.count(), 1);
}

#[test]
fn a_table_of_another_bucket_that_was_newer_is_passed_too() {
    let (mut world, _) = with_calculator();
    let table = Revision {
        epoch: 500_000,
        sequence: 3,
    };
    world.tell(0, Event::TableSeen { table });
    world.pass(LEASE + 1_000, &[(0, SessionId(1))]);
    assert_eq!(world.at(0).table.revision().epoch, 500_001);
    // It may happen again.
    let table = Revision {
        epoch: 500_001,
        sequence: 1_000,
    };
    world.tell(0, Event::TableSeen { table });
    world.pass(LEASE + 1_000, &[(0, SessionId(1))]);
    assert_eq!(world.at(0).table.revision().epoch, 500_002);
    assert_eq!(world.state(id(1)), Some(Active));
}

#[test]
fn a_table_from_the_future_is_not_believed() {
    let (mut world, _) = with_calculator();
    let before = world.store.told.len();
    let table = Revision {
        epoch: u64::MAX,
        sequence: 1,
    };
    world.tell(0, Event::TableSeen { table });
    world.settle();
    assert_eq!(world.store.told.len(), before);
    assert!(world.warnings(0)[0].contains("lies in the future"));
}
