//! How long to wait before a process is started again: pure.

use std::time::Duration;

/// The wait after the first failure.
const FIRST: Duration = Duration::from_millis(200);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// A process that ran so long was well: the next wait is the first again.
const WELL: Duration = Duration::from_secs(60);

/// The wait when a coordinator refused the plugin: only a change elsewhere can help.
pub(crate) const REFUSED: Duration = Duration::from_secs(60);

/// Waits that double from failure to failure.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The process ended after so long; gives how long to wait.
    pub(crate) fn ended(&mut self, ran_for: Duration) -> Duration {
        if ran_for >= WELL {
            self.failures = 0;
        }
        let factor = 1_u32.checked_shl(self.failures.min(16)).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        FIRST.saturating_mul(factor).min(LONGEST)
    }

    /// A person wants it started: begin anew.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(backoff: &mut Backoff, count: usize) -> Vec<u128> {
        (0..count)
            .map(|_| backoff.ended(Duration::from_secs(1)).as_millis())
            .collect()
    }

    #[test]
    fn waits_double_from_200_ms_to_30_s() {
        let mut backoff = Backoff::default();
        assert_eq!(
            waits(&mut backoff, 10),
            [
                200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000
            ]
        );
        assert_eq!(waits(&mut backoff, 100).last(), Some(&30_000));
    }

    #[test]
    fn a_minute_of_health_begins_anew() {
        let mut backoff = Backoff::default();
        waits(&mut backoff, 6);
        assert_eq!(
            backoff.ended(Duration::from_secs(60)),
            Duration::from_millis(200)
        );
        assert_eq!(waits(&mut backoff, 1), [400]);
        backoff.reset();
        assert_eq!(waits(&mut backoff, 1), [200]);
    }
}
