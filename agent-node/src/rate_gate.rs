//! A bound on how often something may happen, with a count of what was left out.

use std::time::Duration;

use tokio::time::Instant;

/// How often something may happen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// In the long run.
    pub(crate) per_second: u32,
    /// At once, after a quiet time.
    pub(crate) burst: u32,
}

/// Lines that one plugin may write into the agent's log.
pub(crate) const LOG_LINES: Rate = Rate {
    per_second: 200,
    burst: 1_000,
};

/// A bucket that fills with time.
#[derive(Debug)]
pub(crate) struct RateGate {
    rate: Rate,
    left: u32,
    filled: Instant,
    dropped: u64,
}

/// Whether something may happen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// It may; so many were left out before it.
    Yes {
        /// How many; 0: none.
        dropped: u64,
    },
    /// It is left out.
    No,
}

impl RateGate {
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        Self {
            rate,
            left: rate.burst,
            filled: now,
            dropped: 0,
        }
    }

    pub(crate) fn pass(&mut self, now: Instant) -> Pass {
        self.fill(now);
        if self.left == 0 {
            self.dropped += 1;
            return Pass::No;
        }
        self.left -= 1;
        Pass::Yes {
            dropped: std::mem::take(&mut self.dropped),
        }
    }

    fn fill(&mut self, now: Instant) {
        let Rate { per_second, burst } = self.rate;
        let since = now.saturating_duration_since(self.filled);
        let new = since.as_micros().saturating_mul(u128::from(per_second)) / 1_000_000;
        if new == 0 {
            return;
        }
        let new = u32::try_from(new).unwrap_or(burst);
        self.left = self.left.saturating_add(new).min(burst);
        // Time that was too short for one more is kept, unless the bucket is full.
        self.filled = if self.left == burst {
            now
        } else {
            self.filled + Duration::from_micros(u64::from(new) * 1_000_000 / u64::from(per_second))
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_what_was_left_out_is_counted() {
        let start = Instant::now();
        let mut gate = RateGate::new(LOG_LINES, start);
        let passed = (0..5_000).filter(|_| gate.pass(start) != Pass::No).count();
        assert_eq!(passed, 1_000);
        let later = start + Duration::from_secs(1);
        assert_eq!(gate.pass(later), Pass::Yes { dropped: 4_000 });
        let passed = (0..5_000).filter(|_| gate.pass(later) != Pass::No).count();
        assert_eq!(passed, 199);
    }

    #[test]
    fn what_keeps_within_the_bound_loses_nothing() {
        let mut now = Instant::now();
        let mut gate = RateGate::new(LOG_LINES, now);
        for _ in 0..10_000 {
            now += Duration::from_millis(6);
            assert_eq!(gate.pass(now), Pass::Yes { dropped: 0 });
        }
    }
}
