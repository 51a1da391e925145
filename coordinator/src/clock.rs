//! The clock that the engine is given: milliseconds since 1970, and never back.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mesh_core::revision::Timestamp;

/// What the system's clock must have gained on real time to be believed: the machine slept, or the
/// clock was set forward. The engine sees a leap, and begins all leases anew.
const LEAP: Duration = Duration::from_secs(1);

/// The system's time at the start, and what has passed since. When the system's clock is set back,
/// leases, grace periods and retries go on in the pace of real time.
#[derive(Debug)]
pub(crate) struct Clock {
    begun: Instant,
    pace: Mutex<Pace>,
}

#[derive(Debug)]
struct Pace {
    /// By the monotonic clock, since the start.
    passed: Duration,
    /// By the system's clock, since 1970.
    system: Duration,
    /// What was told last.
    now: Duration,
}

impl Pace {
    fn new(system: Duration) -> Self {
        Self {
            passed: Duration::ZERO,
            system,
            now: system,
        }
    }

    fn go_on(&mut self, passed: Duration, system: Duration) -> Duration {
        let real = passed.saturating_sub(self.passed);
        let shown = system.saturating_sub(self.system);
        self.now += if shown > real + LEAP { shown } else { real };
        self.passed = self.passed.max(passed);
        self.system = system;
        self.now
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            pace: Mutex::new(Pace::new(system())),
        }
    }
}

impl Clock {
    pub(crate) fn now(&self) -> Timestamp {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let now = pace.go_on(self.begun.elapsed(), system());
        Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
    }
}

fn system() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const START: Duration = Duration::from_secs(1_700_000_000);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn it_begins_with_the_systems_time_and_never_goes_back() {
        let clock = Clock::default();
        let now = clock.now();
        assert!(now.0 > 1_600_000_000_000);
        assert!(clock.now() >= now);
    }

    #[test]
    fn time_goes_on_when_the_systems_clock_was_set_back() {
        let mut pace = Pace::new(START);
        assert_eq!(pace.go_on(seconds(5), START - HOUR), START + seconds(5));
        let after = START - HOUR + seconds(5);
        assert_eq!(pace.go_on(seconds(10), after), START + seconds(10));
    }

    #[test]
    fn a_machine_that_slept_sees_a_leap() {
        let mut pace = Pace::new(START);
        assert_eq!(pace.go_on(seconds(5), START + HOUR), START + HOUR);
        let after = START + HOUR + seconds(1);
        assert_eq!(pace.go_on(seconds(6), after), after);
    }
}
