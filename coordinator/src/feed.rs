//! The published table and its last changes, for any number of followers.
//!
//! A follower asks for what comes after the revision that it has. It gets the next change, and when
//! that is no longer kept (it lagged behind, or comes from elsewhere) the whole table. So nobody holds
//! others up and nothing grows with a slow one. A revision that is older than the follower's own is
//! never handed out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_core::revision::Revision;
use mesh_core::table::{Table, TableUpdate};
use mesh_proto::control;
use prost::Message;
use tokio::sync::watch;

/// How many changes are kept.
const KEPT: usize = 1_024;

/// How many bytes of changes are kept, as they are on the wire.
const KEPT_BYTES: usize = 16 * 1024 * 1024;

/// One change, ready for the wire.
#[derive(Debug)]
struct Delta {
    from: Revision,
    to: Revision,
    bytes: usize,
    wire: control::TableUpdate,
}

#[derive(Debug, Default)]
struct Kept {
    table: Table,
    /// Each continues the one before it.
    deltas: VecDeque<Arc<Delta>>,
    bytes: usize,
}

/// Where the table is published. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    kept: Arc<Mutex<Kept>>,
    revision: Arc<watch::Sender<Revision>>,
}

/// What a follower gets next.
enum Next {
    Delta(Arc<Delta>),
    Snapshot(Table),
    Nothing,
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
        self.kept().table.clone()
    }

    /// Publishes a change.
    pub(crate) fn publish(&self, update: TableUpdate) {
        let mut kept = self.kept();
        let from = kept.table.revision();
        match kept.table.apply(&update) {
            Ok(table) => kept.table = table,
            Err(error) => {
                // The engine publishes in order: this would be its bug, and followers stay whole.
                tracing::error!(%error, "a change of the table was not published: this is a bug");
                return;
            }
        }
        let (to, wire) = (update.to, control::TableUpdate::from(update));
        let bytes = wire.encoded_len();
        let delta = Delta {
            from,
            to,
            bytes,
            wire,
        };
        if from.epoch != to.epoch {
            // What others have of the epoch before may be something else: they get the whole table.
            kept.deltas.clear();
            kept.bytes = 0;
        } else {
            kept.bytes += bytes;
            kept.deltas.push_back(Arc::new(delta));
        }
        while kept.deltas.len() > KEPT || kept.bytes > KEPT_BYTES {
            let Some(oldest) = kept.deltas.pop_front() else {
                break;
            };
            kept.bytes = kept.bytes.saturating_sub(oldest.bytes);
        }
        drop(kept);
        self.revision.send_replace(to);
    }

    fn after(&self, have: Option<Revision>) -> Next {
        let kept = self.kept();
        let now = kept.table.revision();
        if now == Revision::default() {
            return Next::Nothing;
        }
        let Some(have) = have else {
            return Next::Snapshot(kept.table.clone());
        };
        if have >= now {
            return Next::Nothing;
        }
        let place = kept.deltas.binary_search_by_key(&have, |delta| delta.from);
        match place.ok().and_then(|place| kept.deltas.get(place)) {
            Some(delta) => Next::Delta(Arc::clone(delta)),
            None => Next::Snapshot(kept.table.clone()),
        }
    }

    /// Follows the table from a revision on; `None`: from the start.
    pub(crate) fn follow(&self, have: Option<Revision>) -> Follower {
        Follower {
            feed: self.clone(),
            revision: self.revision.subscribe(),
            // Revision zero is an empty table that nobody published.
            have: have.filter(|have| *have != Revision::default()),
            greeted: false,
        }
    }
}

/// One who follows the table.
#[derive(Debug)]
pub(crate) struct Follower {
    feed: Feed,
    revision: watch::Receiver<Revision>,
    have: Option<Revision>,
    /// The first update was handed out.
    greeted: bool,
}

