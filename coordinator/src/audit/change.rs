//! From a change of a record to the entries that it means.

use mesh_core::id::{InstanceId, NodeId, PluginName};
use mesh_core::revision::{Revision, Timestamp};
use mesh_core::split::Split;
use mesh_engine::record::{
    CoordinatorRecord, Key, LeaseRecord, Mover, NodeRecord, Parting, Record, RolloutRecord,
    RolloutState, SplitRecord, Wish, WishRecord,
};

use super::entry::{Actor, AuditEntry, AuditKind};

/// Which change of the registry, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    /// Its revision.
    pub(crate) revision: Revision,
    /// When it was stored, by the store's clock.
    pub(crate) at: Timestamp,
    /// Nobody saw it happen: it was found when the registry was read anew.
    pub(crate) found: bool,
}

/// A record that changed; `None`: there is no such record, or it can't be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Changed<'a> {
    /// Its key.
    pub(crate) key: &'a Key,
    /// As it was.
    pub(crate) before: Option<&'a Record>,
    /// As it is.
    pub(crate) after: Option<&'a Record>,
    /// The lease as it was: it says which nodes are evicted, and by whom.
    pub(crate) lease: Option<&'a LeaseRecord>,
}

impl Source {
    fn entry(self, kind: AuditKind, key: &Key) -> AuditEntry {
        AuditEntry {
            revision: self.revision,
            at: self.at,
            kind,
            plugin: None,
            version: String::new(),
            node: None,
            instance: None,
            from: String::new(),
            to: String::new(),
            by: Actor::Graph,
            reason: String::new(),
            cause: key.to_string(),
            found: self.found,
        }
    }
}

/// What the change of a record means. Instances are told by their states, which others' records change
/// too ([`who_moved`]).
#[must_use]
pub(crate) fn of_record(changed: &Changed<'_>, source: Source) -> Vec<AuditEntry> {
    let entry = |kind| source.entry(kind, changed.key);
    let record = (changed.before, changed.after);
    match changed.key {
        Key::Wish(plugin) => wish(plugin, record, entry(AuditKind::Wish)),
        Key::Split(plugin) => split(plugin, record, entry(AuditKind::Split)),
        Key::Rollout(plugin) => rollout(plugin, record, entry(AuditKind::Rollout)),
        Key::Node(node) => self::node(node, record, changed.lease, entry(AuditKind::Node)),
        Key::Coordinator(name) => coordinator(name, record, entry(AuditKind::Coordinator)),
        Key::Lease => lease(record, entry(AuditKind::Office), &entry(AuditKind::Node)),
        Key::Instance(_) | Key::Epoch => Vec::new(),
    }
}

type Pair<'a> = (Option<&'a Record>, Option<&'a Record>);

fn wish(plugin: &PluginName, record: Pair<'_>, entry: AuditEntry) -> Vec<AuditEntry> {
    let of = |record: Option<&'_ Record>| -> Option<WishRecord> {
        match record {
            Some(Record::Wish(wish)) => Some(wish.clone()),
            _ => None,
        }
    };
    let (before, after) = (of(record.0), of(record.1));
    let same = match (&before, &after) {
        (Some(before), Some(after)) => before.is_same(after),
        (before, after) => before.is_none() && after.is_none(),
    };
    if same {
        return Vec::new();
    }
    let word = |wish: Option<&WishRecord>| {
        let wish = wish.map_or(Wish::Enabled, |it| it.wish);
        wish.as_str().to_owned()
    };
    let (from, to) = (word(before.as_ref()), word(after.as_ref()));
    let (by, reason) = match after {
        Some(after) => (Actor::Operator(after.by), after.reason),
        // Operators' wishes are written over, never deleted.
        None => (Actor::Graph, "its record is gone".to_owned()),
    };
    vec![AuditEntry {
        plugin: Some(plugin.clone()),
        from,
        to,
        by,
        reason,
        ..entry
    }]
}

fn split(plugin: &PluginName, record: Pair<'_>, entry: AuditEntry) -> Vec<AuditEntry> {
    fn of(record: Option<&Record>) -> Option<&SplitRecord> {
        match record {
            Some(Record::Split(split)) => Some(split),
            _ => None,
        }
    }
    let shares =
        |split: Option<Split>| split.map_or_else(|| "none".to_owned(), |it| it.to_string());
    let (before, after) = (of(record.0), of(record.1));
    if before == after {
        return Vec::new();
    }
    let (by, reason) = match after {
        Some(after) => (Actor::Operator(after.by.clone()), after.reason.clone()),
        // Operators' wishes are written over, never deleted.
        None => (Actor::Graph, "its record is gone".to_owned()),
    };
    vec![AuditEntry {
        plugin: Some(plugin.clone()),
        from: shares(before.and_then(SplitRecord::split)),
        to: shares(after.and_then(SplitRecord::split)),
        by,
        reason,
        ..entry
    }]
}

