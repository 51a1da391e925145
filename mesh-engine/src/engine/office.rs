//! The office: of all coordinators one at a time evicts nodes, and takes rollouts forward.
//!
//! It is held by a lease, which is a record. A holder counts it from when it *sent* the write that was
//! then seen to be stored, others count half as much again from when they *saw* that, each by its own
//! clock; so it is over for the holder before anybody may take it. Whatever the clocks do, a decision is
//! a write of that same record: once another has taken it, the store refuses the decisions of the one
//! before. A new holder waits one lease before its first eviction. Nobody holds the office, and nothing
//! is written, while there is no node to decide about and no rollout's step is due.
//!
//! A store that is an older copy knows of no holder, or of an earlier one, while somebody holds the office
//! who has not heard of it yet. So nobody takes it at once by what a store says when it is read anew, but
//! who held it without a break.

use std::collections::BTreeMap;

use super::Engine;
use crate::record::{Key, LeaseRecord};
use mesh_core::id::NodeId;
use mesh_core::revision::Timestamp;

/// What this coordinator knows of the office, by its own clock.
#[derive(Debug, Default)]
pub(super) struct Office {
    /// The last write of the record that was sent: its number, and when.
    sent: Option<(u64, Timestamp)>,
    held: Option<Held>,
    /// Until then nobody else could have taken it from this coordinator.
    until: Timestamp,
    /// When the record was last seen to change, or the store to begin anew.
    seen: Timestamp,
    /// A mistake that simulations must find.
    #[cfg(test)]
    skips_the_wait: bool,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    term: u64,
    since: Timestamp,
}

impl Office {
    pub fn resynchronised(&mut self, now: Timestamp) {
        *self = Self {
            seen: now,
            until: self.until,
            #[cfg(test)]
            skips_the_wait: self.skips_the_wait,
            ..Self::default()
        };
    }
}

impl Engine {
    fn lease_record(&self) -> Option<&LeaseRecord> {
        let stored = self.registry.lease.as_ref();
        stored.map(|stored| &stored.record)
    }

    fn is_my_lease(&self, record: &LeaseRecord) -> bool {
        record.holder == self.config.name && record.run == self.config.run
    }

    /// The record was stored.
    pub(super) fn lease_stored(&mut self, now: Timestamp) {
        let record = self.lease_record();
        let mine = record.filter(|record| self.is_my_lease(record));
        let mine = mine.map(|record| (record.term, record.write, record.evicted.clone()));
        let lease = self.lease_ms();
        let office = &mut self.leases.office;
        office.seen = now;
        let Some((term, write, evicted)) = mine else {
            office.held = None;
            return;
        };
        if let Some((_, at)) = office.sent.filter(|(number, _)| *number == write) {
            let known = office.held.filter(|held| held.term == term);
            office.held = Some(Held {
                term,
                since: known.map_or(now, |held| held.since),
            });
            office.until = Timestamp(at.0.saturating_add(lease));
        }
        for (node, sequence) in evicted {
            if self.registry.sequence_of(&Key::Node(node.clone())) == sequence {
                self.warn(format!(
                    "node {node} is evicted: its session is closed and its lease of {lease} ms has run out"
                ));
                self.mark([Key::Node(node)]);
            }
        }
    }

    /// Whether this coordinator holds the office now.
    #[must_use]
    pub fn holds_office(&self, now: Timestamp) -> bool {
        let office = &self.leases.office;
        self.is_current() && office.held.is_some() && now < office.until
    }

    /// The term in which this coordinator holds the office now.
    pub(super) fn term(&self, now: Timestamp) -> Option<u64> {
        let held = self.leases.office.held.filter(|_| self.holds_office(now));
        held.map(|held| held.term)
    }

    /// Who holds the office as far as is known here: the record, as long as nobody else could take it.
    pub(super) fn office(&self) -> Option<&LeaseRecord> {
        let record = self.lease_record()?;
        let lease = self.lease_ms().max(record.lease_ms);
        let quiet = self.leases.last_tick.millis_since(self.leases.office.seen);
        (quiet <= lease + lease / 2).then_some(record)
    }

    #[cfg(test)]
    pub(crate) fn skip_the_wait(&mut self, skip: bool) {
        self.leases.office.skips_the_wait = skip;
    }

    /// How long nothing is decided after whatever gives reason to wait, in milliseconds.
    pub(super) fn lease_to_wait(&self) -> u64 {
        #[cfg(test)]
        if self.leases.office.skips_the_wait {
            return 0;
        }
        self.lease_ms()
    }

    /// Whether it holds the office, and has for one lease.
    fn may_decide(&self, now: Timestamp) -> bool {
        let held = self.leases.office.held.filter(|_| self.holds_office(now));
        held.is_some_and(|held| now.millis_since(held.since) > self.lease_to_wait())
    }

    /// Whether nobody else can hold the office.
    fn may_take_office(&self, now: Timestamp) -> bool {
        let (record, office) = (self.lease_record(), &self.leases.office);
        let lease = record.map_or(0, |record| record.lease_ms);
        let lease = lease.max(self.lease_ms());
        let is_mine = record.is_some_and(|record| self.is_my_lease(record));
        (is_mine && now < office.until) || now.millis_since(office.seen) > lease + lease / 2
    }

    /// Whether the holder of the office has decided that this record of a node shall go, and is this
    /// coordinator.
    pub(super) fn is_evicted_by_me(&self, node: &NodeId, sequence: u64) -> bool {
        let mine = self.lease_record().filter(|it| self.is_my_lease(it));
        mine.is_some_and(|record| record.evicted.get(node) == Some(&sequence))
    }

    fn is_office_needed(&self, now: Timestamp) -> bool {
        self.is_judge_needed(now) || self.is_step_due(now)
    }

    pub(super) fn tick_office(&mut self, now: Timestamp) {
        if self.is_current() && self.is_office_needed(now) {
            self.mark([Key::Lease]);
        }
    }

    /// What the record shall be, when it is due to be written; `write` is the number of that write.
    pub(super) fn lease_shall(&mut self, write: u64, now: Timestamp) -> Option<LeaseRecord> {
        if !self.is_office_needed(now) {
            return None;
        }
        let lease = self.lease_ms();
        let stored = self.lease_record();
        let (term, since, evicted) = if self.holds_office(now) {
            let record = stored?;
            let evicted = if self.may_decide(now) {
                self.nodes_to_evict(now)
            } else {
                BTreeMap::new()
            };
            let news = evicted.iter().any(|(node, sequence)| {
                // What was decided is not decided again.
                record.evicted.get(node) != Some(sequence)
            });
            let left = self.leases.office.until.millis_since(now);
            if !news && left > lease - lease / 3 {
                return None;
            }
            (record.term, record.since, evicted)
        } else if self.may_take_office(now) {
            let term = stored.map_or(0, |record| record.term) + 1;
            (term, now, BTreeMap::new())
        } else {
            return None;
        };
        self.leases.office.sent = Some((write, now));
        Some(LeaseRecord {
            holder: self.config.name.clone(),
            run: self.config.run,
            term,
            since,
            write,
            lease_ms: lease,
            evicted,
        })
    }
}
