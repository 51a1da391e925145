//! The audit's stream.

use std::time::Duration;

use bytes::Bytes;
use mesh_bus::{AuditConfig, AuditLog, Notice};
use mesh_core::id::MeshName;
use mesh_core::subject::{AuditOf, audit_entry};

use crate::support::Nats;
use crate::{config, eventually, node};

const CONFIG: AuditConfig = AuditConfig {
    replicas: 1,
    max_bytes: 1 << 20,
    max_age: Duration::from_secs(3_600),
    is_covered: |newest, new| newest >= new,
};

fn open(url: &str, settings: AuditConfig) -> AuditLog {
    let (log, driver) = AuditLog::open(config(url, "audit"), settings).unwrap();
    tokio::spawn(driver.run(std::future::pending()));
    log
}

fn of(name: &str) -> AuditOf {
    AuditOf {
        node: Some(node(name)),
        ..AuditOf::default()
    }
}

/// A notice about a node; what it says names it.
fn notice(about: &str, says: &str) -> Notice {
    Notice {
        subject: audit_entry(&MeshName::default(), "node", &of(about)),
        payload: Bytes::copy_from_slice(says.as_bytes()),
    }
}

fn counter(log: &AuditLog, name: &str) -> u64 {
    let counters = log.counters();
    let found = counters.iter().find(|(it, ..)| *it == name);
    found.unwrap_or_else(|| panic!("no counter {name}")).2
}

/// Waits until nothing is on its way any more.
async fn settled(log: &AuditLog) {
    eventually("all is stored", || {
        let done = counter(log, "stored") + counter(log, "known");
        done == counter(log, "told")
    })
    .await;
}

async fn all(log: &AuditLog, of: &[AuditOf]) -> Vec<String> {
    let read = log.read_back(of, 0, 1_000).await.unwrap();
    let text = |payload: &Bytes| String::from_utf8(payload.to_vec()).unwrap();
    read.iter().map(|it| text(&it.payload)).collect()
}

#[tokio::test]
async fn what_several_tell_is_stored_once_and_read_back_by_whom_it_is_about() {
    let nats = Nats::start();
    let (one, other) = (open(&nats.url(), CONFIG), open(&nats.url(), CONFIG));
    for says in ["1", "2", "3"] {
        one.tell(notice("a", says));
        other.tell(notice("a", says));
    }
    one.tell(notice("b", "4"));
    settled(&one).await;
    settled(&other).await;
    assert_eq!(all(&one, &[of("a")]).await, ["1", "2", "3"]);
    assert_eq!(all(&other, &[of("b")]).await, ["4"]);
    assert_eq!(all(&other, &[AuditOf::default()]).await.len(), 4);
    assert_eq!(all(&one, &[of("nobody")]).await, [""; 0]);
    let last = one.read_back(&[of("a"), of("b")], 0, 2).await.unwrap();
    let last: Vec<&[u8]> = last.iter().map(|it| &*it.payload).collect();
    assert_eq!(last, [b"3", b"4"]);
    let later = 4_000_000_000_000;
    assert!(
        one.read_back(&[of("a")], later, 9)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn what_is_older_than_what_is_stored_is_known() {
    let nats = Nats::start();
    let log = open(&nats.url(), CONFIG);
    log.tell(notice("a", "2"));
    settled(&log).await;
    for says in ["1", "2", "3"] {
        log.tell(notice("a", says));
        settled(&log).await;
    }
    log.tell(notice("b", "1"));
    settled(&log).await;
    assert_eq!(all(&log, &[of("a"), of("b")]).await, ["2", "3", "1"]);
    assert_eq!(counter(&log, "known"), 2);
}

#[tokio::test]
async fn one_who_watches_sees_each_entry_once_and_in_order_over_a_restart_of_the_broker() {
    let mut nats = Nats::start();
    let log = open(&nats.url(), CONFIG);
    let place = log.newest().await.unwrap();
    for number in 0..100 {
        log.tell(notice("a", &format!("{number:03}")));
        if number == 50 {
            // Some are stored and not acknowledged, others not sent, others not even told.
            nats.kill();
        }
        tokio::task::yield_now().await;
    }
    nats.restart();
    settled(&log).await;
    let (mut seen, mut place) = (Vec::new(), place);
    while let Some(entry) = log.next(&[of("a"), of("b")], place).await.unwrap() {
        assert!(entry.sequence > place);
        place = entry.sequence;
        seen.push(String::from_utf8(entry.payload.to_vec()).unwrap());
    }
    let wanted: Vec<String> = (0..100).map(|number| format!("{number:03}")).collect();
    assert_eq!(seen, wanted);
    assert_eq!(counter(&log, "dropped"), 0);
}

#[tokio::test]
async fn who_tells_never_waits_and_what_is_too_much_is_counted() {
    // Nobody listens there.
    let log = open("nats://127.0.0.1:1", CONFIG);
    for number in 0..40_000 {
        log.tell(notice("a", &number.to_string()));
    }
    assert!(counter(&log, "dropped") > 0);
    let error = log.read_back(&[of("a")], 0, 1).await.unwrap_err();
    assert!(error.to_string().contains("try again"), "{error}");
}

#[tokio::test]
async fn the_stream_is_kept_by_size_as_configured_now() {
    let nats = Nats::start();
    let log = open(&nats.url(), CONFIG);
    log.tell(notice("a", "0"));
    settled(&log).await;
    let small = AuditConfig {
        max_bytes: 20_000,
        ..CONFIG
    };
    let log = open(&nats.url(), small);
    for number in 1..=100 {
        log.tell(notice("a", &format!("{number:01000}")));
    }
    settled(&log).await;
    let kept = all(&log, &[of("a")]).await;
    assert!((5..30).contains(&kept.len()), "{}", kept.len());
    assert!(kept.last().unwrap().ends_with("100"), "the oldest go first");
}

#[tokio::test]
async fn the_stream_is_kept_by_age() {
    let nats = Nats::start();
    let short = AuditConfig {
        max_age: Duration::from_secs(1),
        ..CONFIG
    };
    let log = open(&nats.url(), short);
    log.tell(notice("a", "0"));
    settled(&log).await;
    while !all(&log, &[of("a")]).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(log.newest().await.unwrap(), 1, "it was there");
}
