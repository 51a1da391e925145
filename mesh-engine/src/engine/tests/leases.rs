//! Ghosts, leases and evictions: who is out of sight is not dead.

use super::*;

fn with_calculator(coordinators: usize) -> World {
    let mut world = World::new(coordinators);
    world.open(0, 1, "a", 7);
    let calculator = manifest("calculator@1.0.0", &[], &["tool:add"]);
    world.announce(0, 1, vec![report(1, &calculator, Phase::Ready)]);
    world
}

/// Until the office is taken by one who does not know that nobody else holds it, and its first lease is over.
const JUDGING: u64 = 5 * LEASE / 2;

fn here(world: &World) -> bool {
    world.state(id(1)) == Some(InstanceState::Active)
}

#[test]
fn a_node_is_evicted_one_lease_after_its_stream_went_down() {
    let mut world = with_calculator(1);
    world.pass(5 * LEASE, &[(0, SessionId(1))]);
    world.close(0, 1);
    world.pass(LEASE, &[]);
    assert!(here(&world));
    world.pass(2_000, &[]);
    assert_eq!(world.state(id(1)), None);
    assert_eq!(world.at(0).table.nodes().count(), 0);
    assert!(
        world
            .warnings(0)
            .iter()
            .any(|text| text.starts_with("node a is evicted"))
    );
    let left = world.store.snapshot().into_iter();
    let left = left.filter(|entry| entry.value.is_some());
    assert_eq!(left.map(|it| it.key).collect::<Vec<_>>(), ["lease"]);
}

#[test]
fn a_silent_node_whose_stream_is_up_stays() {
    let mut world = with_calculator(1);
    world.pass(5 * LEASE, &[]);
    assert!(here(&world));
}

#[test]
fn losing_the_store_deletes_nothing_and_begins_all_leases_anew() {
    let mut world = with_calculator(1);
    world.close(0, 1);
    world.disconnect(0);
    world.pass(5 * LEASE, &[]);
    assert!(here(&world));
    world.reconnect(0);
    world.pass(JUDGING, &[]);
    assert!(here(&world));
    world.pass(3_000, &[]);
    assert_eq!(world.state(id(1)), None);
}

#[test]
fn a_restarted_coordinator_waits_until_the_office_is_free_and_one_lease_before_it_judges() {
    let mut world = with_calculator(1);
    world.now.0 += 10 * LEASE;
    world.start(0, "coordinator-0");
    assert!(here(&world));
    world.pass(JUDGING, &[]);
    assert!(here(&world));
    world.pass(3_000, &[]);
    assert_eq!(world.state(id(1)), None);
}

#[test]
fn a_node_that_comes_back_in_time_keeps_its_instances() {
    let mut world = with_calculator(1);
    world.now.0 += 10 * LEASE;
    world.start(0, "coordinator-0");
    world.pass(LEASE - 1_000, &[]);
    world.open(0, 5, "a", 7);
    world.pass(5 * LEASE, &[(0, SessionId(5))]);
    assert!(here(&world), "it has not announced yet");
    let calculator = manifest("calculator@1.0.0", &[], &["tool:add"]);
    let before = world.store.told.len();
    world.announce(0, 5, vec![report(1, &calculator, Phase::Ready)]);
    assert!(here(&world));
    assert_eq!(
        world.store.told.len(),
        before,
        "nothing changed, nothing is written"
    );
}

#[test]
fn a_process_that_stood_still_evicts_nobody_when_it_goes_on() {
    let mut world = with_calculator(1);
    world.close(0, 1);
    world.now.0 += 10 * LEASE;
    world.tell(0, Event::Tick);
    world.settle();
    assert!(here(&world));
}

#[test]
fn a_node_that_another_coordinator_holds_is_for_that_one_to_judge() {
    let mut world = with_calculator(2);
    world.pass(5 * LEASE, &[(0, SessionId(1))]);
    assert!(here(&world));
    // When its holder has closed it, anybody may.
    world.close(0, 1);
    world.start(0, "coordinator-9");
    world.pass(LEASE + 2_000, &[]);
    assert_eq!(world.state(id(1)), None);
}

