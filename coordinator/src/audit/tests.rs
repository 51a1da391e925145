//! What entries say, and which of them double one another.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use mesh_core::id::{Generation, MeshName};
use mesh_core::revision::{Revision, Timestamp};
use mesh_core::split::Split;
use mesh_core::table::NodeRoute;
use mesh_engine::record::{
    CoordinatorRecord, Holder, NodeRecord, Parting, SplitRecord, Wish, WishRecord,
};

use super::entry::LONGEST;
use super::*;

fn source(sequence: u64) -> Source {
    Source {
        revision: Revision { epoch: 1, sequence },
        at: Timestamp(5),
        found: false,
    }
}

fn wish(wish: Wish, by: &str, since: u64) -> Record {
    Record::Wish(WishRecord {
        wish,
        by: by.to_owned(),
        reason: "a test".to_owned(),
        since: Timestamp(since),
        manifests: Vec::new(),
    })
}

fn node(generation: u64, coordinator: Option<&str>) -> Record {
    Record::Node(NodeRecord {
        route: NodeRoute {
            node: "a".parse().unwrap(),
            generation: Generation(generation),
            zone: String::new(),
            labels: BTreeMap::new(),
            software: String::new(),
        },
        parting: coordinator.is_none().then_some(Parting::Silent),
        holder: coordinator.map(|name| Holder {
            coordinator: name.parse().unwrap(),
            run: 1,
            session: 1,
        }),
    })
}

fn lease(holder: &str, term: u64, write: u64, evicted: &[(&str, u64)]) -> LeaseRecord {
    let evicted = evicted.iter();
    LeaseRecord {
        holder: holder.parse().unwrap(),
        run: 1,
        term,
        since: Timestamp(0),
        write,
        lease_ms: 400,
        evicted: evicted
            .map(|(node, sequence)| (node.parse().unwrap(), *sequence))
            .collect(),
    }
}

/// What is said of a change, as `kind from > to by: reason` lines.
fn told(key: &str, before: Option<&Record>, after: Option<&Record>) -> Vec<String> {
    told_with(key, before, after, None)
}

fn told_with(
    key: &str,
    before: Option<&Record>,
    after: Option<&Record>,
    lease: Option<&LeaseRecord>,
) -> Vec<String> {
    let key: Key = key.parse().unwrap();
    let changed = Changed {
        key: &key,
        before,
        after,
        lease,
    };
    let entries = of_record(&changed, source(7));
    let line = |entry: &AuditEntry| {
        assert_eq!(entry.cause, key.to_string());
        let by = match &entry.by {
            Actor::Operator(name) => format!("operator {name}"),
            Actor::Agent(name) => format!("agent {name}"),
            Actor::Coordinator(name) => format!("coordinator {name}"),
            Actor::Graph => "graph".to_owned(),
        };
        let (kind, from, to) = (entry.kind.as_str(), &entry.from, &entry.to);
        format!("{kind} {from} > {to} by {by}: {}", entry.reason)
    };
    entries.iter().map(line).collect()
}

#[test]
fn a_wish_is_told_with_the_operator_and_the_reason() {
    let disabled = wish(Wish::Disabled, "ada", 1);
    let enabled = wish(Wish::Enabled, "bob", 2);
    assert_eq!(
        told("wish.time", None, Some(&disabled)),
        ["wish enabled > disabled by operator ada: a test"]
    );
    assert_eq!(
        told("wish.time", Some(&disabled), Some(&enabled)),
        ["wish disabled > enabled by operator bob: a test"]
    );
    assert_eq!(
        told("wish.time", Some(&disabled), Some(&disabled)),
        [""; 0],
        "the same record written again is no change"
    );
}

#[test]
fn a_split_is_told_with_the_operator_also_when_it_is_cleared() {
    let split = |shares: &[(u64, u32)], by: &str| {
        let shares = shares.iter();
        Record::Split(SplitRecord {
            split: Split {
                plugin: "time".parse().unwrap(),
                shares: shares
                    .map(|(major, share)| (format!("{major}.0.0").parse().unwrap(), *share))
                    .collect(),
                groups: Vec::new(),
            },
            by: by.to_owned(),
            reason: "a test".to_owned(),
            since: Timestamp(1),
        })
    };
    let (shared, cleared) = (split(&[(1, 90), (2, 10)], "ada"), split(&[], "bob"));
    assert_eq!(
        told("split.time", None, Some(&shared)),
        ["split none > 1.0.0=90 2.0.0=10 by operator ada: a test"]
    );
    assert_eq!(
        told("split.time", Some(&shared), Some(&cleared)),
        ["split 1.0.0=90 2.0.0=10 > none by operator bob: a test"]
    );
}

