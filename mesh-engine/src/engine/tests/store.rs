//! The store's faults: broken records, conflicts, losses, buckets that are new or old.

use super::*;
use InstanceState::{Active, Initialized};

fn calculator() -> Arc<Manifest> {
    manifest("calculator@1.0.0", &[], &["tool:add"])
}

fn with_calculator() -> World {
    let mut world = World::new(1);
    world.open(0, 1, "a", 7);
    world.announce(0, 1, vec![report(1, &calculator(), Phase::Ready)]);
    world
}

#[test]
fn a_broken_record_is_reported_by_its_key_and_skipped() {
    let mut world = with_calculator();
    let now = world.now;
    for (key, text) in [
        ("instance.01890a5d-ac96-774b-bcce-b302099a8057", "{"),
        (
            "wish.calculator",
            r#"{"format":1,"record":{"wish":"maybe"}}"#,
        ),
        ("what.is.this", "{}"),
    ] {
        world.store.put(key, Some(text.into()), now);
        world.settle();
        let warnings = world.warnings(0);
        assert!(warnings.last().unwrap().contains(key), "{warnings:?}");
    }
    assert_eq!(world.state(id(1)), Some(Active));
    assert_eq!(
        world.at(0).table.revision().sequence,
        world.store.told.last().unwrap().sequence
    );
    assert!(
        world.ask("calculator", Change::Disable).is_ok(),
        "a broken wish is written anew"
    );
    assert_eq!(world.state(id(1)), Some(Initialized));
}

#[test]
fn a_record_of_a_newer_coordinator_is_not_overwritten() {
    let mut world = with_calculator();
    let now = world.now;
    let newer = r#"{"format":2,"record":{"something":"else"}}"#;
    world.store.put("node.a", Some(newer.into()), now);
    world.settle();
    world.pass(3 * LEASE, &[]);
    assert!(world.warnings(0)[0].contains("has format 2"));
    let node = world
        .store
        .snapshot()
        .into_iter()
        .find(|it| it.key == "node.a")
        .unwrap();
    assert_eq!(node.value.unwrap(), newer.as_bytes());
    let kept = world
        .store
        .snapshot()
        .into_iter()
        .any(|it| it.key.starts_with("instance."));
    assert!(kept, "its instances are not orphans");
}

#[test]
fn a_record_that_vanishes_under_a_living_session_is_written_again() {
    let mut world = with_calculator();
    let now = world.now;
    for key in [format!("instance.{}", id(1)), "node.a".to_owned()] {
        world.store.put(&key, None, now);
        world.settle();
        assert_eq!(world.state(id(1)), Some(Active), "{key}");
    }
}

#[test]
fn a_bucket_that_was_emptied_is_written_anew_while_the_table_stays_as_it_is() {
    let mut world = with_calculator();
    world.open(0, 2, "b", 1);
    world.announce(0, 2, vec![report(2, &calculator(), Phase::Ready)]);
    let table = world.at(0).table.revision();
    world.store.told.clear();
    world.reconnect(0);
    let both = |world: &World| [id(1), id(2)].map(|id| world.state(id));
    assert_eq!(both(&world), [Some(Active), Some(Active)]);
    while world.write_one(0) && world.hear_one(0) {
        assert_eq!(both(&world), [Some(Active), Some(Active)]);
    }
    world.settle();
    assert_eq!(both(&world), [Some(Active), Some(Active)]);
    assert!(world.at(0).table.revision() > table);
    let keys = world.store.snapshot().into_iter().map(|it| it.key);
    let instances = keys.filter(|key| key.starts_with("instance."));
    assert_eq!(instances.count(), 2);
}

#[test]
fn what_agents_say_while_the_store_is_lost_is_recorded_when_it_is_back() {
    let mut world = with_calculator();
    world.disconnect(0);
    let table = world.at(0).table.revision();
    let time = manifest("time@1.0.0", &[], &[]);
    world.report(0, 1, report(2, &time, Phase::Ready));
    world.open(0, 2, "b", 1);
    world.announce(0, 2, vec![report(3, &time, Phase::Ready)]);
    world.gone(0, 1, id(1));
    world.pass(5_000, &[]);
    assert_eq!(world.at(0).table.revision(), table);
    assert_eq!(world.state(id(1)), Some(Active));
    world.reconnect(0);
    world.settle();
    assert_eq!(world.state(id(1)), None);
    assert_eq!(
        (world.state(id(2)), world.state(id(3))),
        (Some(Active), Some(Active))
    );
}

