//! Gives memory that was freed back to the system. It must not know who freed it.
//!
//! glibc keeps what lies below the last block in use, so a process that had a burst of work stays as
//! large as it was at its worst.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    #[expect(
        unsafe_code,
        reason = "no library offers it: malloc_trim(3) takes a number, touches only what is free, and may \
                  be called by any thread at any time"
    )]
    unsafe extern "C" {
        pub(super) safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
}

/// Gives back every whole page that is free, of all threads' heaps. It takes the lock of one heap after
/// another, for about a millisecond each. Where the C library isn't glibc it does nothing.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::malloc_trim(0);
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::trim;

    fn resident_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        kib.and_then(|kib| kib.parse().ok()).unwrap_or_default()
    }

    #[test]
    fn what_lies_between_blocks_in_use_is_given_back() {
        let blocks: Vec<Box<[u8; 16 * 1024]>> =
            (0..4_096).map(|_| Box::new([1; 16 * 1024])).collect();
        let full = resident_kib();
        let kept: Vec<_> = blocks.into_iter().step_by(64).collect();
        trim();
        let left = resident_kib();
        assert!(
            left + 48 * 1024 < full,
            "{full} KiB before, {left} KiB after"
        );
        assert!(kept.iter().all(|block| block.iter().all(|byte| *byte == 1)));
    }
}