/// Time for the coordinators of a world in which only some still run.
fn pass_for(world: &mut World, living: &[usize], millis: u64) {
    for _ in 0..millis / 1_000 {
        world.now.0 += 1_000;
        for number in living {
            world.tell(*number, Event::Tick);
        }
        loop {
            let moved = living
                .iter()
                .filter(|number| world.write_one(**number) || world.hear_one(**number));
            if moved.count() == 0 {
                break;
            }
        }
    }
}

#[test]
fn a_node_whose_holder_is_dead_for_three_leases_is_evicted_by_another_coordinator() {
    let mut world = with_calculator(2);
    pass_for(&mut world, &[0, 1], 5 * LEASE);
    assert!(here(&world));
    // Its last renewal may be a lease old.
    pass_for(&mut world, &[1], 2 * LEASE - 2_000);
    let table = |world: &World| world.coordinators[1].table.instances().count();
    assert_eq!(table(&world), 1);
    pass_for(&mut world, &[1], LEASE + 5_000);
    assert_eq!(table(&world), 0);
}

#[test]
fn a_holder_with_a_longer_lease_has_three_of_its_own() {
    let mut world = with_calculator(2);
    pass_for(&mut world, &[0, 1], 2 * LEASE);
    let record = json!({"run": 1, "renewals": 9, "lease_ms": 3 * LEASE});
    let text = json!({"format": 1, "record": record}).to_string();
    let now = world.now;
    world
        .store
        .put("coordinator.coordinator-0", Some(text.into()), now);
    pass_for(&mut world, &[1], 9 * LEASE);
    assert_eq!(world.coordinators[1].table.instances().count(), 1);
    pass_for(&mut world, &[1], 3_000);
    assert_eq!(world.coordinators[1].table.instances().count(), 0);
}

#[test]
fn a_holder_that_never_knew_of_others_is_not_taken_for_dead() {
    let mut world = with_calculator(1);
    world.disconnect(0);
    // It keeps its agents, as far as it knows there is nobody else for them.
    world.start(1, "later");
    world.pass(10 * LEASE, &[(0, SessionId(1))]);
    assert_eq!(world.closed(0), []);
    assert_eq!(world.coordinators[1].table.instances().count(), 1);
}

#[test]
fn who_does_not_hear_its_own_renewals_judges_nobodys_nodes() {
    let mut world = with_calculator(2);
    pass_for(&mut world, &[0, 1], 2 * LEASE);
    // The store takes writes of both, but tells the second one nothing.
    let told = world.store.told.len();
    for _ in 0..8 * LEASE / 1_000 {
        world.now.0 += 1_000;
        for number in [0, 1] {
            world.tell(number, Event::Tick);
            while world.write_one(number) {}
        }
        while world.hear_one(0) {}
    }
    assert!(here(&world));
    let heard = world.store.told[told..].iter();
    assert!(
        heard
            .clone()
            .all(|entry| entry.key.starts_with("coordinator."))
    );
    assert!(heard.count() >= 7, "the first one renews");
}

#[test]
fn a_coordinator_that_reads_the_store_anew_again_and_again_still_renews() {
    let mut world = with_calculator(2);
    pass_for(&mut world, &[0, 1], 2 * LEASE);
    for _ in 0..5 * LEASE / 5_000 {
        world.reconnect(0);
        pass_for(&mut world, &[0, 1], 5_000);
    }
    let node = world
        .store
        .told
        .iter()
        .filter(|entry| entry.key == "node.a");
    assert_eq!(
        node.count(),
        1,
        "it was never evicted, and so not written again"
    );
}

