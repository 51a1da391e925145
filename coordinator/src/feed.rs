//! The published table and its last changes, for any number of followers.
//!
//! A follower asks for what comes after the revision that it has. It gets all changes since then as
//! one, and when they are no longer kept (it lagged behind, or comes from elsewhere) the whole table. So
//! nobody holds others up and nothing grows with a slow one. A revision that is older than the
//! follower's own is never handed out.
//!
//! Telling everybody costs time by the number of followers. So a change is told at once after a quiet
//! time, and those that follow on it together, at a pace that grows with that number, and slower while many
//! come at a time: who has much to take in is not to be held up by telling of it. What is handed out
//! is encoded once, for all who come from the same revision, and packed once for all of them who take that.
//! Who needs it first does both, outside of the lock. That holds up the runtime's thread: for a whole table
//! of 10 MB packing does so for some 10 ms, once for each revision that is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use mesh_core::revision::Revision;
use mesh_core::table::{Table, TableUpdate};
use mesh_proto::control;
use mesh_proto::convert::SentUpdate;
use prost::Message;
use tokio::sync::watch;
use tokio::time::Instant;

/// How many changes are kept.
const KEPT: usize = 16_384;

/// How many bytes of changes are kept, as they are on the wire.
const KEPT_BYTES: usize = 16 * 1024 * 1024;

/// The pace is so much for each follower, about the processor time that it takes to tell one and to hear that
/// it knows, and at least and at most this.
const PACE: Duration = Duration::from_micros(50);
const SHORTEST_PACE: Duration = Duration::from_millis(5);
const LONGEST_PACE: Duration = Duration::from_secs(1);

/// When so many changes were told together, the next ones are told half as often; when fewer were, twice as
/// often again.
const MANY: usize = 8;

/// How many times it is halved at most: telling takes about an eighth of the time then.
const MOST_HALVED: u32 = 3;

/// Encodings that are kept until the next change is told: followers come from few revisions.
const ENCODINGS: usize = 16;

/// One change.
#[derive(Debug)]
struct Delta {
    from: Revision,
    /// Of the table that it continues.
    digest: u64,
    to: Revision,
    bytes: usize,
    update: TableUpdate,
}

#[derive(Debug, Default)]
struct Kept {
    /// As it was published last.
    newest: Table,
    /// As it was told last.
    told: Table,
    /// Each continues the one before it; the last ones may not be told yet.
    deltas: VecDeque<Arc<Delta>>,
    bytes: usize,
    /// When it was told last.
    told_at: Option<Instant>,
    /// How many changes were published since.
    untold: usize,
    /// How many times the pace is halved.
    halved: u32,
    /// What leads from these revisions to what was told last; `None`: from nothing.
    encodings: Vec<(Wanted, Encoding)>,
}

/// What an encoding leads on from, and whether it is for those who take packed updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    from: Option<Revision>,
    packed: bool,
}

type Encoding = Arc<OnceLock<SentUpdate>>;

/// Where the table is published. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    kept: Arc<Mutex<Kept>>,
    revision: Arc<watch::Sender<Revision>>,
}

/// The table that a follower has.
#[derive(Debug, Clone, Copy)]
struct Have {
    revision: Revision,
    /// 0: not known.
    digest: u64,
}

impl Have {
    fn is_the_same(self, digest: u64) -> bool {
        self.digest == 0 || self.digest == digest
    }
}

/// What leads a follower on, before it is encoded.
enum Way {
    Deltas(Vec<Arc<Delta>>),
    Whole(Table),
}

impl Way {
    fn encode(self, packed: bool) -> SentUpdate {
        let update = match self {
            Self::Whole(table) => table.to_snapshot(),
            Self::Deltas(deltas) => {
                let updates = deltas.iter().map(|delta| delta.update.clone());
                all_of(updates.collect())
            }
        };
        if packed {
            SentUpdate::packed(update)
        } else {
            SentUpdate::plain(update)
        }
    }
}