impl Follower {
    /// The next update, when there is one. The first one comes even when the follower's table is
    /// the newest: then it is empty, and says just that. Safe to cancel; what is returned counts as
    /// handed out.
    pub(crate) async fn next(&mut self) -> control::TableUpdate {
        loop {
            // Seen before it is looked at, so that no change is missed.
            let now = *self.revision.borrow_and_update();
            match self.feed.after(self.have) {
                Next::Delta(delta) => {
                    self.have = Some(delta.to);
                    self.greeted = true;
                    return delta.wire.clone();
                }
                Next::Snapshot(table) => {
                    self.have = Some(table.revision());
                    self.greeted = true;
                    return table.to_snapshot().into();
                }
                Next::Nothing if !self.greeted && self.have == Some(now) => {
                    self.greeted = true;
                    return control::TableUpdate::from(TableUpdate {
                        from: Some(now),
                        to: now,
                        ..TableUpdate::default()
                    });
                }
                Next::Nothing => {}
            }
            // The sender lives in the feed that this one holds, so waiting can't fail.
            let _ = self.revision.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;
    use futures::FutureExt;

    fn at(sequence: u64) -> Revision {
        Revision { epoch: 1, sequence }
    }

    fn change(feed: &Feed, sequence: u64) {
        let from = feed.kept().table.revision();
        feed.publish(TableUpdate {
            from: Some(from),
            to: at(sequence),
            ..TableUpdate::default()
        });
    }

    /// From and to of the next update; the epoch is left out.
    fn next(follower: &mut Follower) -> Option<(Option<u64>, u64)> {
        let update = follower.next().now_or_never()?;
        Some((
            update.from.map(|from| from.sequence),
            update.to.unwrap().sequence,
        ))
    }

    #[test]
    fn a_new_follower_gets_the_whole_table_and_then_every_change() {
        let feed = Feed::new();
        let mut follower = feed.follow(None);
        assert_eq!(next(&mut follower), None, "nothing is known yet");
        change(&feed, 5);
        change(&feed, 6);
        assert_eq!(next(&mut follower), Some((None, 6)));
        change(&feed, 7);
        change(&feed, 9);
        assert_eq!(next(&mut follower), Some((Some(6), 7)));
        assert_eq!(next(&mut follower), Some((Some(7), 9)));
        assert_eq!(next(&mut follower), None);
    }

    #[test]
    fn who_comes_back_gets_only_what_is_newer() {
        let feed = Feed::new();
        for sequence in 1..=5 {
            change(&feed, sequence);
        }
        let mut follower = feed.follow(Some(at(3)));
        assert_eq!(next(&mut follower), Some((Some(3), 4)));
        assert_eq!(next(&mut follower), Some((Some(4), 5)));
        let mut newest = feed.follow(Some(at(5)));
        assert_eq!(
            next(&mut newest),
            Some((Some(5), 5)),
            "it is told that it is the newest"
        );
        assert_eq!(next(&mut newest), None);
        let mut stranger = feed.follow(Some(Revision {
            epoch: 0,
            sequence: 4,
        }));
        assert_eq!(next(&mut stranger), Some((None, 5)));
    }

    #[test]
    fn who_is_further_gets_nothing_older_and_goes_on_when_it_is_passed() {
        let feed = Feed::new();
        change(&feed, 5);
        let mut follower = feed.follow(Some(at(8)));
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
        let mut follower = feed.follow(Some(at(1)));
        let to = Revision {
            epoch: 2,
            sequence: 3,
        };
        feed.publish(TableUpdate {
            from: Some(at(2)),
            to,
            ..TableUpdate::default()
        });
        assert_eq!(next(&mut follower), Some((None, 3)));
    }

    #[test]
    fn who_lags_behind_gets_the_whole_table_instead() {
        let feed = Feed::new();
        change(&feed, 1);
        let mut slow = feed.follow(Some(at(1)));
        let _ = next(&mut slow);
        let changes = u64::try_from(KEPT).unwrap() + 10;
        for sequence in 2..changes {
            change(&feed, sequence);
        }
        assert_eq!(next(&mut slow), Some((None, changes - 1)));
        assert_eq!(feed.kept().deltas.len(), KEPT);
    }
}
