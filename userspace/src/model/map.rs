//! An ordered map whose copies share what they have in common.
//!
//! Every applied entry makes a new replicated state while others still look at the old one. With a
//! `BTreeMap` that would copy ten thousand resources each time; here it copies a chunk of pointers. What
//! differs between two copies is found as cheaply ([`Map::changed_since`]).

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Index,
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A full chunk is split in two.
const CHUNK: usize = 64;

type Chunk<K, V> = Vec<(K, Arc<V>)>;

pub struct Map<K, V> {
    /// In ascending order, none empty.
    chunks: Arc<Vec<Arc<Chunk<K, V>>>>,
}

impl<K, V> Map<K, V> {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.chunks.iter().map(|c| c.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter { chunks: self.chunks.iter(), chunk: [].iter() }
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Nothing was changed in either since one was copied from the other; false says nothing.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks)
    }
}

impl<K: Ord, V> Map<K, V> {
    /// The chunk that has the key, or would have it.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        let after = self.chunks.partition_point(|c| c.first().is_some_and(|(k, _)| k.borrow() <= key));
        after.saturating_sub(1)
    }

    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(usize, usize)>
    where
        K: Borrow<Q>,
    {
        let at = self.chunk_of(key);
        let i = self.chunks.get(at)?.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        Some((at, i))
    }

    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.find(key).map(|(at, i)| &*self.chunks[at][i].1)
    }

    /// The value itself, kept alive and unchanged whatever becomes of the map.
    pub fn get_shared<Q: Ord + ?Sized>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        self.find(key).map(|(at, i)| self.chunks[at][i].1.clone())
    }

    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_some()
    }
}

impl<K: Ord + Clone, V> Map<K, V> {
    /// The former value, if there was one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V>
    where
        V: Clone,
    {
        let at = self.chunk_of(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(at) else {
            chunks.push(Arc::new(vec![(key, Arc::new(value))]));
            return None;
        };
        let chunk = Arc::make_mut(chunk);
        match chunk.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(i) => Some(Arc::unwrap_or_clone(std::mem::replace(&mut chunk[i].1, Arc::new(value)))),
            Err(i) => {
                chunk.insert(i, (key, Arc::new(value)));
                if chunk.len() > CHUNK {
                    let upper = chunk.split_off(CHUNK / 2);
                    chunks.insert(at + 1, Arc::new(upper));
                }
                None
            }
        }
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        V: Clone,
    {
        let (at, i) = self.find(key)?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(&mut chunks[at]);
        let (_, value) = chunk.remove(i);
        if chunk.is_empty() {
            chunks.remove(at);
        }
        Some(Arc::unwrap_or_clone(value))
    }

    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        V: Clone,
    {
        let (at, i) = self.find(key)?;
        let chunk = Arc::make_mut(&mut Arc::make_mut(&mut self.chunks)[at]);
        Some(Arc::make_mut(&mut chunk[i].1))
    }

    /// The keys whose values may differ from those of an earlier copy, and those that only one of the two
    /// has. Takes the longer the more was changed, not the more there is.
    pub fn changed_since(&self, earlier: &Self) -> BTreeSet<K> {
        if self.is_same(earlier) {
            return BTreeSet::new();
        }
        let (new, old) = (self.not_shared_with(earlier), earlier.not_shared_with(self));
        let differs = |(key, value): (&&K, &&Arc<V>), other: &BTreeMap<&K, &Arc<V>>| {
            other.get(*key).is_none_or(|v| !Arc::ptr_eq(v, value)).then(|| (*key).clone())
        };
        let added = new.iter().filter_map(|entry| differs(entry, &old));
        added.chain(old.iter().filter_map(|entry| differs(entry, &new))).collect()
    }

    /// Entries of the chunks that the other does not have.
    fn not_shared_with<'a>(&'a self, other: &Self) -> BTreeMap<&'a K, &'a Arc<V>> {
        let theirs: BTreeSet<*const Chunk<K, V>> = other.chunks.iter().map(Arc::as_ptr).collect();
        let own = self.chunks.iter().filter(|c| !theirs.contains(&Arc::as_ptr(c)));
        own.flat_map(|c| c.iter().map(|(key, value)| (key, value))).collect()
    }
}

