//! The registry's store.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use mesh_bus::{RegistryStore, StoreConfig, StoreError, StoreEvent, StoreFollower};
use mesh_core::id::MeshName;
use mesh_core::subject;
use tokio::time::timeout;

use crate::support::Nats;
use crate::{PATIENCE, TIMES, config};

fn open(url: &str) -> RegistryStore {
    let (store, driver) =
        RegistryStore::open(config(url, "store"), StoreConfig { replicas: 1 }).unwrap();
    tokio::spawn(driver.run(std::future::pending()));
    store
}

/// What a follower knows.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct View {
    epoch: u64,
    /// All changes up to this one are known.
    complete: u64,
    last: u64,
    keys: BTreeMap<String, (u64, Bytes)>,
    resets: u32,
    lost: bool,
    current: bool,
}

impl View {
    fn take(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Reset { epoch, last } => {
                self.complete = last;
                self.keys.clear();
                self.epoch = epoch;
                self.last = 0;
                self.resets += 1;
                self.lost = false;
                self.current = false;
            }
            StoreEvent::Entry {
                key,
                value,
                sequence,
                at_ms,
            } => {
                assert!(sequence > self.last, "{sequence} after {}", self.last);
                assert!(
                    sequence <= self.complete + 1,
                    "{sequence} after {}",
                    self.complete
                );
                self.complete = self.complete.max(sequence);
                assert!(at_ms.abs_diff(self.epoch) < 600_000, "{at_ms}");
                self.last = sequence;
                match value {
                    Some(value) => self.keys.insert(key, (sequence, value)),
                    None => self.keys.remove(&key),
                };
            }
            StoreEvent::Current => self.current = true,
            StoreEvent::Lost => {
                self.lost = true;
                self.current = false;
            }
        }
    }

    async fn until(&mut self, follower: &mut StoreFollower, wanted: impl Fn(&Self) -> bool) {
        let all = async {
            while !wanted(self) {
                self.take(follower.next().await.unwrap());
            }
        };
        if timeout(PATIENCE, all).await.is_err() {
            panic!("never: {self:?}");
        }
    }
}

