//! Gives memory that was freed back to the system. It must not know who freed it.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ffi::c_int;

    /// Most heaps of a process: `M_ARENA_MAX` of malloc.h.
    pub(super) const ARENA_MAX: c_int = -8;

    #[expect(
        unsafe_code,
        reason = "no library offers them: malloc_trim(3) and mallopt(3) take numbers, touch only what is \
                  free, and may be called by any thread at any time"
    )]
    unsafe extern "C" {
        pub(super) safe fn malloc_trim(pad: usize) -> c_int;
        pub(super) safe fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }
}

/// Has all threads share one heap, from whose end [`trim`] can give back, too: it leaves the ends of
/// further ones as they are. Call it before the first thread begins. Where the C library isn't glibc it
/// does nothing.
pub fn share_one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::mallopt(glibc::ARENA_MAX, 1);
}

/// Gives back every whole page that is free. It holds the heap's lock meanwhile. Where the C library isn't
/// glibc it does nothing.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::malloc_trim(0);
}
