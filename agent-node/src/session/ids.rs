//! Frame ids: a map keyed by them, and the memory of those that were given up.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// Mixes ids, which are counted up or drawn by the mesh itself: nothing better is needed, and the
/// default hasher would be a visible part of a call's cost.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(part) {
                *to = *from;
            }
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(26);
    }
}

/// A map from frame ids.
pub(crate) type IdMap<T> = HashMap<u64, T, BuildHasherDefault<IdHasher>>;

/// Host's ids whose calls ended (deadline, cancel) before the plugin answered. An answer to one of
/// these is late and not wrong, so it is dropped without a word.
#[derive(Debug, Default)]
pub(crate) struct GivenUp {
    ids: HashSet<u64, BuildHasherDefault<IdHasher>>,
    order: VecDeque<u64>,
}

impl GivenUp {
    /// How many are remembered; an answer to an older one is refused as unknown.
    const CAPACITY: usize = 4096;

    pub(crate) fn insert(&mut self, id: u64) {
        while self.order.len() >= Self::CAPACITY {
            if let Some(oldest) = self.order.pop_front() {
                self.ids.remove(&oldest);
            }
        }
        if self.ids.insert(id) {
            self.order.push_back(id);
        }
    }

    pub(crate) fn contains(&self, id: u64) -> bool {
        self.ids.contains(&id)
    }

    /// Forgets an id once its final answer has come. Its place in the order ages out.
    pub(crate) fn remove(&mut self, id: u64) -> bool {
        self.ids.remove(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_given_up_ids_are_remembered() {
        let mut given_up = GivenUp::default();
        for id in 0..5000 {
            given_up.insert(id * 2);
        }
        assert!(!given_up.contains(0));
        assert!(given_up.contains(9998));
        assert!(given_up.remove(9998));
        assert!(!given_up.contains(9998));
        assert!(given_up.order.len() <= GivenUp::CAPACITY);
    }

    #[test]
    fn counted_ids_spread_over_a_map() {
        let mut map: IdMap<u64> = IdMap::default();
        for id in (2..2000).step_by(2) {
            map.insert(id, id);
        }
        assert_eq!(map.len(), 999);
        assert_eq!(map.get(&1000), Some(&1000));
    }
}
