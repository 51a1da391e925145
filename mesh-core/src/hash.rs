//! Hashes that are the same on every machine and in every release. None is for secrets.

use std::io;

use serde::Serialize;

use crate::id::InstanceId;

/// FNV-1a with 64 bits; feed it bytes, JSON, or through [`io::Write`].
#[derive(Debug, Clone, Copy)]
pub struct Fnv1a(u64);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv1a {
    /// The hash of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> u64 {
        let mut hash = Self::default();
        hash.add(bytes);
        hash.value()
    }

    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    }

    /// Adds a value by its JSON.
    pub fn add_json(&mut self, value: &impl Serialize) {
        // Neither writing into a hash nor turning what we have checked into JSON can fail.
        let _ = serde_json::to_writer(&mut *self, value);
    }

    /// The hash of all that was added.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0
    }
}

impl io::Write for Fnv1a {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Spreads the bits of a number over all bits: a step of `SplitMix64`. Numbers that count up become
/// numbers that look drawn at random.
#[must_use]
pub fn spread(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The rank of an instance for a key (rendezvous hashing): the highest one serves the key, so when an
/// instance comes or goes, only the keys that it gains or had move.
#[must_use]
pub fn affinity_rank(key: u64, instance: InstanceId) -> u64 {
    // FNV leaves much of the last bytes in the low bits only.
    spread(key ^ Fnv1a::of(instance.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv_gives_the_published_values() {
        assert_eq!(Fnv1a::of(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(Fnv1a::of(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn an_instance_that_goes_moves_its_own_keys_only_and_all_have_about_equally_many() {
        const KEYS: u64 = 20_000;
        let all: Vec<_> = (0..5).map(|n| InstanceId::new(n, [0; 10])).collect();
        let home = |key: u64, of: &[InstanceId]| {
            let key = Fnv1a::of(&key.to_be_bytes());
            of.iter().copied().max_by_key(|id| affinity_rank(key, *id))
        };
        for gone in 0..all.len() {
            let left: Vec<_> = all.iter().filter(|id| **id != all[gone]).copied().collect();
            let had = (0..KEYS)
                .filter(|key| {
                    let (before, after) = (home(*key, &all), home(*key, &left));
                    assert!(
                        before == Some(all[gone]) || before == after,
                        "key {key} moved"
                    );
                    before == Some(all[gone])
                })
                .count();
            assert!((3_600..4_400).contains(&had), "{had} of {KEYS}");
        }
    }
}