#[test]
fn a_node_comes_is_lost_comes_back_and_is_evicted() {
    let (here, lost) = (node(7, Some("main")), node(7, None));
    let again = node(8, Some("main"));
    assert_eq!(
        told("node.a", None, Some(&here)),
        ["node  > connected by agent a: generation 7 came, a session at coordinator main"]
    );
    assert_eq!(
        told("node.a", Some(&here), Some(&lost)),
        [
            "node connected > disconnected by coordinator main: generation 7, it fell silent at \
             coordinator main"
        ]
    );
    assert_eq!(
        told("node.a", Some(&lost), Some(&again)),
        [
            "node disconnected > connected by agent a: generation 8 came, a session at coordinator \
             main"
        ]
    );
    let office = lease("main", 3, 9, &[("a", 5)]);
    assert_eq!(
        told_with("node.a", Some(&lost), None, Some(&office)),
        [
            "node disconnected > gone by coordinator main: its session was closed and its lease of \
             400 ms ran out"
        ]
    );
}

#[test]
fn the_office_is_told_when_it_is_taken_and_not_when_it_is_held_on_to() {
    let taken = Record::Lease(lease("main", 3, 1, &[]));
    let held = Record::Lease(lease("main", 3, 2, &[]));
    let decided = Record::Lease(lease("main", 3, 3, &[("a", 5)]));
    let lost = Record::Lease(lease("other", 4, 1, &[]));
    assert_eq!(
        told("lease", None, Some(&taken)),
        ["office  > main by coordinator main: it took the office for term 3"]
    );
    assert_eq!(told("lease", Some(&taken), Some(&held)), [""; 0]);
    assert_eq!(
        told("lease", Some(&held), Some(&decided)),
        [
            "node disconnected > evicted by coordinator main: its session was closed and its lease \
             of 400 ms ran out"
        ]
    );
    assert_eq!(
        told("lease", Some(&decided), Some(&lost)),
        ["office main > other by coordinator other: it took the office for term 4"]
    );
}

#[test]
fn a_coordinator_is_told_once_for_each_run() {
    let record = |run, renewals| {
        Record::Coordinator(CoordinatorRecord {
            run,
            renewals,
            lease_ms: 400,
        })
    };
    let key = "coordinator.main";
    assert_eq!(told(key, None, Some(&record(5, 1))).len(), 1);
    assert_eq!(told(key, Some(&record(5, 1)), Some(&record(5, 2))), [""; 0]);
    assert_eq!(told(key, Some(&record(5, 2)), Some(&record(9, 1))).len(), 1);
}

fn entry(sequence: u64, to: &str, found: bool) -> AuditEntry {
    let key: Key = "node.a".parse().unwrap();
    let after = node(7, Some("main"));
    let changed = Changed {
        key: &key,
        before: None,
        after: Some(&after),
        lease: None,
    };
    let source = Source {
        found,
        ..source(sequence)
    };
    let mut entries = of_record(&changed, source);
    AuditEntry {
        to: to.to_owned(),
        ..entries.pop().unwrap()
    }
}

#[test]
fn an_entry_is_stored_by_whom_it_is_about_and_read_as_it_was() {
    let mesh = MeshName::default();
    let first = entry(7, "connected", false);
    assert_eq!(first.subject(&mesh).as_str(), "pm.default.audit.node.-.a.-");
    let read = AuditEntry::decode(&first.encode().unwrap()).unwrap();
    assert_eq!(read, first);
}

#[test]
fn what_is_known_or_older_is_covered_and_what_is_new_is_not() {
    let bytes = |sequence, to, found| entry(sequence, to, found).encode().unwrap();
    let covered = |newest: &[u8], new: &[u8]| is_covered(newest, new);
    let known = bytes(7, "connected", false);
    assert!(covered(&known, &bytes(7, "connected", false)));
    assert!(covered(&known, &bytes(6, "gone", false)));
    assert!(covered(&known, &bytes(9, "connected", true)));
    assert!(!covered(&known, &bytes(9, "gone", true)));
    assert!(!covered(&known, &bytes(8, "connected", false)));
    assert!(!covered(b"garbage", &known) && !covered(&known, b"garbage"));
}

#[test]
fn a_text_without_end_is_cut_between_characters() {
    let long = AuditEntry {
        reason: "é".repeat(LONGEST),
        ..entry(7, "connected", false)
    };
    let bytes = long.encode().unwrap();
    assert!(bytes.len() < LONGEST + 600);
    let read = AuditEntry::decode(&bytes).unwrap();
    assert!(read.reason.len() <= LONGEST && read.reason.starts_with('é'));
}
