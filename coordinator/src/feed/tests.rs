//! The table is told in order, to each follower what it lacks.

use super::*;
use std::collections::BTreeMap;

use futures::FutureExt;
use mesh_core::id::{Generation, NodeId};
use mesh_core::table::NodeRoute;

fn at(sequence: u64) -> Revision {
    Revision { epoch: 1, sequence }
}

fn change(feed: &Feed, sequence: u64) {
    publish(feed, sequence);
    feed.tell();
}

/// It may be told later.
fn publish(feed: &Feed, sequence: u64) {
    let from = feed.table().revision();
    feed.publish(TableUpdate {
        from: Some(from),
        to: at(sequence),
        ..TableUpdate::default()
    });
}

/// From and to of the next update; the epoch is left out.
fn next(follower: &mut Follower) -> Option<(Option<u64>, u64)> {
    let update = follower.next().now_or_never()?.wire().unwrap();
    Some((
        update.from.map(|from| from.sequence),
        update.to.unwrap().sequence,
    ))
}

fn bytes(sent: &SentUpdate) -> &[u8] {
    match sent {
        SentUpdate::Plain(bytes) | SentUpdate::Packed(bytes) => bytes,
    }
}

fn node_route(name: &str) -> NodeRoute {
    NodeRoute {
        node: name.parse().unwrap(),
        generation: Generation(1),
        zone: String::new(),
        labels: BTreeMap::new(),
        software: String::new(),
    }
}

#[test]
fn a_new_follower_gets_the_whole_table_and_then_what_has_changed_since() {
    let feed = Feed::new();
    let mut follower = feed.follow(None, 0);
    assert_eq!(next(&mut follower), None, "nothing is known yet");
    change(&feed, 5);
    change(&feed, 6);
    assert_eq!(next(&mut follower), Some((None, 6)));
    change(&feed, 7);
    change(&feed, 9);
    assert_eq!(next(&mut follower), Some((Some(6), 9)));
    assert_eq!(next(&mut follower), None);
}

#[test]
fn who_comes_back_gets_only_what_is_newer() {
    let feed = Feed::new();
    for sequence in 1..=5 {
        change(&feed, sequence);
    }
    let mut follower = feed.follow(Some(at(3)), 0);
    assert_eq!(next(&mut follower), Some((Some(3), 5)));
    assert_eq!(next(&mut follower), None);
    let mut newest = feed.follow(Some(at(5)), 0);
    assert_eq!(
        next(&mut newest),
        Some((Some(5), 5)),
        "it is told that it is the newest"
    );
    assert_eq!(next(&mut newest), None);
    let mut stranger = feed.follow(
        Some(Revision {
            epoch: 0,
            sequence: 4,
        }),
        0,
    );
    assert_eq!(next(&mut stranger), Some((None, 5)));
}

#[test]
fn who_is_further_gets_nothing_older_and_goes_on_when_it_is_passed() {
    let feed = Feed::new();
    change(&feed, 5);
    let mut follower = feed.follow(Some(at(8)), 0);
    assert_eq!(next(&mut follower), None);
    change(&feed, 8);
    assert_eq!(next(&mut follower), Some((Some(8), 8)));
    change(&feed, 9);
    assert_eq!(next(&mut follower), Some((Some(8), 9)));
}

#[test]
fn who_comes_from_another_epoch_gets_the_whole_table() {
    let feed = Feed::new();
    change(&feed, 1);
    change(&feed, 2);
    let mut follower = feed.follow(Some(at(1)), 0);
    let to = Revision {
        epoch: 2,
        sequence: 3,
    };
    feed.publish(TableUpdate {
        from: Some(at(2)),
        to,
        ..TableUpdate::default()
    });
    feed.tell();
    assert_eq!(next(&mut follower), Some((None, 3)));
}

#[test]
fn what_follows_at_once_on_a_change_is_told_together_and_encoded_once() {
    let feed = Feed::new();
    change(&feed, 1);
    let mut followers = [feed.follow(Some(at(1)), 0), feed.follow(Some(at(1)), 0)];
    for sequence in 2..=9 {
        publish(&feed, sequence);
    }
    assert!(feed.due().is_some());
    assert!(
        followers
            .iter_mut()
            .all(|it| next(it) != Some((Some(1), 9)))
    );
    feed.tell();
    assert_eq!(feed.due(), None);
    let told = followers.map(|mut it| it.next().now_or_never().unwrap());
    assert_eq!(bytes(&told[0]).as_ptr(), bytes(&told[1]).as_ptr());
    let update = told[0].clone().wire().unwrap();
    assert_eq!(update.to, Some(at(9).into()));
}

