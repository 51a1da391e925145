//! What the plugin protocol allows on one session.

/// The oldest version of the plugin protocol that this host speaks.
pub(crate) const MIN_PROTOCOL: u32 = 1;

/// The newest version of the plugin protocol that this host speaks.
pub(crate) const MAX_PROTOCOL: u32 = 1;

/// Optional parts of the protocol that this host knows.
pub(crate) const FEATURES: &[&str] = &["credits"];

/// Largest frame in bytes, both directions.
pub(crate) const MAX_FRAME_BYTES: usize = 256 * 1024;

/// Largest payload of a call in bytes, all chunks together, unless `router.max_payload` sets less.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 64 * 1024 * 1024;

/// Largest part of a payload in one frame, in bytes, as the host sends it.
pub(crate) const PART_BYTES: usize = 128 * 1024;

/// Chunks that may be sent on an id before the first Credit.
pub(crate) const INITIAL_CREDIT: u32 = 64;

/// Calls of its own that a plugin may have running.
pub(crate) const MAX_OWN_CALLS: usize = 1024;

/// Payloads of own calls, from their first part to the end of the call, in bytes, per session.
pub(crate) const MAX_OWN_BYTES: usize = 128 * 1024 * 1024;

/// Entries of a call's metadata.
pub(crate) const MAX_METADATA_ENTRIES: usize = 32;

/// Bytes of a call's metadata, keys and values together.
pub(crate) const MAX_METADATA_BYTES: usize = 8 * 1024;

/// Bytes of a call's test groups, headers and values together.
pub(crate) const MAX_GROUP_BYTES: usize = 1024;

/// Health checks that may stay unanswered before the plugin counts as hung.
pub(crate) const MAX_MISSED_CHECKS: u32 = 3;
