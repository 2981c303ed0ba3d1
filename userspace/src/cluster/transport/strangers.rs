//! Connections that have not yet proven to have the cluster's key.
//!
//! There is room for so many. One more pushes out the oldest: a peer proves itself within
//! milliseconds, so whoever holds connections open without the key only pushes out his own.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub(crate) struct Strangers {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    waiting: VecDeque<(u64, CancellationToken)>,
}

/// A place among the strangers, given back when dropped.
pub(crate) struct Stranger {
    number: u64,
    /// Cancelled when it was pushed out.
    pub(crate) out: CancellationToken,
    among: Arc<Strangers>,
}

impl Strangers {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one in; says whether another had to go for it.
    pub(crate) fn enter(self: &Arc<Self>, room: usize) -> (Stranger, bool) {
        let mut inner = self.lock();
        inner.next += 1;
        let stranger = Stranger { number: inner.next, out: CancellationToken::new(), among: self.clone() };
        let full = inner.waiting.len() >= room;
        if full && let Some((_, oldest)) = inner.waiting.pop_front() {
            oldest.cancel();
        }
        inner.waiting.push_back((stranger.number, stranger.out.clone()));
        drop(inner);
        (stranger, full)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.among.lock().waiting.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room() {
        let strangers = Arc::<Strangers>::default();
        let (first, full) = strangers.enter(2);
        assert!(!full);
        let (second, _) = strangers.enter(2);
        drop(second);
        let (third, full) = strangers.enter(2);
        assert!(!full && !first.out.is_cancelled());
        let (_fourth, full) = strangers.enter(2);
        assert!(full && first.out.is_cancelled() && !third.out.is_cancelled());
        drop((first, third));
        assert_eq!(strangers.lock().waiting.len(), 1);
    }
}
