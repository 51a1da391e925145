//! Gives back the memory that a burst of work took.
//!
//! The C library keeps freed memory below the last block in use: after an overload, or while a plugin
//! stood still, a process would stay as large as it was then, for ever. Nothing that the process could
//! look at tells how much that is, so it is given back again and again.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// Time between two looks through the heap.
const EVERY: Duration = Duration::from_secs(5);
const AT_MOST: Duration = Duration::from_secs(300);

/// A look takes under a millisecond in tens of MiB, and tens of milliseconds in hundreds of them; all
/// together may take one part of so many of the time.
const SHARE: u32 = 1_000;

/// Has all threads that begin from now on share one heap: of further ones the ends could not be given
/// back.
pub fn share_one() {
    heap_trim::share_one_heap();
}

/// Trims the heap every few seconds, until it is told to stop.
pub async fn give_back(stop: CancellationToken) {
    let mut pause = EVERY;
    while stop
        .run_until_cancelled(tokio::time::sleep(pause))
        .await
        .is_some()
    {
        let begun = Instant::now();
        heap_trim::trim();
        pause = (begun.elapsed() * SHARE).clamp(EVERY, AT_MOST);
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    fn resident_kib() -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_burst_took_is_given_back_also_when_it_ends_after_a_look() {
        let stop = CancellationToken::new();
        let looks = tokio::spawn(give_back(stop.clone()));
        let burst: Vec<Vec<u8>> = (0..4_096).map(|_| vec![1; 16 * 1024]).collect();
        tokio::time::sleep(EVERY * 2).await;
        let full = resident_kib().unwrap_or_default();
        let rest: Vec<Vec<u8>> = burst.into_iter().step_by(64).collect();
        tokio::time::sleep(AT_MOST).await;
        let left = resident_kib().unwrap_or(u64::MAX / 2);
        assert!(
            left + 40 * 1024 < full,
            "{full} KiB, then {left}, {}",
            rest.len()
        );
        stop.cancel();
        assert!(looks.await.is_ok());
    }
}
