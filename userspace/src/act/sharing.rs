//! Work that several sequences want at the same time and that does not depend on which of them asks.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{core::command::Effect, observe::shared::Shared};

/// How long others are waited for that want the same, unless somebody has more time.
const GATHER: Duration = Duration::from_millis(10);

/// More kinds of shared work than this are forgotten when nobody uses them.
const SHARED_KEPT: usize = 256;

/// Shared work by what it is about.
pub(super) struct Sharing<K, T = Effect>(Arc<Mutex<HashMap<K, Arc<Shared<T>>>>>);

impl<K, T> Clone for Sharing<K, T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, T> Default for Sharing<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Clone + Eq + std::hash::Hash, T> Sharing<K, T> {
    pub(super) fn of(&self, key: &K) -> Arc<Shared<T>> {
        self.gathering(key, GATHER)
    }

    /// Others that want the same are waited for that long, in each run; the same time for the same key.
    pub(super) fn gathering(&self, key: &K, gather: Duration) -> Arc<Shared<T>> {
        // The map is whole even when a thread panicked meanwhile.
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= SHARED_KEPT {
            map.retain(|_, shared| Arc::strong_count(shared) > 1);
        }
        let shared = map.entry(key.clone()).or_insert_with(|| Arc::new(Shared::gathering(gather)));
        Arc::clone(shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_shared_by_its_key_and_forgotten_when_unused() {
        let sharing = Sharing::<u32>::default();
        let first = sharing.of(&0);
        assert!(Arc::ptr_eq(&first, &sharing.of(&0)));
        for key in 1..2 * SHARED_KEPT as u32 {
            sharing.of(&key);
        }
        assert!(Arc::ptr_eq(&first, &sharing.of(&0)));
        assert!(sharing.0.lock().unwrap().len() <= SHARED_KEPT + 1);
    }
}
