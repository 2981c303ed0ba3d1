//! Warnings that a stranger can cause are not repeated without end.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Between two warnings of the same kind.
const PAUSE: Duration = Duration::from_secs(10);

/// Kinds remembered at a time; beyond that, new ones wait until old ones have run out.
const KINDS: usize = 256;

#[derive(Default)]
pub(crate) struct Quiet {
    last: Mutex<HashMap<String, (Instant, u64)>>,
}

impl Quiet {
    /// Whether to warn of this kind now; if so, how often it was held back since the last time.
    pub(crate) fn allows(&self, kind: &str, now: Instant) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, held)) = last.get_mut(kind) {
            if now.duration_since(*at) < PAUSE {
                *held += 1;
                return None;
            }
            *at = now;
            return Some(std::mem::take(held));
        }
        if last.len() >= KINDS {
            last.retain(|_, (at, _)| now.duration_since(*at) < PAUSE);
        }
        if last.len() >= KINDS {
            return None;
        }
        last.insert(kind.to_owned(), (now, 0));
        Some(0)
    }

    pub(crate) fn warn(&self, kind: &str, message: &str) {
        match self.allows(kind, Instant::now()) {
            None => {}
            Some(0) => tracing::warn!("{message}"),
            Some(held) => tracing::warn!("{message} ({held} more since the last warning)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_once_a_pause_and_counts_the_rest() {
        let quiet = Quiet::default();
        let start = Instant::now();
        assert_eq!(quiet.allows("a", start), Some(0));
        assert_eq!(quiet.allows("a", start), None);
        assert_eq!(quiet.allows("b", start), Some(0));
        assert_eq!(quiet.allows("a", start + PAUSE), Some(1));
        assert_eq!(quiet.allows("a", start + 2 * PAUSE), Some(0));
    }

    #[test]
    fn remembers_no_more_than_so_many() {
        let quiet = Quiet::default();
        let start = Instant::now();
        (0..10 * KINDS).for_each(|i| {
            quiet.allows(&i.to_string(), start);
        });
        assert_eq!(quiet.last.lock().unwrap().len(), KINDS);
        assert_eq!(quiet.allows("late", start + PAUSE), Some(0));
    }
}
