//! Gives back the memory that a burst of work took.
//!
//! The C library keeps freed memory below the last block in use: after an overload, or while a plugin
//! stood still, a process would stay as large as it was then, for ever.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// Trims the heap whenever the process has grown, until it is told to stop.
pub async fn give_back(stop: CancellationToken) {
    let mut least = 0;
    while stop
        .run_until_cancelled(tokio::time::sleep(EVERY))
        .await
        .is_some()
    {
        let Some(resident) = resident_kib() else {
            return;
        };
        least = if has_grown(resident, least) {
            heap_trim::trim();
            resident_kib().unwrap_or(resident)
        } else {
            resident.min(least)
        };
    }
}

/// Whether it is worth a look through the heap: more than a thirty-second, and half a MiB, since it was
/// smallest.
fn has_grown(resident_kib: u64, least_kib: u64) -> bool {
    resident_kib > least_kib + (least_kib / 32).max(512)
}

/// Memory of this process, where the system tells it.
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_changes_are_left_alone() {
        assert!(has_grown(20_000, 0));
        assert!(!has_grown(20_500, 20_000));
        assert!(has_grown(20_626, 20_000));
        assert!(!has_grown(103_000, 100_000));
        assert!(has_grown(104_000, 100_000));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_knows_its_size() {
        assert!(resident_kib().is_some_and(|kib| kib > 500));
    }
}
