//! An ordered map that is cheap to change while older states of it are still read.
//!
//! Entries lie sorted in chunks of at most [`MOST`]. A copy shares all chunks; a change copies the
//! list of chunks (one pointer each) and the one chunk that it touches. With 10,000 entries that is
//! a few microseconds, where copying a whole map takes milliseconds.

use std::borrow::Borrow;
use std::sync::Arc;

/// Most entries in a chunk: about the square root of the sizes that are expected.
const MOST: usize = 128;

type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// The map. No chunk is ever empty.
#[derive(Debug, Clone)]
pub(super) struct ChunkMap<K, V> {
    chunks: Arc<Vec<Chunk<K, V>>>,
    len: usize,
}

impl<K, V> Default for ChunkMap<K, V> {
    fn default() -> Self {
        Self {
            chunks: Arc::default(),
            len: 0,
        }
    }
}

impl<K: Ord + Clone, V: Clone> ChunkMap<K, V> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.iter().map(|(key, value)| (key, value)))
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The only chunk that can hold a key.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        let after = self.chunks.partition_point(|chunk| {
            chunk
                .first()
                .is_some_and(|(first, _)| first.borrow() <= key)
        });
        after.saturating_sub(1)
    }

    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let at = chunk
            .binary_search_by(|(own, _)| own.borrow().cmp(key))
            .ok()?;
        chunk.get(at).map(|(_, value)| value)
    }

    /// Puts an entry and returns the value that it replaces.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.chunk_of(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(at) else {
            chunks.push(Arc::new(vec![(key, value)]));
            self.len += 1;
            return None;
        };
        let entries = Arc::make_mut(chunk);
        match entries.binary_search_by(|(own, _)| own.cmp(&key)) {
            Ok(place) => entries
                .get_mut(place)
                .map(|entry| std::mem::replace(&mut entry.1, value)),
            Err(place) => {
                entries.insert(place, (key, value));
                self.len += 1;
                if entries.len() > MOST {
                    // Keys often come in rising order (ids hold a time): leave full chunks behind.
                    let cut = if place + 1 == entries.len() {
                        place
                    } else {
                        MOST / 2
                    };
                    let tail = entries.split_off(cut);
                    chunks.insert(at + 1, Arc::new(tail));
                }
                None
            }
        }
    }

    /// Takes an entry out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.chunk_of(key);
        let place = self
            .chunks
            .get(at)?
            .binary_search_by(|(own, _)| own.borrow().cmp(key))
            .ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let entries = Arc::make_mut(chunks.get_mut(at)?);
        let (_, value) = entries.remove(place);
        if entries.is_empty() {
            chunks.remove(at);
        }
        self.len -= 1;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_behaves_as_an_ordered_map_and_leaves_its_copies_alone(
            steps in proptest::collection::vec((any::<u16>(), any::<bool>()), 0..900),
        ) {
            let (mut ours, mut model) = (ChunkMap::default(), BTreeMap::new());
            let mut older = None;
            for (step, (key, put)) in steps.into_iter().enumerate() {
                let key = key % 600;
                if put {
                    prop_assert_eq!(ours.insert(key, step), model.insert(key, step));
                } else {
                    prop_assert_eq!(ours.remove(&key), model.remove(&key));
                }
                prop_assert_eq!(ours.get(&key), model.get(&key));
                prop_assert_eq!(ours.len(), model.len());
                if step == 300 {
                    older = Some((ours.clone(), model.clone()));
                }
            }
            prop_assert!(ours.iter().eq(model.iter()));
            if let Some((ours, model)) = older {
                prop_assert!(ours.iter().eq(model.iter()));
            }
        }
    }

    #[test]
    fn rising_keys_fill_their_chunks() {
        let mut map = ChunkMap::default();
        for key in 0..10 * MOST {
            map.insert(key, ());
        }
        assert_eq!(map.chunks.len(), 10);
    }

    #[test]
    fn a_change_copies_one_chunk_and_shares_all_others() {
        let mut map = ChunkMap::default();
        for key in 0..10_000 {
            map.insert(key, key);
        }
        let before = map.clone();
        map.insert(5_000, 0);
        let pairs = map.chunks.iter().zip(before.chunks.iter());
        assert_eq!(pairs.filter(|(new, old)| !Arc::ptr_eq(new, old)).count(), 1);
        assert_eq!(before.get(&5_000), Some(&5_000));
    }
}