#[tokio::test(start_paused = true)]
async fn many_changes_are_told_less_and_less_often_and_few_as_soon_as_before() {
    let feed = Feed::new();
    change(&feed, 1);
    let _followers: Vec<_> = (0..1_000).map(|_| feed.follow(None, 0)).collect();
    let mut sequence = 1;
    let mut waits = |changes: u64| {
        for _ in 0..changes {
            sequence += 1;
            publish(&feed, sequence);
        }
        feed.due().unwrap() - Instant::now()
    };
    for (changes, millis) in [(8, 50), (8, 100), (8, 200), (9, 400), (9, 400)]
        .into_iter()
        .chain([(7, 400), (1, 200), (1, 100), (1, 50), (1, 50)])
    {
        let wait = waits(changes);
        assert_eq!(wait, Duration::from_millis(millis), "{changes} changes");
        tokio::time::advance(wait).await;
        feed.tell();
    }
    // After a quiet time a change is told at once.
    tokio::time::advance(Duration::from_millis(50)).await;
    publish(&feed, 1_000);
    assert_eq!(feed.due(), None);
}

#[test]
fn what_is_large_is_packed_once_for_all_who_take_that_and_plain_for_the_others() {
    let feed = Feed::new();
    feed.publish(TableUpdate {
        from: Some(Revision::default()),
        to: at(1),
        nodes: (0..1000).map(|it| node_route(&format!("n-{it}"))).collect(),
        ..TableUpdate::default()
    });
    feed.tell();
    let mut packed = [true, true].map(|it| feed.follow(None, 0).takes_packed(it));
    let mut plain = [feed.follow(None, 0), feed.follow(None, 0)];
    let all = |followers: &mut [Follower; 2]| {
        let told = followers.each_mut();
        let told = told.map(|it| it.next().now_or_never().unwrap());
        assert_eq!(bytes(&told[0]).as_ptr(), bytes(&told[1]).as_ptr());
        let [first, _] = told;
        first
    };
    let (small, large) = (all(&mut packed), all(&mut plain));
    assert!(matches!(&small, SentUpdate::Packed(bytes) if bytes.len() < 10_000));
    assert!(matches!(&large, SentUpdate::Plain(bytes) if bytes.len() > 10_000));
    assert_eq!(small.wire().unwrap(), large.wire().unwrap());
    // One change is not worth it.
    change(&feed, 2);
    let told = all(&mut packed);
    assert!(matches!(told, SentUpdate::Plain(_)));
    assert_eq!(told, all(&mut plain));
}

#[test]
fn many_changes_put_together_make_the_same_table() {
    let feed = Feed::new();
    change(&feed, 1);
    let (before, mut follower) = (feed.table(), feed.follow(Some(at(1)), 0));
    for sequence in 2..100 {
        // Nodes come and go; some are gone in the end, some came again.
        let node: NodeId = format!("node-{}", sequence * 7 % 11).parse().unwrap();
        let mut update = TableUpdate {
            from: Some(at(sequence - 1)),
            to: at(sequence),
            ..TableUpdate::default()
        };
        if sequence % 3 == 0 {
            update.removed_nodes.push(node);
        } else {
            update.nodes.push(NodeRoute {
                generation: Generation(sequence),
                ..node_route(node.as_str())
            });
        }
        feed.publish(update);
    }
    feed.tell();
    let update = follower.next().now_or_never().unwrap().wire().unwrap();
    let after = before.apply(&update.try_into().unwrap()).unwrap();
    assert_eq!(after.digest(), feed.table().digest());
    assert_ne!(after.nodes().count(), 0);
}

#[test]
fn who_has_something_else_by_the_same_revision_gets_the_whole_table() {
    let feed = Feed::new();
    change(&feed, 1);
    change(&feed, 2);
    let digest = feed.table().digest();
    assert_eq!(
        next(&mut feed.follow(Some(at(1)), digest)),
        Some((Some(1), 2))
    );
    for have in [1, 2] {
        let mut other = feed.follow(Some(at(have)), digest + 1);
        assert_eq!(next(&mut other), Some((None, 2)));
    }
}

#[test]
fn who_lags_behind_gets_the_whole_table_instead() {
    let feed = Feed::new();
    change(&feed, 1);
    let mut slow = feed.follow(Some(at(1)), 0);
    let _ = next(&mut slow);
    let changes = u64::try_from(KEPT).unwrap() + 10;
    for sequence in 2..changes {
        change(&feed, sequence);
    }
    assert_eq!(next(&mut slow), Some((None, changes - 1)));
    assert_eq!(feed.kept().deltas.len(), KEPT);
}
