//! When the next coordinator is tried: pure, with randomness as an argument.

use std::time::Duration;

/// The wait after all coordinators failed once.
const FIRST: Duration = Duration::from_millis(200);

/// The longest wait: it is also how long a mesh may take to find coordinators that are back.
const LONGEST: Duration = Duration::from_secs(4);

/// How the search goes. `random` is between 0 and 1.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Rounds through all addresses without a session, in a row.
    rounds: u32,
    stood: bool,
}

impl Pace {
    /// A session stood.
    pub(super) fn stood(&mut self) {
        self.rounds = 0;
        self.stood = true;
    }

    /// The wait before a try; `anew`: all addresses have been tried since the last round began.
    pub(super) fn wait(&mut self, anew: bool, random: f64) -> Duration {
        if std::mem::take(&mut self.stood) {
            // Soon, and not from all in the same moment.
            return FIRST.mul_f64(random.mul_add(0.75, 0.25));
        }
        if !anew {
            return Duration::ZERO;
        }
        let rounds = self.rounds;
        self.rounds = rounds.saturating_add(1);
        if rounds == 0 {
            return Duration::ZERO;
        }
        let factor = 1_u32 << (rounds - 1).min(16);
        let wait = FIRST.saturating_mul(factor).min(LONGEST);
        wait.mul_f64(random.mul_add(0.5, 0.5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_tried_at_once_and_then_with_growing_waits() {
        let mut pace = Pace::default();
        let tries = [true, false, false, true, false, true, false, true];
        let waits = tries.map(|anew| pace.wait(anew, 1.0).as_millis());
        assert_eq!(waits, [0, 0, 0, 200, 0, 400, 0, 800]);
    }

    #[test]
    fn waits_have_an_upper_bound_and_differ() {
        let mut pace = Pace::default();
        for _ in 0..40 {
            pace.wait(true, 1.0);
        }
        assert_eq!(pace.wait(true, 1.0), LONGEST);
        assert_eq!(pace.wait(true, 0.0), LONGEST / 2);
    }

    #[test]
    fn after_a_session_the_next_is_tried_soon() {
        let mut pace = Pace::default();
        for _ in 0..10 {
            pace.wait(true, 1.0);
        }
        pace.stood();
        assert_eq!(pace.wait(true, 1.0), FIRST);
        assert_eq!(pace.wait(true, 1.0), Duration::ZERO, "a first round again");
        pace.stood();
        assert_eq!(pace.wait(false, 0.0), FIRST / 4);
    }
}
