//! The clock that the engine is given: milliseconds since 1970, and never back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use mesh_core::revision::Timestamp;

/// The system's time, held where it stands while the system's clock is set back.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    latest: AtomicU64,
}

impl Clock {
    pub(crate) fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let before = self.latest.fetch_max(now, Ordering::Relaxed);
        Timestamp(before.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back() {
        let clock = Clock::default();
        let now = clock.now();
        assert!(now.0 > 1_600_000_000_000);
        clock.latest.store(now.0 + 5_000, Ordering::Relaxed);
        assert_eq!(clock.now(), Timestamp(now.0 + 5_000));
    }
}