fn rollout(plugin: &PluginName, record: Pair<'_>, entry: AuditEntry) -> Vec<AuditEntry> {
    fn of(record: Option<&Record>) -> Option<&RolloutRecord> {
        match record {
            Some(Record::Rollout(rollout)) => Some(rollout),
            _ => None,
        }
    }
    let stands = |rollout: &RolloutRecord| {
        let (state, to) = (rollout.state.as_str(), &rollout.plan.to);
        match rollout.state {
            RolloutState::Shifting => format!("{state} {to} {} %", rollout.percent()),
            _ => format!("{state} {to}"),
        }
    };
    let none = || "none".to_owned();
    let (before, after) = (of(record.0), of(record.1));
    if before == after {
        return Vec::new();
    }
    let (by, reason) = match after {
        // What is waited for is no reason.
        Some(it) if it.state == RolloutState::Waiting => (actor(&it.moved_by), it.why.clone()),
        Some(it) => (actor(&it.moved_by), it.reason.clone()),
        // Rollouts are written over, never deleted.
        None => (Actor::Graph, "its record is gone".to_owned()),
    };
    vec![AuditEntry {
        plugin: Some(plugin.clone()),
        from: before.map_or_else(none, stands),
        to: after.map_or_else(none, stands),
        by,
        reason,
        ..entry
    }]
}

/// Who wrote a rollout's record.
fn actor(mover: &Mover) -> Actor {
    match mover {
        Mover::Operator(by) => Actor::Operator(by.clone()),
        Mover::Coordinator(name) => Actor::Coordinator(name.clone()),
    }
}

fn node(
    node: &NodeId,
    record: Pair<'_>,
    lease: Option<&LeaseRecord>,
    entry: AuditEntry,
) -> Vec<AuditEntry> {
    fn of(record: Option<&Record>) -> Option<&NodeRecord> {
        match record {
            Some(Record::Node(node)) => Some(node),
            _ => None,
        }
    }
    fn state(record: &NodeRecord) -> &'static str {
        match record.holder {
            Some(_) => "connected",
            None => "disconnected",
        }
    }
    let agent = Actor::Agent(node.clone());
    let (to, by, reason) = match (of(record.0), of(record.1)) {
        (None, None) => return Vec::new(),
        (Some(before), Some(after)) if before == after => return Vec::new(),
        (before, Some(after)) => {
            let route = &after.route;
            let came = before.is_none_or(|it| it.route.generation != route.generation);
            let life = if came {
                format!("generation {} came", route.generation)
            } else {
                format!("generation {}", route.generation)
            };
            let held_by = before.and_then(|it| it.holder.as_ref());
            let (by, session) = match (&after.holder, held_by) {
                (Some(now), _) => {
                    let session = format!("a session at coordinator {}", now.coordinator);
                    (agent, session)
                }
                (None, Some(was)) => {
                    let was = was.coordinator.clone();
                    let why = match after.parting {
                        Some(Parting::Left) => "it took leave of",
                        Some(Parting::Broken) => "its connection broke to",
                        Some(Parting::Silent) => "it fell silent at",
                        Some(Parting::SentOn) | None => "its session was closed by",
                    };
                    (
                        Actor::Coordinator(was.clone()),
                        format!("{why} coordinator {was}"),
                    )
                }
                (None, None) => (agent, "no session".to_owned()),
            };
            (state(after), by, format!("{life}, {session}"))
        }
        (Some(_), None) => {
            let evicted = lease.filter(|lease| lease.evicted.contains_key(node));
            match evicted {
                Some(lease) => {
                    let by = Actor::Coordinator(lease.holder.clone());
                    ("gone", by, evicted_because(lease))
                }
                None => ("gone", Actor::Graph, "its record is gone".to_owned()),
            }
        }
    };
    vec![AuditEntry {
        node: Some(node.clone()),
        from: of(record.0).map(state).unwrap_or_default().to_owned(),
        to: to.to_owned(),
        by,
        reason,
        ..entry
    }]
}

fn evicted_because(lease: &LeaseRecord) -> String {
    format!(
        "its session was closed and its lease of {} ms ran out",
        lease.lease_ms
    )
}

