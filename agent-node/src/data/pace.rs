//! How fast a plugin's words beside its answers go on: progress of calls, and changes of its health.
//!
//! What comes faster is not lost but replaced by what comes after it, so that the last word counts.

use std::time::Duration;

use mesh_proto::common;
use tokio::time::Instant;

use crate::plugin_log;
use crate::rate_gate::{Pass, Rate, RateGate};
use crate::session::HealthChange;
use crate::session::ids::IdMap;

/// Progress of one call goes on so often in the long run.
const PROGRESS_EVERY: Duration = Duration::from_millis(10);

/// A call that was quiet may tell so much of its progress at once, in time of its rate.
const PROGRESS_BURST: Duration = Duration::from_millis(160);

/// Progress of all calls of one plugin.
const PROGRESS: Rate = Rate {
    per_second: 2_000,
    burst: 2_000,
};

/// Calls whose progress waits; that of further ones is left out.
const MOST_LATE: usize = 1_024;

/// Each change is written to the log, the registry and the table of the whole mesh.
const HEALTH: Rate = Rate {
    per_second: 1,
    burst: 4,
};

/// A change of health waits so long for the next one.
const HEALTH_WAIT: Duration = Duration::from_secs(1);

/// The progress that a caller asked for: when the next word about it is due at the rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProgressWish(Instant);

impl ProgressWish {
    pub(super) fn new(now: Instant) -> Self {
        Self(now)
    }

    fn has_room(self, now: Instant) -> bool {
        self.0 <= now + PROGRESS_BURST
    }

    fn told(&mut self, now: Instant) {
        self.0 = self.0.max(now) + PROGRESS_EVERY;
    }
}

/// The pace of one plugin.
#[derive(Debug)]
pub(super) struct Pace {
    progress: RateGate,
    late: IdMap<common::Progress>,
    late_at: Option<Instant>,
    health: RateGate,
    health_late: Option<(Instant, HealthChange)>,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            progress: RateGate::new(PROGRESS, now),
            late: IdMap::default(),
            late_at: None,
            health: RateGate::new(HEALTH, now),
            health_late: None,
        }
    }

    /// When something that waits is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let health = self.health_late.as_ref().map(|(at, _)| *at);
        match (self.late_at, health) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Takes a call's progress. Gives it back when it may go on now.
    pub(super) fn progress(
        &mut self,
        id: u64,
        wish: &mut ProgressWish,
        mut progress: common::Progress,
        now: Instant,
    ) -> Option<common::Progress> {
        plugin_log::shorten_text(&mut progress.message);
        if wish.has_room(now) && self.progress.pass(now) != Pass::No {
            wish.told(now);
            if !self.late.is_empty() {
                self.late.remove(&id);
            }
            return Some(progress);
        }
        if self.late.len() < MOST_LATE || self.late.contains_key(&id) {
            self.late.insert(id, progress);
            self.late_at.get_or_insert(now + PROGRESS_EVERY);
        }
        None
    }

    /// Progress that waited long enough: to be given to [`Pace::progress`] again.
    pub(super) fn take_late(&mut self, now: Instant) -> IdMap<common::Progress> {
        if self.late_at.is_none_or(|at| now < at) {
            return IdMap::default();
        }
        self.late_at = None;
        std::mem::take(&mut self.late)
    }

    /// Takes a change of health. Gives it back when it may be told now.
    pub(super) fn health(&mut self, change: HealthChange, now: Instant) -> Option<HealthChange> {
        if self.health.pass(now) == Pass::No {
            let at = self
                .health_late
                .take()
                .map_or(now + HEALTH_WAIT, |(at, _)| at);
            self.health_late = Some((at, change));
            return None;
        }
        self.health_late = None;
        Some(change)
    }

    /// A change of health that waited long enough: to be given to [`Pace::health`] again.
    pub(super) fn take_late_health(&mut self, now: Instant) -> Option<HealthChange> {
        let late = self.health_late.take_if(|(at, _)| *at <= now);
        late.map(|(_, change)| change)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    fn at(progress: f64) -> common::Progress {
        common::Progress {
            progress,
            ..common::Progress::default()
        }
    }

    #[test]
    fn a_flood_of_progress_is_cut_and_the_last_word_goes_on_in_time() {
        let now = Instant::now();
        let (mut pace, mut wish) = (Pace::new(now), ProgressWish::new(now));
        let told = (0..10_000)
            .filter(|number| {
                let progress = at(f64::from(*number));
                pace.progress(2, &mut wish, progress, now).is_some()
            })
            .count();
        assert_eq!(told, 17);
        let due = pace.due().unwrap();
        assert_eq!(due, now + PROGRESS_EVERY);
        assert!(pace.take_late(now).is_empty());
        let mut late = pace.take_late(due);
        let last = late.remove(&2).unwrap();
        assert_eq!(pace.progress(2, &mut wish, last, due).unwrap(), at(9_999.0));
        assert_eq!(pace.due(), None);
    }

    #[test]
    fn many_calls_of_one_plugin_share_a_bound() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let mut told = 0;
        for id in 0..5_000 {
            let mut wish = ProgressWish::new(now);
            told += u32::from(pace.progress(id, &mut wish, at(1.0), now).is_some());
        }
        assert_eq!(told, PROGRESS.burst);
        assert_eq!(pace.late.len(), MOST_LATE);
    }

    #[test]
    fn flapping_health_is_told_once_per_second_and_ends_where_the_plugin_is() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let sick = || HealthChange::Unhealthy {
            reason: "tired".to_owned(),
        };
        let mut told = 0;
        for number in 0..1_001 {
            let change = match number % 2 {
                0 => sick(),
                _ => HealthChange::Healthy,
            };
            told += u32::from(pace.health(change, now).is_some());
        }
        assert_eq!(told, HEALTH.burst);
        assert_eq!(pace.take_late_health(now), None);
        now = pace.due().unwrap();
        let last = pace.take_late_health(now).unwrap();
        assert_eq!(pace.health(last, now), Some(sick()));
        assert_eq!(pace.due(), None);
    }
}
