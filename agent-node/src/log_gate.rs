//! A bound on how much one plugin may write into the agent's log: lossy, with a count.

use std::time::Duration;

use tokio::time::Instant;

/// Lets so many lines through per second.
const LINES_PER_SECOND: u32 = 200;

/// What a quiet plugin may write at once.
const BURST: u32 = 1_000;

/// A bucket of lines that fills with time.
#[derive(Debug)]
pub(crate) struct LogGate {
    lines: u32,
    filled: Instant,
    dropped: u64,
}

/// What to do with a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Write it, and say first that so many were left out (0: none).
    Write {
        /// Lines that were left out before this one.
        dropped: u64,
    },
    /// Leave it out.
    Drop,
}

impl LogGate {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            lines: BURST,
            filled: now,
            dropped: 0,
        }
    }

    pub(crate) fn pass(&mut self, now: Instant) -> Pass {
        self.fill(now);
        if self.lines == 0 {
            self.dropped += 1;
            return Pass::Drop;
        }
        self.lines -= 1;
        Pass::Write {
            dropped: std::mem::take(&mut self.dropped),
        }
    }

    fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.filled);
        let new = since
            .as_micros()
            .saturating_mul(u128::from(LINES_PER_SECOND))
            / 1_000_000;
        if new == 0 {
            return;
        }
        let new = u32::try_from(new).unwrap_or(BURST);
        self.lines = self.lines.saturating_add(new).min(BURST);
        // Full or not, time that was too short for a line is not lost.
        let used = Duration::from_micros(u64::from(new) * 1_000_000 / u64::from(LINES_PER_SECOND));
        self.filled = if self.lines == BURST {
            now
        } else {
            self.filled + used
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_what_was_left_out_is_counted() {
        let start = Instant::now();
        let mut gate = LogGate::new(start);
        let written = (0..5_000)
            .filter(|_| gate.pass(start) != Pass::Drop)
            .count();
        assert_eq!(written, 1_000);
        let later = start + Duration::from_secs(1);
        assert_eq!(gate.pass(later), Pass::Write { dropped: 4_000 });
        let written = (0..5_000)
            .filter(|_| gate.pass(later) != Pass::Drop)
            .count();
        assert_eq!(written, 199);
    }

    #[test]
    fn a_plugin_within_the_bound_loses_nothing() {
        let mut now = Instant::now();
        let mut gate = LogGate::new(now);
        for _ in 0..10_000 {
            now += Duration::from_millis(6);
            assert_eq!(gate.pass(now), Pass::Write { dropped: 0 });
        }
    }
}
