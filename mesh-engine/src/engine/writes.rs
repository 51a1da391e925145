//! Writes: the one path from what shall be to what is stored.
//!
//! Whatever may differ from its record is marked. For each marked key it is decided anew what its
//! record shall be, from the newest stored value; if that differs, it is written by compare-and-set.
//! A key has one write in flight; a conflict means that the store moved on, and is decided again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::derive::Derived;
use super::event::{Command, WriteError, WriteId};
use super::registry::Slot;
use super::sessions::{Reported, Session};
use super::{Engine, Turned};
use crate::record::{InstanceRecord, Key, NodeRecord, Record, Stand, Standing};
use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::{InstanceId, NodeId};
use mesh_core::revision::Timestamp;
use mesh_core::state::Phase;

/// How long to wait after a failed write, in milliseconds.
const RETRY_MS: u64 = 1_000;
/// How long to wait after a conflict of which the store has not told yet, in milliseconds.
const CONFLICT_MS: u64 = 250;
/// How long another coordinator has to note what happens to the instances of its sessions.
const OTHERS_NOTE_MS: u64 = 2_000;

#[derive(Debug, Default)]
pub(super) struct Writes {
    /// Keys that may differ from their records.
    pub marked: BTreeSet<Key>,
    in_flight: BTreeMap<Key, InFlight>,
    retry: BTreeMap<Key, Timestamp>,
    /// Number of the last write.
    last: u64,
}

#[derive(Debug)]
struct InFlight {
    write: WriteId,
    expected: u64,
    /// The store's answer; the write is over when the store has told of it, too.
    sequence: Option<u64>,
}

impl Writes {
    /// What is stored is known anew. A write that is still on its way can't do harm: whatever is
    /// written now, one of the two meets a conflict.
    pub fn resynchronised(&mut self) {
        self.in_flight.clear();
        self.retry.clear();
    }

    pub fn is_in_flight(&self, key: &Key) -> bool {
        self.in_flight.contains_key(key)
    }
}

/// What a key's record shall be.
enum Shall {
    /// As it is, whatever it is.
    Stay,
    Be(Record),
    NotBe,
}

impl Engine {
    pub(super) fn written(&mut self, id: WriteId, key: &Key, sequence: u64) {
        let told = self.registry.applied >= sequence;
        let write = self.writes.in_flight.get_mut(key);
        if let Some(write) = write.filter(|write| write.write == id) {
            write.sequence = Some(sequence);
            if told && self.is_current() {
                self.writes.in_flight.remove(key);
                self.mark([key.clone()]);
            }
        }
    }

    /// The store told of a key.
    pub(super) fn seen_in_store(&mut self, key: &Key, sequence: u64) {
        self.writes.retry.remove(key);
        let write = self.writes.in_flight.get(key);
        if write
            .and_then(|write| write.sequence)
            .is_some_and(|own| own <= sequence)
        {
            self.writes.in_flight.remove(key);
        }
    }

    pub(super) fn write_failed(
        &mut self,
        id: WriteId,
        key: &Key,
        error: &WriteError,
        now: Timestamp,
    ) {
        let write = self.writes.in_flight.get(key);
        if write.is_none_or(|write| write.write != id) {
            return;
        }
        let Some(write) = self.writes.in_flight.remove(key) else {
            return;
        };
        let wait = match error {
            WriteError::Conflict if self.registry.sequence_of(key) != write.expected => 0,
            WriteError::Conflict => CONFLICT_MS,
            WriteError::Unavailable(_) | WriteError::Unknown(_) => RETRY_MS,
            WriteError::Refused(why) => {
                self.warn(format!("record {key} was refused by the store: {why}"));
                self.refuse_instance(key, why);
                60 * RETRY_MS
            }
        };
        self.wished_failed(key, error);
        if wait == 0 {
            self.mark([key.clone()]);
        } else {
            self.writes
                .retry
                .insert(key.clone(), Timestamp(now.0.saturating_add(wait)));
        }
    }

