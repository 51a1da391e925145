//! The retry budget: how many calls may be sent again, so that failures do not multiply the load.

use std::time::Duration;

/// What a retry costs, in thousandths.
const RETRY: u64 = 1_000;

/// What each call adds: one retry for five calls.
const CALL: u64 = RETRY / 5;

/// What a millisecond adds: ten retries a second, so that a router with few calls may retry, too.
const MILLISECOND: u64 = 10 * RETRY / 1_000;

/// The most that is saved up: enough for the loss of a node with many calls in flight.
const MOST: u64 = 1_000 * RETRY;

/// A bucket of tokens, full at first. Time is an argument, counted from any one moment.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    saved: u64,
    at: Duration,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            saved: MOST,
            at: Duration::ZERO,
        }
    }
}

impl RetryBudget {
    /// A call begins.
    pub fn call(&mut self) {
        self.saved = (self.saved + CALL).min(MOST);
    }

    /// Takes what a retry costs. False: there is not enough, and the call must keep its error.
    pub fn take(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.at).as_millis();
        let passed = u64::try_from(passed).unwrap_or(MOST).min(MOST);
        if passed > 0 {
            self.at = now;
            self.saved = (self.saved + passed * MILLISECOND).min(MOST);
        }
        let enough = self.saved >= RETRY;
        if enough {
            self.saved -= RETRY;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained() -> RetryBudget {
        let mut budget = RetryBudget::default();
        while budget.take(Duration::ZERO) {}
        budget
    }

    #[test]
    fn a_fifth_of_the_calls_may_be_retried_once_the_savings_are_gone() {
        let mut budget = drained();
        let retries = (0..1_000)
            .filter(|_| {
                budget.call();
                budget.take(Duration::ZERO)
            })
            .count();
        assert_eq!(retries, 200);
    }

    #[test]
    fn ten_a_second_are_always_allowed_however_often_it_is_asked() {
        let mut budget = drained();
        let retries = (1..=20_000)
            .filter(|ms| budget.take(Duration::from_micros(ms * 500)))
            .count();
        assert_eq!(retries, 100);
    }

    #[test]
    fn no_more_than_a_thousand_are_saved_up() {
        let mut budget = drained();
        (0..1_000_000).for_each(|_| budget.call());
        let hour = Duration::from_secs(3_600);
        assert_eq!((0..5_000).filter(|_| budget.take(hour)).count(), 1_000);
    }
}