pub struct Iter<'a, K, V> {
    chunks: std::slice::Iter<'a, Arc<Chunk<K, V>>>,
    chunk: std::slice::Iter<'a, (K, Arc<V>)>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.chunk.next() {
                return Some((key, value));
            }
            self.chunk = self.chunks.next()?.iter();
        }
    }
}

impl<'a, K, V> IntoIterator for &'a Map<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Shares everything.
impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone() }
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self { chunks: Arc::default() }
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Map<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || self.iter().eq(other.iter())
    }
}

impl<K: Eq, V: Eq> Eq for Map<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Borrow<Q>, Q: Ord + ?Sized, V> Index<&Q> for Map<K, V> {
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        let (at, i) = self.find(key).unwrap_or_else(|| panic!("no such key"));
        &self.chunks[at][i].1
    }
}

impl<K: Ord + Clone, V> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let sorted: BTreeMap<K, V> = entries.into_iter().collect();
        let mut chunks = Vec::with_capacity(sorted.len().div_ceil(CHUNK));
        let mut entries = sorted.into_iter().map(|(key, value)| (key, Arc::new(value))).peekable();
        while entries.peek().is_some() {
            chunks.push(Arc::new(entries.by_ref().take(CHUNK).collect()));
        }
        Self { chunks: Arc::new(chunks) }
    }
}

impl<K: Ord + Clone, V, const N: usize> From<[(K, V); N]> for Map<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for Map<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: Serialize, V: Serialize> Serialize for Map<K, V> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.iter())
    }
}

impl<'de, K: Ord + Clone + Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for Map<K, V> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(BTreeMap::<K, V>::deserialize(d)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// (key, Some to insert, None to remove)
    fn edits() -> impl Strategy<Value = Vec<(u16, Option<u8>)>> {
        vec((0..400_u16, proptest::option::weighted(0.7, any::<u8>())), 0..600)
    }

    fn edit(map: &mut Map<u16, u8>, model: &mut BTreeMap<u16, u8>, edits: &[(u16, Option<u8>)]) {
        for (key, value) in edits {
            match value {
                Some(value) if model.contains_key(key) && value % 2 == 0 => {
                    *map.get_mut(key).unwrap() = *value;
                    model.insert(*key, *value);
                }
                Some(value) => assert_eq!(map.insert(*key, *value), model.insert(*key, *value)),
                None => assert_eq!(map.remove(key), model.remove(key)),
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map(edits in edits()) {
            let (mut map, mut model) = (Map::new(), BTreeMap::new());
            edit(&mut map, &mut model, &edits);
            prop_assert!(map.iter().eq(model.iter()));
            prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
            for key in 0..400 {
                prop_assert_eq!(map.get(&key), model.get(&key));
            }
            let json = serde_json::to_string(&map).unwrap();
            prop_assert_eq!(&json, &serde_json::to_string(&model).unwrap());
            prop_assert_eq!(&serde_json::from_str::<Map<u16, u8>>(&json).unwrap(), &map);
            prop_assert_eq!(model.into_iter().collect::<Map<_, _>>(), map);
        }

        #[test]
        fn a_copy_stays_as_it_was_and_what_changed_is_known(first in edits(), then in edits()) {
            let (mut map, mut model) = (Map::new(), BTreeMap::new());
            edit(&mut map, &mut model, &first);
            let (copy, was) = (map.clone(), model.clone());
            edit(&mut map, &mut model, &then);
            prop_assert!(copy.iter().eq(was.iter()));
            let changed = map.changed_since(&copy);
            prop_assert_eq!(&changed, &copy.changed_since(&map));
            for key in 0..400 {
                prop_assert!(changed.contains(&key) || map.get(&key) == copy.get(&key));
            }
            // Nothing is said to have changed that was not touched.
            let touched: BTreeSet<u16> = then.iter().map(|(key, _)| *key).collect();
            prop_assert!(changed.is_subset(&touched));
        }
    }

    #[test]
    fn a_change_copies_one_chunk() {
        let mut map: Map<u32, u32> = (0..10_000).map(|i| (i, i)).collect();
        let copy = map.clone();
        *map.get_mut(&5000).unwrap() = 0;
        let shared = map.chunks.iter().zip(copy.chunks.iter()).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!(shared + 1, copy.chunks.len());
        assert_eq!(map.changed_since(&copy), BTreeSet::from([5000]));
    }
}