/// Updates that continue each other, as one. Neighbours are put together first: one after another, the
/// rows of the first would be gone through as often as there are updates.
fn all_of(mut updates: Vec<TableUpdate>) -> TableUpdate {
    while updates.len() > 1 {
        let mut rest = updates.into_iter();
        let pair = || {
            let first = rest.next()?;
            Some(match rest.next() {
                Some(next) => first.and(next),
                None => first,
            })
        };
        updates = std::iter::from_fn(pair).collect();
    }
    updates.pop().unwrap_or_default()
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self {
            kept: Arc::default(),
            revision: Arc::new(watch::Sender::new(Revision::default())),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table as it was published last.
    pub(crate) fn table(&self) -> Table {
        self.kept().newest.clone()
    }

    /// Publishes a change. It is told now or when [`Feed::due`] says.
    pub(crate) fn publish(&self, update: TableUpdate) {
        let mut kept = self.kept();
        let (from, digest) = (kept.newest.revision(), kept.newest.digest());
        match kept.newest.apply(&update) {
            Ok(table) => kept.newest = table,
            Err(error) => {
                // The engine publishes in order: this would be its bug, and followers stay whole.
                tracing::error!(%error, "a change of the table was not published: this is a bug");
                return;
            }
        }
        kept.untold += 1;
        let to = update.to;
        if from.epoch == to.epoch {
            let bytes = control::TableUpdate::from(update.clone()).encoded_len();
            kept.bytes += bytes;
            kept.deltas.push_back(Arc::new(Delta {
                from,
                digest,
                to,
                bytes,
                update,
            }));
        } else {
            // What others have of the epoch before may be something else: they get the whole table.
            kept.deltas.clear();
            kept.bytes = 0;
        }
        while kept.deltas.len() > KEPT || kept.bytes > KEPT_BYTES {
            let Some(oldest) = kept.deltas.pop_front() else {
                break;
            };
            kept.bytes = kept.bytes.saturating_sub(oldest.bytes);
        }
        let pace = self.pace(kept.halved);
        let quiet = kept.told_at.is_none_or(|at| at.elapsed() >= pace);
        drop(kept);
        if quiet {
            self.tell();
        }
    }

    fn pace(&self, halved: u32) -> Duration {
        let followers = u32::try_from(self.revision.receiver_count()).unwrap_or(u32::MAX);
        let pace = PACE.saturating_mul(followers).max(SHORTEST_PACE);
        pace.saturating_mul(1 << halved).min(LONGEST_PACE)
    }

    /// When what was published shall be told, if it was not yet.
    pub(crate) fn due(&self) -> Option<Instant> {
        let kept = self.kept();
        let waits = kept.newest.revision() != kept.told.revision();
        let pace = self.pace(kept.halved);
        kept.told_at.filter(|_| waits).map(|at| at + pace)
    }

    /// Tells all followers what was published.
    pub(crate) fn tell(&self) {
        let mut kept = self.kept();
        kept.told = kept.newest.clone();
        kept.told_at = Some(Instant::now());
        kept.halved = if std::mem::take(&mut kept.untold) >= MANY {
            MOST_HALVED.min(kept.halved + 1)
        } else {
            kept.halved.saturating_sub(1)
        };
        kept.encodings.clear();
        let told = kept.told.revision();
        drop(kept);
        self.revision.send_replace(told);
    }

    /// What leads from what a follower has to what was told last, if that is newer.
    fn after(&self, have: Option<Have>, packed: bool) -> Option<(Revision, SentUpdate)> {
        let mut kept = self.kept();
        let (told, digest) = (kept.told.revision(), kept.told.digest());
        let nothing = told == Revision::default();
        if nothing || have.is_some_and(|have| have.revision > told) {
            return None;
        }
        if have.is_some_and(|have| have.revision == told && have.is_the_same(digest)) {
            return None;
        }
        let place = have.and_then(|have| {
            let place = kept
                .deltas
                .binary_search_by_key(&have.revision, |it| it.from);
            let delta = kept.deltas.get(place.ok()?)?;
            (delta.to <= told && have.is_the_same(delta.digest)).then_some(place.ok()?)
        });
        let from = have.filter(|_| place.is_some()).map(|have| have.revision);
        let encoding = kept.encoding(Wanted { from, packed });
        if let Some(sent) = encoding.get() {
            return Some((told, sent.clone()));
        }
        let way = kept.way(place);
        drop(kept);
        let sent = encoding.get_or_init(|| way.encode(packed));
        Some((told, sent.clone()))
    }

    /// Follows the table from a revision on, of which the follower has the table with this digest (0:
    /// not known); `None`: from the start.
    pub(crate) fn follow(&self, have: Option<Revision>, digest: u64) -> Follower {
        // Revision zero is an empty table that nobody published.
        let have = have.filter(|have| *have != Revision::default());
        Follower {
            feed: self.clone(),
            revision: self.revision.subscribe(),
            have: have.map(|revision| Have { revision, digest }),
            packed: false,
            greeted: false,
        }
    }
}

impl Kept {
    /// Where the encoding of what leads on from a revision is, or will be.
    fn encoding(&mut self, wanted: Wanted) -> Encoding {
        let known = self.encodings.iter().find(|(known, _)| *known == wanted);
        if let Some((_, encoding)) = known {
            return Arc::clone(encoding);
        }
        let encoding = Encoding::default();
        if self.encodings.len() < ENCODINGS {
            self.encodings.push((wanted, Arc::clone(&encoding)));
        }
        encoding
    }

    /// The changes from this place on that were told; `None`: the whole table.
    fn way(&self, place: Option<usize>) -> Way {
        let Some(place) = place else {
            return Way::Whole(self.told.clone());
        };
        let told = self.told.revision();
        let deltas = self.deltas.range(place..);
        Way::Deltas(deltas.take_while(|it| it.to <= told).cloned().collect())
    }
}

/// One who follows the table.
#[derive(Debug)]
pub(crate) struct Follower {
    feed: Feed,
    revision: watch::Receiver<Revision>,
    have: Option<Have>,
    /// It takes packed updates, too.
    packed: bool,
    /// The first update was handed out.
    greeted: bool,
}

impl Follower {
    /// The same, for somebody who takes packed updates, too, or does not.
    pub(crate) fn takes_packed(mut self, packed: bool) -> Self {
        self.packed = packed;
        self
    }

    /// The next update, when there is one, encoded. The first one comes even when the follower's table
    /// is the newest: then it is empty, and says just that. Safe to cancel; what is returned counts as
    /// handed out.
    pub(crate) async fn next(&mut self) -> SentUpdate {
        loop {
            // Seen before it is looked at, so that no change is missed.
            let now = *self.revision.borrow_and_update();
            if let Some((revision, sent)) = self.feed.after(self.have, self.packed) {
                // It comes from here.
                let digest = 0;
                self.have = Some(Have { revision, digest });
                self.greeted = true;
                return sent;
            }
            if !self.greeted && self.have.is_some_and(|have| have.revision == now) {
                self.greeted = true;
                return SentUpdate::plain(TableUpdate {
                    from: Some(now),
                    to: now,
                    ..TableUpdate::default()
                });
            }
            // The sender lives in the feed that this one holds, so waiting can't fail.
            let _ = self.revision.changed().await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
