//! Affinity: calls of equal key go to the same instance while it lives.
//!
//! Each instance has a rank for a key, made of both, and the lowest one wins (rendezvous hashing): when
//! an instance comes or goes, only the keys that it gains or had move.

use mesh_core::id::InstanceId;
use mesh_core::select::DEFAULT_CONCURRENCY;
use mesh_core::table::Table;

/// FNV-1a with 64 bits: equal on all nodes.
pub(crate) fn hash(key: &str) -> u64 {
    mix(0xcbf2_9ce4_8422_2325, key.as_bytes())
}

fn mix(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The rank of an instance for a key, in place of its calls in flight. An instance at its limit is left
/// to say so, for selection then prefers others.
pub(crate) fn rank(
    table: &Table,
    instance: InstanceId,
    key: u64,
    busy: &dyn Fn(InstanceId) -> u32,
) -> u32 {
    let most = match table.instance(instance).map(|route| route.concurrency) {
        None | Some(0) => DEFAULT_CONCURRENCY,
        Some(own) => own,
    };
    let calls = busy(instance);
    if calls >= most {
        return calls;
    }
    let mut hash = mix(key, instance.as_bytes());
    // FNV leaves much of the last bytes in the low bits; fold the high ones in.
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // Below the limit, so that rank is not taken for being at it.
    u32::try_from((hash >> 32) % u64::from(most)).unwrap_or(0)
}
