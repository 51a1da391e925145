//! What processes use, from `/proc` on Linux; 0 elsewhere.

use std::collections::HashMap;
use std::time::Duration;

use mesh_core::id::InstanceId;
use tokio::time::Instant;

/// What one process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Resident memory in bytes; 0: not known.
    pub(crate) memory_bytes: u64,
    /// Processor time since the last look, in thousandths of a core.
    pub(crate) cpu_millis: u32,
}

/// Looks at processes again and again.
#[derive(Debug, Default)]
pub(crate) struct UsageMeter {
    /// Processor ticks at the last look.
    last: HashMap<u32, (Instant, u64)>,
}

impl UsageMeter {
    /// Looks at the processes of instances.
    pub(crate) fn look(
        &mut self,
        processes: &[(InstanceId, u32)],
        now: Instant,
    ) -> HashMap<InstanceId, Usage> {
        self.last
            .retain(|pid, _| processes.iter().any(|(_, known)| known == pid));
        let mut used = HashMap::new();
        for (instance, pid) in processes {
            if let Some((ticks, pages)) = read(*pid) {
                let cpu_millis = self.cpu_millis(*pid, ticks, now);
                let page = rustix::param::page_size() as u64;
                let memory_bytes = pages.saturating_mul(page);
                used.insert(
                    *instance,
                    Usage {
                        memory_bytes,
                        cpu_millis,
                    },
                );
            }
        }
        used
    }

    fn cpu_millis(&mut self, pid: u32, ticks: u64, now: Instant) -> u32 {
        let before = self.last.insert(pid, (now, ticks));
        let Some((then, before)) = before else {
            return 0;
        };
        let elapsed = now.saturating_duration_since(then).as_millis();
        let per_second = u128::from(rustix::param::clock_ticks_per_second()).max(1);
        // Ticks to thousandths of a second, over the seconds elapsed.
        let millis = u128::from(ticks.saturating_sub(before)) * 1_000_000 / per_second;
        u32::try_from(millis / elapsed.max(1)).unwrap_or(u32::MAX)
    }
}

/// The processor time that a process has used.
pub(crate) fn processor_time(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis(ticks(&stat)? * 1_000 / per_second))
}

/// Processor ticks and resident pages of a process.
fn read(pid: u32) -> Option<(u64, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    Some((ticks(&stat)?, pages(&statm)?))
}

/// Fields 14 and 15 of proc(5) `stat`, user and system time. The second field is the program's name
/// in brackets, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The second field of proc(5) `statm`.
fn pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_program_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 5 100 20";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("garbage"), None);
        assert_eq!(pages("1000 42 3 4 0 5 0"), Some(42));
    }

    #[test]
    fn half_a_core_is_500_thousandths() {
        let mut meter = UsageMeter::default();
        let per_second = rustix::param::clock_ticks_per_second();
        let start = Instant::now();
        assert_eq!(meter.cpu_millis(7, 1_000, start), 0);
        let later = start + Duration::from_secs(2);
        assert_eq!(meter.cpu_millis(7, 1_000 + per_second, later), 500);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_memory_and_one_that_is_gone_is_left_out() {
        let (here, gone) = (crate::roster::new_instance(), crate::roster::new_instance());
        let processes = [(here, std::process::id()), (gone, u32::MAX)];
        let used = UsageMeter::default().look(&processes, Instant::now());
        assert!(used.get(&here).is_some_and(|usage| usage.memory_bytes > 0));
        assert!(!used.contains_key(&gone));
    }
}
