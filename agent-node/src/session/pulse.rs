//! Whether a plugin that works on calls gives signs of life.
//!
//! Any frame is one. A plugin that works on calls and was silent for a second is asked for its health;
//! after another second without an answer it is unresponsive, which the load beacons say, so that callers
//! prefer others. When it goes on like that it hangs: its calls are given up, and no new ones are taken
//! until it is heard. One that merely can't answer, for it computes where it should answer, uses its
//! processor; it is unresponsive, and its calls go on.

use std::time::Duration;

use tokio::time::Instant;

/// A plugin with calls that was silent for so long is asked.
const QUIET: Duration = Duration::from_secs(1);

/// How long the answer may take before the plugin is unresponsive.
const ANSWER: Duration = Duration::from_secs(1);

/// After how long without an answer it hangs: when its process does nothing, and when that can't be
/// told.
const HANGS: Duration = Duration::from_secs(3);
const HANGS_UNSEEN: Duration = Duration::from_secs(10);

/// A process that used so much of a core since it was asked is busy, in percent.
const BUSY_PERCENT: u32 = 10;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Nothing.
    On,
    /// Ask the plugin for its health.
    Ask,
    /// It hangs: give its calls up.
    GiveUp,
}

/// Watches one plugin.
#[derive(Debug)]
pub(crate) struct Pulse {
    quiet_since: Instant,
    asked: Option<Question>,
    hangs: bool,
}

#[derive(Debug, Clone, Copy)]
struct Question {
    at: Instant,
    /// Processor time of the process when it was asked, if that can be told.
    used: Option<Duration>,
    /// It has gone unanswered for too long.
    missed: bool,
}

impl Pulse {
    /// A plugin that was just heard.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            quiet_since: now,
            asked: None,
            hangs: false,
        }
    }

    /// Whether it has left a question unanswered for too long, and was not heard since.
    pub(crate) fn is_unresponsive(&self) -> bool {
        self.hangs || self.asked.is_some_and(|asked| asked.missed)
    }

    /// Whether it takes no calls, for it hangs.
    pub(crate) fn hangs(&self) -> bool {
        self.hangs
    }

    /// Looks at the plugin, several times a second: whether it was heard since the last look, whether it
    /// works on calls, and how much processor time its process has used, if that can be told.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        heard: bool,
        works: bool,
        used: impl FnOnce() -> Option<Duration>,
    ) -> Beat {
        if heard {
            *self = Self::new(now);
            return Beat::On;
        }
        if self.hangs {
            return Beat::On;
        }
        if !works {
            self.quiet_since = now;
            self.asked = None;
            return Beat::On;
        }
        let Some(asked) = &mut self.asked else {
            if now < self.quiet_since + QUIET {
                return Beat::On;
            }
            let (at, used) = (now, used());
            let missed = false;
            self.asked = Some(Question { at, used, missed });
            return Beat::Ask;
        };
        asked.missed |= now >= asked.at + ANSWER;
        if now < asked.at + HANGS {
            return Beat::On;
        }
        match (asked.used, used()) {
            (Some(before), Some(used)) => {
                let spent = used.saturating_sub(before);
                if spent * 100 >= (now - asked.at) * BUSY_PERCENT {
                    // Busy so far: judged anew by what it does from now on.
                    asked.at = now;
                    asked.used = Some(used);
                    return Beat::On;
                }
            }
            _ if now < asked.at + HANGS_UNSEEN => return Beat::On,
            _ => {}
        }
        self.hangs = true;
        Beat::GiveUp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(250);

    /// Looks for some seconds; when something was to be done, in quarters of a second, and what.
    fn looks(
        pulse: &mut Pulse,
        from: Instant,
        seconds: u32,
        works: bool,
        used: impl Fn(Duration) -> Option<Duration>,
    ) -> Vec<(u32, Beat)> {
        (1..=seconds * 4)
            .map(|quarter| {
                let passed = STEP * quarter;
                let beat = pulse.look(from + passed, false, works, || used(passed));
                (quarter, beat)
            })
            .filter(|(_, beat)| *beat != Beat::On)
            .collect()
    }

    #[test]
    fn a_stopped_process_is_asked_unresponsive_and_given_up_within_four_seconds() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        let stopped = |_| Some(Duration::from_secs(7));
        assert_eq!(looks(&mut pulse, start, 1, true, stopped), [(4, Beat::Ask)]);
        assert!(!pulse.is_unresponsive());
        let later = start + Duration::from_secs(1);
        assert_eq!(looks(&mut pulse, later, 1, true, stopped), []);
        assert!(pulse.is_unresponsive() && !pulse.hangs());
        let later = start + Duration::from_secs(2);
        let found = looks(&mut pulse, later, 30, true, stopped);
        assert_eq!(found, [(8, Beat::GiveUp)], "once");
        // Without calls it stays so, until it is heard.
        assert_eq!(looks(&mut pulse, later, 5, false, stopped), []);
        assert!(pulse.is_unresponsive() && pulse.hangs());
        pulse.look(later, true, false, || None);
        assert!(!pulse.is_unresponsive() && !pulse.hangs());
    }

    #[test]
    fn a_busy_process_is_unresponsive_and_keeps_its_calls_until_it_stops_working() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        // A busy machine leaves it a fifth of a core.
        let busy = |passed| Some(passed / 5);
        assert_eq!(looks(&mut pulse, start, 60, true, busy), [(4, Beat::Ask)]);
        assert!(pulse.is_unresponsive() && !pulse.hangs());
        let later = start + Duration::from_secs(60);
        let stuck = |_| Some(Duration::from_secs(12));
        let found = looks(&mut pulse, later, 10, true, stuck);
        assert!(matches!(found.as_slice(), [(quarter, Beat::GiveUp)] if *quarter <= 24));
    }

    #[test]
    fn where_nothing_can_be_told_of_the_process_it_has_longer() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        let found = looks(&mut pulse, start, 30, true, |_| None);
        assert_eq!(found, [(4, Beat::Ask), (44, Beat::GiveUp)]);
    }

    #[test]
    fn a_plugin_that_is_heard_or_has_no_calls_is_never_asked() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(looks(&mut pulse, start, 30, false, |_| None), []);
        for quarter in 0..200 {
            let now = start + STEP * quarter;
            let beat = pulse.look(now, quarter % 4 == 0, true, || None);
            assert_eq!(beat, Beat::On);
        }
    }
}
