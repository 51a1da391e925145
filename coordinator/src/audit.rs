//! What goes to the audit: every change of the registry as it is seen, and what is found to have
//! changed unseen when the registry is read anew.
//!
//! What is said of a change is decided by pure functions ([`change`]).

mod change;
mod entry;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh_bus::{AuditLog, Notice};
use mesh_core::id::InstanceId;
use mesh_core::revision::{Revision, Timestamp};
use mesh_core::state::InstanceState;
use mesh_engine::engine::{Engine, Event, StoreState};
use mesh_engine::record::{Key, LeaseRecord, Record};

use self::change::{Changed, Source, epoch_begun, of_instance, of_record, who_moved};
pub(crate) use self::entry::{Actor, AuditEntry, is_covered};
use crate::transitions::Transition;

/// Looks at the engine before and after each event.
#[derive(Debug, Default)]
pub(crate) struct Auditor {
    /// The change at hand.
    cause: Option<Cause>,
    /// What the store tells from the start, until all is told: sequence and time by key.
    staged: Option<BTreeMap<Key, (u64, Timestamp)>>,
    reread: Option<Reread>,
    published: Vec<Published>,
}

/// One record changed.
#[derive(Debug)]
struct Cause {
    key: Key,
    sequence: u64,
    at: Timestamp,
    before: Option<Record>,
    lease: Option<LeaseRecord>,
}

/// The registry was told from the start.
#[derive(Debug)]
struct Reread {
    told: BTreeMap<Key, (u64, Timestamp)>,
    /// What was known until then, without instances.
    before: BTreeMap<Key, (Record, u64)>,
    revision: Revision,
    lease: Option<LeaseRecord>,
}

/// The table changed.
#[derive(Debug)]
struct Published {
    before: Revision,
    after: Revision,
    transitions: Vec<Transition>,
}

impl Auditor {
    /// Before the engine takes an event.
    pub(crate) fn before(&mut self, event: &Event, engine: &Engine) {
        match event {
            Event::StoreReset { .. } => self.staged = Some(BTreeMap::new()),
            Event::StoreLost => self.staged = None,
            Event::Stored {
                key, sequence, at, ..
            } => {
                let Ok(key) = key.parse::<Key>() else {
                    return;
                };
                if let Some(staged) = &mut self.staged {
                    staged.insert(key, (*sequence, *at));
                } else if engine.store() == StoreState::Current
                    && *sequence > engine.latest().sequence
                {
                    self.cause = Some(Cause {
                        before: engine.record(&key).map(|(record, _)| record),
                        lease: lease(engine),
                        key,
                        sequence: *sequence,
                        at: *at,
                    });
                }
            }
            Event::StoreCurrent => {
                let Some(told) = self.staged.take() else {
                    return;
                };
                let known = |key: Key| Some((key.clone(), engine.record(&key)?));
                let keys = engine.keys().chain([Key::Lease]);
                self.reread = Some(Reread {
                    told,
                    before: keys.filter_map(known).collect(),
                    revision: engine.latest(),
                    lease: lease(engine),
                });
            }
            _ => {}
        }
    }

    /// The table went from one revision to another.
    pub(crate) fn published(
        &mut self,
        before: Revision,
        after: Revision,
        transitions: Vec<Transition>,
    ) {
        self.published.push(Published {
            before,
            after,
            transitions,
        });
    }

