//! A Unix socket that is woken to read, and to write only after it was full. Agents and plugins talk over
//! it; it must not know what they say.
//!
//! A Unix socket counts as writable anew whenever the other end has read. A stream that waits for both
//! directions, as tokio's own does, is therefore woken for nothing after each frame that it sends: one
//! wake-up of three for each side of a call, while calls come one by one.

#[cfg(unix)]
mod socket;

#[cfg(unix)]
pub use socket::QuietSocket;