#[test]
fn a_coordinator_that_starts_without_its_store_serves_agents_once_it_comes() {
    let mut world = World::new(0);
    let config = EngineConfig {
        name: "late".parse().unwrap(),
        run: 1,
        lease: Duration::from_millis(LEASE),
        grace: Duration::from_millis(GRACE),
    };
    world.coordinators.push(Coordinator {
        engine: Engine::new(config, world.now),
        heard: 0,
        connected: false,
        stuck: false,
        writes: VecDeque::new(),
        table: Table::default(),
        said: Vec::new(),
    });
    world.open(0, 1, "a", 7);
    world.announce(0, 1, vec![report(1, &calculator(), Phase::Ready)]);
    assert!(
        world
            .at(0)
            .said
            .iter()
            .any(|it| matches!(it, Command::Welcome { .. }))
    );
    assert_eq!(world.state(id(1)), None);
    world.reconnect(0);
    world.settle();
    assert_eq!(world.state(id(1)), Some(Active));
}

#[test]
fn a_write_that_fails_is_tried_again() {
    let mut world = with_calculator();
    let time = manifest("time@1.0.0", &[], &[]);
    let session = SessionId(1);
    world.tell(
        0,
        Event::AgentReported {
            session,
            report: report(2, &time, Phase::Ready),
        },
    );
    let (write, key, ..) = world.at(0).writes.pop_front().unwrap();
    let error = WriteError::Unavailable("no leader".into());
    world.tell(0, Event::WriteFailed { write, key, error });
    assert!(world.at(0).writes.is_empty(), "not at once");
    world.pass(3_000, &[]);
    assert_eq!(world.state(id(2)), Some(Active));
}

#[test]
fn a_write_whose_outcome_is_not_known_is_not_done_twice() {
    let mut world = with_calculator();
    let time = manifest("time@1.0.0", &[], &[]);
    let session = SessionId(1);
    world.tell(
        0,
        Event::AgentReported {
            session,
            report: report(2, &time, Phase::Ready),
        },
    );
    let (write, key, value, expected) = world.at(0).writes.pop_front().unwrap();
    let now = world.now;
    world.store.write(&key, value, expected, now).unwrap();
    let error = WriteError::Unknown("timed out".into());
    world.tell(0, Event::WriteFailed { write, key, error });
    let before = world.store.told.len();
    world.settle();
    world.pass(3_000, &[]);
    assert_eq!(world.state(id(2)), Some(Active));
    // Only that it is active is noted beside it.
    assert_eq!(world.store.told.len(), before + 1);
}

#[test]
fn a_restart_brings_the_same_table_back() {
    let mut world = with_calculator();
    world.ask("calculator", Change::Disable).unwrap();
    let before = world.coordinators[0].table.clone();
    world.now.0 += 100_000;
    world.start(0, "coordinator-0");
    let after = &world.coordinators[0].table;
    assert_eq!(before.revision(), after.revision());
    assert!(before.instances().eq(after.instances()));
    assert!(before.nodes().eq(after.nodes()));
}

#[test]
fn a_new_bucket_takes_nobody_out_of_the_table_before_they_could_return() {
    let mut world = with_calculator();
    world.open(0, 2, "b", 1);
    let time = manifest("time@1.0.0", &[], &[]);
    world.announce(0, 2, vec![report(2, &time, Phase::Ready)]);
    world.disconnect(0);
    world.close(0, 2);
    world.store = Store {
        epoch: 2,
        ..Store::default()
    };
    world.reconnect(0);
    world.settle();
    assert_eq!(
        (world.state(id(1)), world.state(id(2))),
        (Some(Active), Some(Active))
    );
    assert_eq!(world.at(0).table.revision().epoch, 1);
    world.open(0, 3, "b", 1);
    assert_eq!(
        world.at(0).table.revision().epoch,
        1,
        "it has not announced yet"
    );
    world.announce(0, 3, vec![report(2, &time, Phase::Ready)]);
    assert_eq!(world.at(0).table.revision().epoch, 2);
    assert_eq!(
        (world.state(id(1)), world.state(id(2))),
        (Some(Active), Some(Active))
    );
}