#[test]
fn a_coordinator_that_lost_the_store_sends_its_agents_to_the_others_before_they_judge() {
    let mut world = with_calculator(2);
    pass_for(&mut world, &[0, 1], 2 * LEASE);
    world.disconnect(0);
    pass_for(&mut world, &[0, 1], LEASE / 2);
    assert_eq!(world.closed(0), []);
    pass_for(&mut world, &[0, 1], 2_000);
    let closed = world.closed(0);
    assert!(closed[0].1.contains("join another one"), "{closed:?}");
    world.open(1, 2, "a", 7);
    let calculator = manifest("calculator@1.0.0", &[], &["tool:add"]);
    world.announce(1, 2, vec![report(1, &calculator, Phase::Ready)]);
    pass_for(&mut world, &[0, 1], 5 * LEASE);
    world.reconnect(0);
    pass_for(&mut world, &[0, 1], 5 * LEASE);
    assert!(here(&world));
}

#[test]
fn who_is_not_recorded_when_the_store_is_lost_is_sent_on_before_the_others_judge() {
    let mut world = with_calculator(2);
    pass_for(&mut world, &[0, 1], 2 * LEASE);
    world.disconnect(0);
    world.open(0, 5, "b", 1);
    pass_for(&mut world, &[0, 1], LEASE / 4 + 2_000);
    let closed: Vec<u64> = world.closed(0).iter().map(|(id, _)| *id).collect();
    assert_eq!(closed, [5], "the recorded one stays for half a lease");
}

#[test]
fn who_cannot_be_recorded_is_sent_on_before_the_others_judge() {
    for coordinators in [1, 2] {
        let mut world = with_calculator(coordinators);
        pass_for(&mut world, &[0, coordinators - 1], 2 * LEASE);
        world.at(0).stuck = true;
        world.open(0, 5, "b", 1);
        pass_for(&mut world, &[0, coordinators - 1], LEASE / 4 + 2_000);
        let closed: Vec<u64> = world.closed(0).iter().map(|(id, _)| *id).collect();
        let expected: &[u64] = if coordinators > 1 { &[5] } else { &[] };
        assert_eq!(closed, expected, "of {coordinators}");
    }
}

#[test]
fn a_coordinator_whose_renewals_fail_sends_its_agents_on_before_it_is_taken_for_dead() {
    let mut world = with_calculator(2);
    pass_for(&mut world, &[0, 1], 2 * LEASE);
    world.at(0).stuck = true;
    pass_for(&mut world, &[0, 1], LEASE);
    assert_eq!(world.closed(0), []);
    pass_for(&mut world, &[0, 1], 5_000);
    let closed: Vec<u64> = world.closed(0).iter().map(|(id, _)| *id).collect();
    assert_eq!(closed, [1]);
    pass_for(&mut world, &[0, 1], LEASE / 2);
    assert!(here(&world), "it has time to join another one");
}

#[test]
fn a_node_whose_holder_is_an_older_run_that_wrote_late_is_evicted_in_the_end() {
    let mut world = with_calculator(1);
    // Written before the restart, stored after it.
    world.close(0, 1);
    world.open(0, 2, "a", 7);
    let late = world.store.told.iter().rev();
    let late = late.clone().find(|it| it.key == "node.a").cloned().unwrap();
    world.now.0 += 1_000;
    world.start(0, "coordinator-0");
    world.store.put(&late.key, late.value, world.now);
    world.settle();
    world.pass(2 * LEASE, &[]);
    assert!(here(&world), "it may be another process");
    world.pass(4 * LEASE, &[]);
    assert!(!here(&world));
}

#[test]
fn a_coordinator_that_is_alone_keeps_its_agents_without_the_store_and_renews_nothing() {
    let mut world = with_calculator(1);
    let before = world.store.told.len();
    world.pass(5 * LEASE, &[(0, SessionId(1))]);
    assert_eq!(world.store.told.len(), before);
    world.disconnect(0);
    world.pass(5 * LEASE, &[(0, SessionId(1))]);
    assert_eq!(world.closed(0), []);
}

