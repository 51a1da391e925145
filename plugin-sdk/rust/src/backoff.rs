//! How long to wait before the next attempt.

use std::time::Duration;

/// Waits that double from attempt to attempt, with jitter so that many plugins don't come at once.
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            next: first,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    /// The wait before the next attempt: between half and all of what is due. `chance` is from 0 to 1.
    pub(crate) fn wait(&mut self, chance: f64) -> Duration {
        let due = self.next;
        self.next = (due * 2).min(self.most);
        due.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    //! The waits in a row.

    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_start_over() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(5_000));
        let waits: Vec<Duration> = (0..8).map(|_| backoff.wait(1.0)).collect();
        let expected = [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000].map(ms);
        assert_eq!(waits, expected);
        backoff.reset();
        assert_eq!(backoff.wait(0.0), ms(50));
    }
}