async fn opened(store: &RegistryStore) -> (StoreFollower, View) {
    let mut follower = store.follow();
    let mut view = View::default();
    view.until(&mut follower, |view| view.current).await;
    (follower, view)
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[tokio::test]
async fn keys_are_written_by_compare_and_set() {
    let nats = Nats::start();
    let store = open(&nats.url());
    assert!(matches!(
        store.put("a", 0, Bytes::new()).await,
        Err(StoreError::Unavailable { .. })
    ));
    let (mut follower, mut view) = opened(&store).await;
    let first = store.put("node.a", 0, bytes("1")).await.unwrap();
    let conflict = store.put("node.a", 0, bytes("2")).await.unwrap_err();
    assert_eq!(
        conflict,
        StoreError::Conflict {
            key: "node.a".to_owned(),
            expected: 0,
            current: first
        }
    );
    let second = store.put("node.a", first, bytes("2")).await.unwrap();
    assert!(second > first);
    assert!(matches!(
        store.delete("node.a", first).await,
        Err(StoreError::Conflict { .. })
    ));
    store.delete("node.a", second).await.unwrap();
    // What was deleted is as good as never written.
    assert!(matches!(
        store.put("node.a", second, bytes("3")).await,
        Err(StoreError::Conflict { current, .. }) if current > second
    ));
    let third = store.put("node.a", 0, bytes("3")).await.unwrap();
    view.until(&mut follower, |view| view.last == third).await;
    assert_eq!(view.keys["node.a"], (third, bytes("3")));
    assert!(matches!(
        store.put("Bad Key", 0, Bytes::new()).await,
        Err(StoreError::Invalid { .. })
    ));
}

#[tokio::test]
async fn of_many_writers_one_wins_each_round() {
    let nats = Nats::start();
    let stores = [open(&nats.url()), open(&nats.url()), open(&nats.url())];
    for store in &stores {
        opened(store).await;
    }
    let mut sequence = 0;
    for round in 0..TIMES {
        let writes = stores.iter().enumerate().map(|(n, store)| {
            let value = bytes(&format!("{round} {n}"));
            async move { store.put("key", sequence, value).await }
        });
        let results = futures::future::join_all(writes).await;
        let won: Vec<_> = results.iter().flatten().collect();
        assert_eq!(won.len(), 1, "{results:?}");
        sequence = *won[0];
        for result in &results {
            assert!(
                !matches!(result, Err(StoreError::Unknown { .. })),
                "{result:?}"
            );
        }
    }
}

#[tokio::test]
async fn followers_see_every_change_in_order_and_deletions() {
    let nats = Nats::start();
    let (writer, reader) = (open(&nats.url()), open(&nats.url()));
    let _ = opened(&writer).await;
    let (mut follower, mut view) = opened(&reader).await;
    for round in 0..TIMES {
        let mut last = 0;
        for n in 0..20 {
            let key = format!("instance.{round}-{n}");
            let sequence = writer.put(&key, 0, bytes(&key)).await.unwrap();
            if n % 2 == 0 {
                last = writer.delete(&key, sequence).await.unwrap();
            } else {
                last = sequence;
            }
        }
        view.until(&mut follower, |view| view.last == last).await;
        assert_eq!(view.keys.len() as u64, (round + 1) * 10);
    }
    // A second follower gets the same by a snapshot, and the first as well, anew.
    let (_late, late) = opened(&reader).await;
    view.until(&mut follower, |view| view.resets == 2 && view.current)
        .await;
    assert_eq!(view.keys, late.keys);
    assert_eq!(view.epoch, late.epoch);
}

#[tokio::test]
async fn followers_come_back_after_a_restart_of_the_broker_with_the_same_state() {
    let mut nats = Nats::start();
    let store = open(&nats.url());
    let (mut follower, mut view) = opened(&store).await;
    let mut sequence = 0;
    for round in 0..6 {
        sequence = store
            .put("key", sequence, bytes(&format!("{round}")))
            .await
            .unwrap();
        view.until(&mut follower, |view| view.last == sequence)
            .await;
        let before = view.clone();
        nats.kill();
        view.until(&mut follower, |view| view.lost).await;
        assert!(matches!(
            store.put("key", sequence, Bytes::new()).await,
            Err(StoreError::Unavailable { .. } | StoreError::Unknown { .. })
        ));
        nats.restart();
        view.until(&mut follower, |view| view.current).await;
        assert_eq!((&view.keys, view.epoch), (&before.keys, before.epoch));
    }
}

#[tokio::test]
async fn writes_while_a_follower_is_cut_off_are_seen_afterwards() {
    let nats = Nats::start();
    let (writer, reader) = (open(&nats.url()), open(&nats.url()));
    let _ = opened(&writer).await;
    let (mut follower, mut view) = opened(&reader).await;
    // The repetition of the changes is turned off behind the follower's back: it hears nothing, and
    // finds out.
    let client = async_nats::connect(nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let bucket = format!("KV_{}", subject::registry_bucket(&MeshName::default()));
    let mut config = jetstream
        .get_stream(&bucket)
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    let republish = config.republish.take();
    jetstream.update_stream(&config).await.unwrap();
    let unheard = writer.put("unheard", 0, bytes("x")).await.unwrap();
    config.republish = republish;
    jetstream.update_stream(&config).await.unwrap();
    view.until(&mut follower, |view| view.last == unheard && view.current)
        .await;
    assert_eq!(view.resets, 2);
    // A gap is found by the next change, at once.
    config.republish = None;
    jetstream.update_stream(&config).await.unwrap();
    let unheard = writer.put("unheard", unheard, bytes("y")).await.unwrap();
    config.republish = Some(async_nats::jetstream::stream::Republish {
        source: format!("$KV.{}.>", subject::registry_bucket(&MeshName::default())),
        destination: format!("{}.>", subject::registry_changes(&MeshName::default())),
        headers_only: false,
    });
    jetstream.update_stream(&config).await.unwrap();
    let heard = writer.put("heard", 0, bytes("z")).await.unwrap();
    assert_eq!(heard, unheard + 1);
    view.until(&mut follower, |view| view.last == heard).await;
    assert_eq!(view.keys["unheard"].1, "y");
}

#[tokio::test]
async fn a_bucket_that_was_made_anew_is_a_new_epoch() {
    let nats = Nats::start();
    let store = open(&nats.url());
    let (mut follower, mut view) = opened(&store).await;
    store.put("old", 0, bytes("1")).await.unwrap();
    view.until(&mut follower, |view| view.keys.len() == 1).await;
    let before = view.epoch;
    let client = async_nats::connect(nats.url()).await.unwrap();
    let bucket = format!("KV_{}", subject::registry_bucket(&MeshName::default()));
    async_nats::jetstream::new(client)
        .delete_stream(&bucket)
        .await
        .unwrap();
    view.until(&mut follower, |view| view.epoch != before && view.current)
        .await;
    assert!(view.epoch > before);
    assert!(view.keys.is_empty());
    let again = tokio::time::timeout(PATIENCE, async {
        loop {
            match store.put("new", 0, bytes("2")).await {
                Ok(sequence) => return sequence,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    let sequence = again.await.unwrap();
    view.until(&mut follower, |view| view.last == sequence)
        .await;
}

#[tokio::test]
async fn a_bucket_that_was_purged_is_told_anew_in_whole_or_in_part() {
    let nats = Nats::start();
    let store = open(&nats.url());
    let (mut follower, mut view) = opened(&store).await;
    let jetstream = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let bucket = subject::registry_bucket(&MeshName::default());
    let stream = jetstream.get_stream(format!("KV_{bucket}")).await.unwrap();

    let kept = store.put("node.a", 0, bytes("1")).await.unwrap();
    let gone = store.put("node.b", 0, bytes("1")).await.unwrap();
    view.until(&mut follower, |view| view.keys.len() == 2).await;
    // Nobody hears of it, but whoever writes by what was told finds out.
    let purged = stream.purge().filter(format!("$KV.{bucket}.node.b"));
    purged.await.unwrap();
    let conflict = store.put("node.b", gone, bytes("2")).await.unwrap_err();
    assert!(
        matches!(conflict, StoreError::Conflict { current: 0, .. }),
        "{conflict}"
    );
    view.until(&mut follower, |view| view.keys.len() == 1 && view.current)
        .await;
    assert_eq!(view.keys["node.a"].0, kept);

    stream.purge().await.unwrap();
    view.until(&mut follower, |view| view.keys.is_empty() && view.current)
        .await;
    assert_eq!(view.complete, gone, "it goes on from there");
    assert!(store.put("node.a", 0, bytes("3")).await.unwrap() > gone);
    view.until(&mut follower, |view| view.keys.len() == 1).await;
}

#[tokio::test]
async fn thousands_of_keys_are_read_at_once() {
    let nats = Nats::start();
    let store = open(&nats.url());
    let (_follower, _) = opened(&store).await;
    let value = Bytes::from(vec![b'v'; 1_024]);
    let store_ref = &store;
    let writes = (0..3_000).map(|n| {
        let value = value.clone();
        async move {
            store_ref
                .put(&format!("instance.{n}"), 0, value)
                .await
                .unwrap()
        }
    });
    use futures::StreamExt;
    let written: Vec<u64> = futures::stream::iter(writes)
        .buffer_unordered(256)
        .collect()
        .await;
    drop(_follower);
    let (_again, view) = opened(&store).await;
    assert_eq!(view.keys.len(), written.len());
    assert_eq!(view.last, 3_000);
}