#[test]
fn a_node_that_moves_to_another_coordinator_is_no_longer_the_firsts() {
    let mut world = with_calculator(2);
    world.open(1, 2, "a", 7);
    let closed = world.closed(0);
    assert_eq!(closed.len(), 1, "{closed:?}");
    assert!(
        closed[0]
            .1
            .contains("connected to coordinator coordinator-1"),
        "{}",
        closed[0].1
    );
    world.pass(3 * LEASE, &[(1, SessionId(2))]);
    assert!(here(&world));
    let changed = manifest("calculator@1.1.0", &[], &["tool:add"]);
    world.announce(1, 2, vec![report(3, &changed, Phase::Ready)]);
    assert_eq!((world.state(id(1)), here(&world)), (None, false));
    assert_eq!(world.state(id(3)), Some(InstanceState::Active));
}

#[test]
fn a_ghost_of_an_older_generation_is_refused() {
    let mut world = with_calculator(2);
    for coordinator in [0, 1] {
        world.open(coordinator, 9, "a", 6);
        let closed = world.closed(coordinator);
        assert_eq!(closed.len(), 1, "{closed:?}");
        assert!(
            closed[0]
                .1
                .starts_with("stale_node: node a of generation 6 can't join")
        );
    }
    assert!(here(&world));
}

#[test]
fn a_second_session_of_a_living_generation_is_refused_and_of_a_silent_one_not() {
    let mut world = with_calculator(1);
    world.open(0, 2, "a", 7);
    assert!(world.closed(0)[0].1.contains("it is connected already"));
    world.at(0).said.clear();
    world.pass(LEASE + 1_000, &[]);
    world.open(0, 3, "a", 7);
    assert_eq!(
        world
            .closed(0)
            .iter()
            .map(|(session, _)| *session)
            .collect::<Vec<_>>(),
        [1]
    );
    assert!(here(&world));
}

#[test]
fn a_new_generation_takes_the_instances_of_the_old_one_away_at_once() {
    let mut world = with_calculator(1);
    let open = Event::AgentOpened {
        session: SessionId(2),
        node: node("a", 8),
        table: None,
    };
    world.tell(0, open);
    assert!(here(&world));
    // With the node's own record they are gone from the table, whatever else is written later.
    assert!(world.write_one(0) && world.hear_one(0));
    assert_eq!(world.state(id(1)), None);
    world.settle();
    assert_eq!(world.closed(0)[0].0, 1);
    let live = world
        .store
        .snapshot()
        .into_iter()
        .filter(|entry| entry.value.is_some());
    assert_eq!(live.map(|entry| entry.key).collect::<Vec<_>>(), ["node.a"]);
}

#[test]
fn a_new_generation_may_go_on_with_an_instance_of_the_old_one() {
    let mut world = with_calculator(1);
    world.open(0, 2, "a", 8);
    let calculator = manifest("calculator@1.0.0", &[], &["tool:add"]);
    world.announce(0, 2, vec![report(1, &calculator, Phase::Ready)]);
    assert!(here(&world));
    let route = world.coordinators[0].table.instance(id(1)).unwrap();
    assert_eq!(route.generation, Generation(8));
}

#[test]
fn a_session_that_opens_while_an_eviction_is_written_keeps_its_node() {
    let mut world = with_calculator(2);
    world.close(0, 1);
    world.pass(LEASE, &[]);
    world.now.0 += 1_000;
    world.tell(0, Event::Tick);
    // The other coordinator was faster with the node's new session.
    let open = Event::AgentOpened {
        session: SessionId(2),
        node: node("a", 7),
        table: None,
    };
    world.tell(1, open);
    while world.write_one(1) {}
    world.settle();
    world.pass(2 * LEASE, &[(1, SessionId(2))]);
    assert!(here(&world));
}

#[test]
fn two_coordinators_of_one_name_are_noticed_and_do_not_evict_each_others_nodes() {
    let mut world = World::new(1);
    world.start(1, "coordinator-0");
    world.open(1, 2, "a", 7);
    let calculator = manifest("calculator@1.0.0", &[], &["tool:add"]);
    world.announce(1, 2, vec![report(1, &calculator, Phase::Ready)]);
    assert!(world.warnings(0)[0].starts_with("two coordinators are called coordinator-0"));
    world.pass(5 * LEASE, &[(1, SessionId(2))]);
    assert!(here(&world));
}