    /// After the engine took the event: what is to be told.
    pub(crate) fn after(&mut self, engine: &Engine, now: Timestamp) -> Vec<AuditEntry> {
        let (cause, reread) = (self.cause.take(), self.reread.take());
        let published = std::mem::take(&mut self.published);
        if cause.is_none() && reread.is_none() && published.is_empty() {
            return Vec::new();
        }
        let mut entries = Vec::new();
        let after = cause.as_ref().and_then(|cause| engine.record(&cause.key));
        let changed = cause.as_ref().map(|cause| Changed {
            key: &cause.key,
            before: cause.before.as_ref(),
            after: after.as_ref().map(|(record, _)| record),
            lease: cause.lease.as_ref(),
        });
        if let (Some(cause), Some(changed)) = (&cause, &changed) {
            let source = Source {
                revision: engine.latest(),
                at: cause.at,
                found: false,
            };
            entries.extend(of_record(changed, source));
        }
        if let Some(reread) = &reread {
            reread.entries(engine, now, &mut entries);
        }
        for Published {
            before,
            after,
            transitions,
        } in published
        {
            if before.epoch != after.epoch {
                let from = (before.epoch != 0).then_some(before.epoch);
                entries.push(epoch_begun(from, after.epoch, now));
            }
            let live = cause.as_ref().zip(changed.as_ref());
            let live = live.filter(|(cause, _)| cause.sequence == after.sequence);
            for transition in transitions {
                let id = transition.instance;
                let entry = match live {
                    Some((cause, changed)) => {
                        let source = Source {
                            revision: after,
                            at: cause.at,
                            found: false,
                        };
                        of_instance(who_moved(id, changed), Some(&cause.key), source)
                    }
                    None => found(id, reread.as_ref(), after, now),
                };
                entries.push(moved(transition, entry));
            }
        }
        entries
    }
}

fn lease(engine: &Engine) -> Option<LeaseRecord> {
    match engine.record(&Key::Lease)? {
        (Record::Lease(lease), _) => Some(lease),
        _ => None,
    }
}

impl Reread {
    /// What changed unseen, in the order of the store.
    fn entries(&self, engine: &Engine, now: Timestamp, entries: &mut Vec<AuditEntry>) {
        let latest = engine.latest();
        let same_store = self.revision.epoch == latest.epoch;
        let mut told: Vec<(&Key, u64, Timestamp)> = Vec::new();
        for (key, (sequence, at)) in &self.told {
            let known = self.before.get(key).map(|(_, sequence)| *sequence);
            let is_news = !same_store || known != Some(*sequence);
            if is_news && !matches!(key, Key::Instance(_)) {
                told.push((key, *sequence, *at));
            }
        }
        told.sort_by_key(|(_, sequence, _)| *sequence);
        let missing = self.before.keys();
        let missing = missing.filter(|key| !self.told.contains_key(*key));
        told.extend(missing.map(|key| (key, latest.sequence, now)));
        for (key, sequence, at) in told {
            let after = engine.record(key);
            let changed = Changed {
                key,
                before: self.before.get(key).map(|(record, _)| record),
                after: after.as_ref().map(|(record, _)| record),
                lease: self.lease.as_ref(),
            };
            let source = Source {
                revision: Revision { sequence, ..latest },
                at,
                found: true,
            };
            entries.extend(of_record(&changed, source));
        }
    }
}

/// An instance was found to stand elsewhere; nobody knows by which change.
fn found(
    id: InstanceId,
    reread: Option<&Reread>,
    revision: Revision,
    now: Timestamp,
) -> AuditEntry {
    let told = reread.and_then(|reread| reread.told.get(&Key::Instance(id)));
    let at = told.map_or(now, |(_, at)| *at);
    let source = Source {
        revision,
        at,
        found: true,
    };
    of_instance(Actor::Graph, None, source)
}

fn moved(transition: Transition, entry: AuditEntry) -> AuditEntry {
    let word = |state: Option<InstanceState>| state.map(|it| it.as_str().to_owned());
    AuditEntry {
        plugin: transition.plugin.parse().ok(),
        version: transition.version,
        node: Some(transition.node),
        instance: Some(transition.instance),
        from: word(transition.from).unwrap_or_default(),
        to: word(transition.to).unwrap_or_else(|| "gone".to_owned()),
        reason: transition.reason,
        ..entry
    }
}

/// Tells the audit, which never makes anybody wait.
pub(crate) fn tell(log: &AuditLog, entry: &AuditEntry) {
    match entry.encode() {
        Ok(payload) => log.tell(Notice {
            subject: entry.subject(log.mesh()),
            payload: Bytes::from(payload),
        }),
        Err(error) => tracing::error!(%error, "an entry of the audit has no JSON form: a bug"),
    }
}
