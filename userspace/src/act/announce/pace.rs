//! How fast frames leave by an interface, whoever announces.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// A timer fires up to a millisecond late, and a busy processor later still: what was not sent by then
/// may follow at once, up to this much.
const CATCH_UP: Duration = Duration::from_millis(4);

/// Waiting for less than what a timer can do would be waiting for more.
const TIMER: Duration = Duration::from_millis(1);

/// In any span of time T at most `rate * (T + CATCH_UP + TIMER)` frames and two chunks leave.
#[derive(Debug, Default)]
struct Pacer {
    /// When the frames reserved so far have had their time.
    until: Option<Instant>,
}

impl Pacer {
    /// How long the caller has to wait before it sends so many frames.
    fn reserve(&mut self, now: Instant, frames: usize, rate: u32) -> Duration {
        let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
        let begin = self.until.map_or(now, |until| until.max(earliest));
        self.until = Some(begin + Duration::from_secs(1) * frames as u32 / rate.max(1));
        let wait = begin.saturating_duration_since(now);
        if wait < TIMER { Duration::ZERO } else { wait }
    }
}

/// The way out by one interface, shared by all that is announced there. What is announced for the first
/// time goes before what is repeated.
pub(super) struct Lane {
    pacer: Mutex<Pacer>,
    urgent: watch::Sender<usize>,
}

/// As long as it lives, repetitions wait.
pub(super) struct Urgent<'a>(&'a Lane);

impl Default for Lane {
    fn default() -> Self {
        Self { pacer: Mutex::default(), urgent: watch::Sender::new(0) }
    }
}

impl Lane {
    pub(super) fn urgent(&self) -> Urgent<'_> {
        self.urgent.send_modify(|waiting| *waiting += 1);
        Urgent(self)
    }

    /// Waits until so many frames may leave, at `rate` frames a second. Other tasks have their turn
    /// meanwhile, also when there is nothing to wait for.
    pub(super) async fn turn(&self, frames: usize, rate: u32, urgent: Option<&Urgent<'_>>) {
        if urgent.is_none() {
            // It fails only when the sender is gone, which is ours.
            let _ = self.urgent.subscribe().wait_for(|waiting| *waiting == 0).await;
        }
        let wait = {
            let mut pacer = self.pacer.lock().unwrap_or_else(PoisonError::into_inner);
            pacer.reserve(Instant::now(), frames, rate)
        };
        if wait.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(wait).await;
        }
    }
}

impl Drop for Urgent<'_> {
    fn drop(&mut self) {
        self.0.urgent.send_modify(|waiting| *waiting -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    /// Sends chunks one after another on a virtual clock; timers fire late by what the iterator says.
    /// Answers when each left.
    fn departures(
        rate: u32,
        chunk: usize,
        late: impl IntoIterator<Item = Duration>,
    ) -> Vec<(Duration, usize)> {
        let start = Instant::now();
        let (mut pacer, mut now) = (Pacer::default(), start);
        let mut sent = Vec::new();
        for late in late {
            let wait = pacer.reserve(now, chunk, rate);
            if !wait.is_zero() {
                now += wait + late;
            }
            sent.push((now - start, chunk));
        }
        sent
    }

    #[test]
    fn nothing_waits_for_an_idle_lane() {
        let (mut pacer, now) = (Pacer::default(), Instant::now());
        assert_eq!(pacer.reserve(now, 32, 1000), Duration::ZERO);
        assert_eq!(pacer.reserve(now, 32, 1000), Duration::from_millis(32));
        // Idle time is not saved up.
        let later = now + Duration::from_secs(60);
        assert_eq!(pacer.reserve(later, 32, 1000), Duration::ZERO);
        assert_eq!(pacer.reserve(later, 32, 1000), Duration::from_millis(32 - 4));
    }

    #[test]
    fn the_pace_is_kept_up_although_timers_are_late() {
        let late = std::iter::repeat_n(Duration::from_micros(1500), 3125);
        let sent = departures(100_000, 32, late);
        let (last, _) = sent[sent.len() - 1];
        assert!(last >= Duration::from_millis(990) && last < Duration::from_millis(1010), "{last:?}");
    }

    #[test]
    fn a_chunk_at_the_slowest_pace_is_waited_for() {
        let sent = departures(1, 3, std::iter::repeat_n(Duration::ZERO, 3));
        assert_eq!(sent.iter().map(|(at, _)| at.as_secs()).collect::<Vec<_>>(), [0, 3, 6]);
    }

    #[test]
    fn repetitions_wait_for_what_is_urgent() {
        let lane = Lane::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let urgent = lane.urgent();
            let mut repetition = std::pin::pin!(lane.turn(1, 1_000_000, None));
            assert_eq!(repetition.as_mut().now_or_never(), None);
            lane.turn(1, 1_000_000, Some(&urgent)).await;
            assert_eq!(repetition.as_mut().now_or_never(), None);
            drop(urgent);
            repetition.await;
        });
    }

    proptest! {
        #[test]
        fn no_span_of_time_has_too_many(
            rate in 10u32..1_000_000,
            chunk in 1usize..=32,
            late in proptest::collection::vec((0u64..20_000).prop_map(Duration::from_micros), 1..100),
        ) {
            let sent = departures(rate, chunk, late);
            for (i, (from, _)) in sent.iter().enumerate() {
                for (j, (to, _)) in sent.iter().enumerate().skip(i) {
                    let frames = ((j - i + 1) * chunk) as f64;
                    let span = (*to - *from + CATCH_UP + TIMER).as_secs_f64();
                    let most = f64::from(rate) * span + 2.0 * chunk as f64;
                    prop_assert!(frames <= most + 0.01, "{frames} frames in {span} s, {most} are the most");
                }
            }
        }
    }
}
