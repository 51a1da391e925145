//! Gives memory that was freed back to the system. It must not know who freed it.

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

/// Gives back every whole page that is free, of all threads' heaps. It holds the lock of one heap after
/// the other meanwhile. Where the C library isn't glibc it does nothing.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::malloc_trim(0);
}