fn coordinator(name: &NodeId, record: Pair<'_>, entry: AuditEntry) -> Vec<AuditEntry> {
    fn of(record: Option<&Record>) -> Option<&CoordinatorRecord> {
        match record {
            Some(Record::Coordinator(record)) => Some(record),
            _ => None,
        }
    }
    fn run(record: Option<&CoordinatorRecord>) -> Option<u64> {
        record.map(|record| record.run)
    }
    let (before, after) = (of(record.0), of(record.1));
    if run(before) == run(after) {
        return Vec::new();
    }
    let (to, reason) = match after {
        Some(after) => ("running", format!("started at {} ms", after.run)),
        None => ("gone", "its record is gone".to_owned()),
    };
    vec![AuditEntry {
        from: before.map(|_| "running").unwrap_or_default().to_owned(),
        to: to.to_owned(),
        by: Actor::Coordinator(name.clone()),
        reason,
        ..entry
    }]
}

/// Who holds the office, and which nodes it has newly decided to evict.
fn lease(record: Pair<'_>, entry: AuditEntry, of_node: &AuditEntry) -> Vec<AuditEntry> {
    fn of(record: Option<&Record>) -> Option<&LeaseRecord> {
        match record {
            Some(Record::Lease(lease)) => Some(lease),
            _ => None,
        }
    }
    let before = of(record.0);
    let Some(after) = of(record.1) else {
        return Vec::new();
    };
    let mut entries = Vec::new();
    let by = Actor::Coordinator(after.holder.clone());
    let taken = |it: &LeaseRecord| (it.holder.clone(), it.run, it.term);
    if before.map(taken) != Some(taken(after)) {
        entries.push(AuditEntry {
            from: before.map(|it| it.holder.to_string()).unwrap_or_default(),
            to: after.holder.to_string(),
            by: by.clone(),
            reason: format!("it took the office for term {}", after.term),
            ..entry
        });
    }
    for (node, sequence) in &after.evicted {
        if before.and_then(|it| it.evicted.get(node)) != Some(sequence) {
            entries.push(AuditEntry {
                node: Some(node.clone()),
                from: "disconnected".to_owned(),
                to: "evicted".to_owned(),
                by: by.clone(),
                reason: evicted_because(after),
                ..of_node.clone()
            });
        }
    }
    entries
}

/// Who moved an instance from one state to another by the change of a record.
#[must_use]
pub(crate) fn who_moved(instance: InstanceId, changed: &Changed<'_>) -> Actor {
    match (changed.key, changed.before, changed.after) {
        (Key::Instance(id), before, after) if *id == instance => match (before, after) {
            // Its agent says the same: what is noted of where it stands has changed.
            (Some(Record::Instance(before)), Some(Record::Instance(after)))
                if before.facts == after.facts =>
            {
                Actor::Graph
            }
            (_, Some(Record::Instance(it))) | (Some(Record::Instance(it)), _) => {
                Actor::Agent(it.facts.node.clone())
            }
            _ => Actor::Graph,
        },
        (Key::Wish(_), _, Some(Record::Wish(wish))) => Actor::Operator(wish.by.clone()),
        (Key::Split(_), _, Some(Record::Split(split))) => Actor::Operator(split.by.clone()),
        (Key::Rollout(_), _, Some(Record::Rollout(rollout))) => actor(&rollout.moved_by),
        (Key::Node(node), _, Some(_)) => Actor::Agent(node.clone()),
        (Key::Node(node), _, None) => {
            let evicted = changed.lease.filter(|it| it.evicted.contains_key(node));
            evicted.map_or(Actor::Graph, |it| Actor::Coordinator(it.holder.clone()))
        }
        _ => Actor::Graph,
    }
}

/// An instance that went from one state to another; the caller says which instance it is.
#[must_use]
pub(crate) fn of_instance(by: Actor, cause: Option<&Key>, source: Source) -> AuditEntry {
    AuditEntry {
        by,
        cause: cause.map(ToString::to_string).unwrap_or_default(),
        ..source.entry(AuditKind::Instance, &Key::Epoch)
    }
}

/// A new incarnation of the table: `from` is `None` when none was known before.
#[must_use]
pub(crate) fn epoch_begun(from: Option<u64>, epoch: u64, at: Timestamp) -> AuditEntry {
    let source = Source {
        // One entry for each epoch, whoever makes it and whenever.
        revision: Revision { epoch, sequence: 0 },
        at,
        found: from.is_none(),
    };
    AuditEntry {
        from: from.map(|epoch| epoch.to_string()).unwrap_or_default(),
        to: epoch.to_string(),
        reason: "the registry's store was made, or is a new one or an older copy".to_owned(),
        ..source.entry(AuditKind::Table, &Key::Epoch)
    }
}