    /// Its agent must know that an instance can't be recorded.
    fn refuse_instance(&mut self, key: &Key, why: &str) {
        let Key::Instance(instance) = key else {
            return;
        };
        let reporter = self.sessions.report(*instance);
        let Some(session) = reporter.and_then(|(it, _)| self.sessions.id_of_node(&it.route.node))
        else {
            return;
        };
        let text = format!("the registry's store refuses the record: {why}");
        self.out.push(Command::Reject {
            session,
            instance: *instance,
            error: MeshError::new(ErrorCode::TooLarge, text),
        });
    }

    pub(super) fn tick_writes(&mut self, now: Timestamp) {
        let due = self.writes.retry.extract_if(.., |_, at| *at <= now);
        self.writes.marked.extend(due.map(|(key, _)| key));
    }

    pub(super) fn write_marked(&mut self, now: Timestamp) {
        for key in std::mem::take(&mut self.writes.marked) {
            let unreadable = self.registry.unreadable.get(&key);
            let busy = self.writes.is_in_flight(&key) || self.writes.retry.contains_key(&key);
            if busy || unreadable.is_some_and(|unreadable| unreadable.newer) {
                continue;
            }
            let shall = match &key {
                Key::Node(node) => self.node_shall(node),
                Key::Instance(id) => self.instance_shall(*id, now),
                Key::Rollout(plugin) if !self.is_asked_for(&key) => {
                    let record = self.rollout_shall(plugin, now);
                    record.map_or(Shall::Stay, Shall::Be)
                }
                Key::Wish(_) | Key::Split(_) | Key::Rollout(_) => {
                    self.wished_shall(&key).map_or(Shall::Stay, Shall::Be)
                }
                Key::Coordinator(name) => match self.renewal(name, now) {
                    Some(record) => Shall::Be(Record::Coordinator(record)),
                    None => Shall::Stay,
                },
                Key::Epoch => self.epoch_shall().map_or(Shall::Stay, Shall::Be),
                Key::Lease => match self.lease_shall(self.writes.last + 1, now) {
                    Some(record) => Shall::Be(Record::Lease(record)),
                    None => Shall::Stay,
                },
            };
            let value = match shall {
                Shall::Stay => continue,
                Shall::NotBe => None,
                Shall::Be(record) => match record.encode(&key) {
                    Ok(bytes) => Some(bytes),
                    Err(error) => {
                        self.warn(error);
                        continue;
                    }
                },
            };
            let expected = self.registry.sequence_of(&key);
            self.writes.last += 1;
            let write = WriteId(self.writes.last);
            let in_flight = InFlight {
                write,
                expected,
                sequence: None,
            };
            self.writes.in_flight.insert(key.clone(), in_flight);
            self.out.push(Command::Write {
                write,
                key,
                value,
                expected,
            });
        }
    }

    fn node_shall(&self, node: &NodeId) -> Shall {
        let stored = self.registry.nodes.get(node);
        if let (Some(session), Some(id)) =
            (self.sessions.of_node(node), self.sessions.id_of_node(node))
        {
            let record = NodeRecord {
                route: session.route.clone(),
                holder: Some(self.holder_of(id)),
                parting: None,
            };
            return if stored.is_some_and(|stored| stored.record == record) {
                Shall::Stay
            } else {
                Shall::Be(Record::Node(record))
            };
        }
        let Some(stored) = stored else {
            return Shall::Stay;
        };
        if self.is_evicted_by_me(node, stored.sequence) {
            return Shall::NotBe;
        }
        let stored = &stored.record;
        match &stored.holder {
            // Its session here is closed.
            Some(holder) if self.is_mine(holder) => Shall::Be(Record::Node(NodeRecord {
                route: stored.route.clone(),
                holder: None,
                parting: self.leases.partings.get(node).copied(),
            })),
            _ => Shall::Stay,
        }
    }

