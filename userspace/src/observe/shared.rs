//! One piece of work for all who ask for it at the same time.

use std::time::Duration;

use tokio::{sync::Mutex, time::Instant};

/// Shares the outcome of a piece of work among those who asked while it had not begun yet, so that a
/// burst of any size costs at most two runs and nobody is given news from before the question.
///
/// When the future of the one who does the work is dropped, the next in line does it instead.
pub(crate) struct Shared<T> {
    /// How long others are waited for before a run begins.
    gather: Duration,
    last: Mutex<Option<Outcome<T>>>,
}

struct Outcome<T> {
    began: Instant,
    ended: Instant,
    value: T,
}

/// How an outcome at hand stands to the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Its run began after the question.
    After,
    /// Its run began before the question, and ended so long ago.
    Before(Duration),
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self::gathering(Duration::ZERO)
    }
}

impl<T> Shared<T> {
    /// Each run waits that long for others to join before it begins.
    pub(crate) fn gathering(gather: Duration) -> Self {
        Self { gather, last: Mutex::new(None) }
    }
}

impl<T: Clone> Shared<T> {
    /// The outcome of a run that began after this call.
    pub(crate) async fn get<F: Future<Output = T>>(&self, work: impl FnOnce() -> F) -> T {
        self.get_if(|_, freshness| freshness == Freshness::After, work).await
    }

    /// The last outcome, however old.
    pub(crate) async fn last(&self) -> Option<T> {
        self.last.lock().await.as_ref().map(|outcome| outcome.value.clone())
    }

    /// As [`Self::get`], but it is for the caller to say which outcomes of others will do.
    pub(crate) async fn get_if<F: Future<Output = T>>(
        &self,
        acceptable: impl Fn(&T, Freshness) -> bool,
        work: impl FnOnce() -> F,
    ) -> T {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let Some(outcome) = &*last {
            let freshness = if outcome.began > asked {
                Freshness::After
            } else {
                Freshness::Before(outcome.ended.elapsed())
            };
            if acceptable(&outcome.value, freshness) {
                return outcome.value.clone();
            }
        }
        if !self.gather.is_zero() {
            tokio::time::sleep(self.gather).await;
        }
        let began = Instant::now();
        let value = work().await;
        *last = Some(Outcome { began, ended: Instant::now(), value: value.clone() });
        value
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn a_burst_costs_two_runs_at_most() {
        let (shared, runs) = (Shared::default(), AtomicU32::new(0));
        let ask = || {
            shared.get(|| async {
                tokio::task::yield_now().await;
                runs.fetch_add(1, Ordering::SeqCst)
            })
        };
        let answers = join_all((0..100).map(|_| ask())).await;
        assert!(runs.load(Ordering::SeqCst) <= 2, "{answers:?}");
        // Whoever asks later gets newer news.
        let before = runs.load(Ordering::SeqCst);
        assert_eq!(ask().await, before);
    }

    #[tokio::test]
    async fn a_gathered_burst_costs_one_run() {
        let shared = Shared::gathering(Duration::from_millis(5));
        let runs = AtomicU32::new(0);
        let ask = || shared.get(|| async { runs.fetch_add(1, Ordering::SeqCst) });
        join_all((0..100).map(|_| ask())).await;
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn the_caller_says_which_outcomes_will_do() {
        let shared = Shared::default();
        assert_eq!(shared.get(|| async { 7 }).await, 7);
        assert_eq!(shared.get_if(|v, _| *v == 7, || async { 8 }).await, 7);
        assert_eq!(shared.get_if(|v, _| *v == 9, || async { 8 }).await, 8);
    }

    #[tokio::test]
    async fn a_dropped_worker_is_replaced() {
        let shared = Shared::default();
        let stuck = shared.get(std::future::pending::<u32>);
        tokio::select! {
            biased;
            _ = stuck => unreachable!("it never ends"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(shared.get(|| async { 1 }).await, 1);
    }
}
