//! Which coordinator to try next, and when: pure, with randomness as an argument.

use std::time::Duration;

/// The wait after all coordinators failed once.
const FIRST: Duration = Duration::from_millis(200);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(10);

/// Where the search for a coordinator stands.
#[derive(Debug)]
pub(super) struct Dial {
    count: usize,
    next: usize,
    /// Failures in a row.
    failures: u32,
}

impl Dial {
    /// Of so many coordinators; at least one.
    pub(super) fn new(count: usize) -> Self {
        Self {
            count: count.max(1),
            next: 0,
            failures: 0,
        }
    }

    /// The one to try.
    pub(super) fn index(&self) -> usize {
        self.next
    }

    /// It could not be reached, or refused. Gives how long to wait; `random` is between 0 and 1.
    pub(super) fn failed(&mut self, random: f64) -> Duration {
        self.next = (self.next + 1) % self.count;
        self.failures = self.failures.saturating_add(1);
        let rounds = self.failures / u32::try_from(self.count).unwrap_or(u32::MAX);
        if rounds == 0 {
            // The others of the list are tried at once.
            return Duration::ZERO;
        }
        let factor = 1_u32.checked_shl(rounds.saturating_sub(1).min(16));
        let wait = FIRST
            .saturating_mul(factor.unwrap_or(u32::MAX))
            .min(LONGEST);
        wait.mul_f64(0.5 + random / 2.0)
    }

    /// A session stood and has ended. The next attempt comes soon, and not from all agents at once.
    pub(super) fn ended(&mut self, random: f64) -> Duration {
        self.failures = 0;
        FIRST.mul_f64(0.25 + random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_tried_before_the_first_wait() {
        let mut dial = Dial::new(3);
        let mut tried = Vec::new();
        let mut waits = Vec::new();
        for _ in 0..6 {
            tried.push(dial.index());
            waits.push(dial.failed(1.0).as_millis());
        }
        assert_eq!(tried, [0, 1, 2, 0, 1, 2]);
        assert_eq!(waits, [0, 0, 200, 200, 200, 400]);
    }

    #[test]
    fn waits_grow_to_ten_seconds_and_differ() {
        let mut dial = Dial::new(1);
        let waits: Vec<_> = (0..20).map(|_| dial.failed(0.0).as_millis()).collect();
        assert_eq!(waits.first(), Some(&100));
        assert_eq!(waits.last(), Some(&5_000));
        assert_eq!(dial.failed(1.0), LONGEST);
    }

    #[test]
    fn after_a_session_the_same_coordinator_is_tried_soon() {
        let mut dial = Dial::new(2);
        dial.failed(0.5);
        assert_eq!(dial.index(), 1);
        assert!(dial.ended(1.0) <= Duration::from_millis(250));
        assert_eq!(dial.index(), 1);
    }
}