    fn instance_shall(&self, id: InstanceId, now: Timestamp) -> Shall {
        let slot = self.registry.instances.get(&id);
        if let Some((session, reported)) = self.sessions.report(id) {
            return self.reported_shall(id, slot, session, reported, now);
        }
        let Some(slot) = slot else {
            return Shall::Stay;
        };
        let facts = &slot.stored.record.facts;
        let key = Key::Node(facts.node.clone());
        if self.registry.unreadable.contains_key(&key) {
            return Shall::Stay;
        }
        if self.registry.generation(&facts.node) != Some(facts.generation) {
            return Shall::NotBe;
        }
        let session = self.sessions.of_node(&facts.node);
        let session = session.filter(|session| session.route.generation == facts.generation);
        if session.is_some_and(|session| session.announced || session.refused.contains(&id)) {
            return Shall::NotBe;
        }
        let standing = slot
            .derived
            .as_ref()
            .and_then(|it| self.standing(id, slot, it, now));
        if standing == slot.stored.record.standing {
            return Shall::Stay;
        }
        Shall::Be(Record::Instance(InstanceRecord {
            admitted: Some(slot.admitted()),
            standing,
            ..slot.stored.record.clone()
        }))
    }

    /// The record of an instance that an agent tells of. It comes after its node's.
    fn reported_shall(
        &self,
        id: InstanceId,
        slot: Option<&Slot>,
        session: &Session,
        reported: &Reported,
        now: Timestamp,
    ) -> Shall {
        if self.registry.generation(&session.route.node) != Some(session.route.generation) {
            return Shall::Stay;
        }
        let facts = reported.report.facts(&session.route);
        // What an older generation stored under this id says nothing of this instance.
        let slot = slot.filter(|slot| slot.derived.is_some());
        let ready = matches!(facts.phase, Phase::Ready | Phase::Unhealthy);
        let standing = slot.filter(|_| ready).and_then(|slot| {
            let derived = slot.derived.as_ref()?;
            self.standing(id, slot, derived, now)
        });
        if let Some(slot) = slot {
            let stored = &slot.stored.record;
            let same = stored.facts == facts && slot.spec == reported.spec;
            if same && stored.standing == standing {
                return Shall::Stay;
            }
        }
        Shall::Be(Record::Instance(InstanceRecord {
            facts,
            manifest: Arc::clone(&reported.report.manifest),
            admitted: slot.map(Slot::admitted),
            standing,
        }))
    }

    /// What shall be noted of where an instance stands.
    fn standing(
        &self,
        id: InstanceId,
        slot: &Slot,
        derived: &Derived,
        now: Timestamp,
    ) -> Option<Standing> {
        let noted = slot.stored.record.standing;
        let stand = derived.stand?;
        let here = Turned {
            stand,
            at: now,
            seen: now,
        };
        let turned = self.unsettled.get(&id).copied().unwrap_or(here);
        let waited = now.millis_since(turned.seen);
        let next = if noted.is_none_or(|noted| noted.stand != stand) {
            Standing {
                stand,
                since: turned.at,
            }
        } else if stand == Stand::Losing && waited >= self.grace_ms() {
            Standing {
                stand: Stand::Blocked,
                since: now,
            }
        } else {
            return noted;
        };
        let due = match next.stand {
            Stand::Blocked if stand == Stand::Losing => self.grace_ms(),
            _ => 0,
        };
        if self.may_note(slot, waited.saturating_sub(due)) {
            Some(next)
        } else {
            noted
        }
    }

    fn grace_ms(&self) -> u64 {
        u64::try_from(self.config.grace.as_millis()).unwrap_or(u64::MAX)
    }

    /// The coordinator that has the node's session notes at once; others only what it left undone
    /// for so many milliseconds.
    fn may_note(&self, slot: &Slot, undone_ms: u64) -> bool {
        let here = self
            .sessions
            .of_node(&slot.stored.record.facts.node)
            .is_some();
        here || undone_ms >= OTHERS_NOTE_MS
    }
}

impl From<Option<Record>> for Shall {
    fn from(record: Option<Record>) -> Self {
        record.map_or(Self::NotBe, Self::Be)
    }
}