#[test]
fn a_new_bucket_waits_one_lease_for_those_who_do_not_return() {
    let mut world = with_calculator();
    world.disconnect(0);
    world.close(0, 1);
    world.store = Store {
        epoch: 2,
        ..Store::default()
    };
    world.reconnect(0);
    world.pass(LEASE - 1_000, &[]);
    assert_eq!(world.state(id(1)), Some(Active));
    world.pass(2_000, &[]);
    assert_eq!(world.state(id(1)), None);
    assert_eq!(world.at(0).table.revision().epoch, 2);
}

#[test]
fn a_store_that_forgot_its_last_deletion_is_no_older_copy() {
    let mut world = with_calculator();
    world.gone(0, 1, id(1));
    let table = world.at(0).table.revision();
    world.disconnect(0);
    let deleted = world.store.told.pop().unwrap();
    world.store.told.retain(|entry| entry.key != deleted.key);
    world.reconnect(0);
    assert_eq!(world.coordinators[0].engine.held_back(), None);
    assert_eq!(world.at(0).table.revision(), table);
    world.report(0, 1, report(2, &calculator(), Phase::Ready));
    assert_eq!(world.state(id(2)), Some(Active));
}

#[test]
fn a_late_answer_from_before_a_resynchronisation_disturbs_nothing() {
    let mut world = with_calculator();
    let time = manifest("time@1.0.0", &[], &[]);
    let session = SessionId(1);
    let report = report(2, &time, Phase::Ready);
    world.tell(0, Event::AgentReported { session, report });
    let (write, key, ..) = world.at(0).writes.pop_front().unwrap();
    world.disconnect(0);
    world.reconnect(0);
    assert_eq!(world.at(0).writes.len(), 1, "it is written anew");
    let error = WriteError::Unknown("timed out".into());
    world.tell(0, Event::WriteFailed { write, key, error });
    assert_eq!(world.at(0).writes.len(), 1);
    world.settle();
    assert_eq!(world.state(id(2)), Some(Active));
}

#[test]
fn the_cost_of_a_step_does_not_grow_with_the_registry() {
    let cost = |others: u64| {
        let mut world = with_calculator();
        let now = world.now;
        for number in 0..others {
            let other = manifest(&format!("other-{number}@1.0.0"), &["?calculator ^1"], &[]);
            let record = crate::record::Record::Instance(crate::record::InstanceRecord {
                facts: crate::record::Facts {
                    node: "a".parse().unwrap(),
                    generation: Generation(7),
                    phase: Phase::Ready,
                    reason: String::new(),
                    since: Timestamp(0),
                    concurrency: 0,
                    supervised: false,
                },
                manifest: other,
                admitted: None,
                standing: None,
            });
            let key = Key::Instance(InstanceId::new(1_000 + number, [0; 10]));
            world
                .store
                .put(&key.to_string(), Some(record.encode(&key).unwrap()), now);
        }
        world.reconnect(0);
        world.at(0).writes.clear();
        let user = manifest("user@1.0.0", &["calculator ^1"], &[]);
        let before = world.coordinators[0].engine.registry.judged;
        for (number, phase) in [(2, Phase::Loaded), (2, Phase::Ready), (1, Phase::Failed)] {
            let manifest = if number == 1 {
                calculator()
            } else {
                user.clone()
            };
            let session = SessionId(1);
            let report = report(number, &manifest, phase);
            world.tell(0, Event::AgentReported { session, report });
            while world.write_one(0) || world.hear_one(0) {}
        }
        world.coordinators[0].engine.registry.judged - before
    };
    let few = cost(10);
    assert!(few > 0);
    assert_eq!(few, cost(1_000));
}

#[test]
fn a_key_has_one_write_in_flight() {
    let mut world = with_calculator();
    let session = SessionId(1);
    for concurrency in [1, 2, 3] {
        let report = Report {
            concurrency,
            ..report(1, &calculator(), Phase::Ready)
        };
        world.tell(0, Event::AgentReported { session, report });
    }
    assert_eq!(world.at(0).writes.len(), 1);
    world.settle();
    let route = world.coordinators[0].table.instance(id(1)).unwrap();
    assert_eq!(route.concurrency, 3);
}
