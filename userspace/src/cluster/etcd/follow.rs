//! Keeps up with the log: a watch for speed, a look every second for certainty.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{kv::Event, log::Log};

/// Between two looks: also how soon it is noticed that etcd is away, or back.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// Before a watch that could not be had is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs until it is dropped.
pub(crate) async fn follow(log: Arc<Log>) {
    loop {
        let (from, to) = log.keys.watched();
        // Its reason is told by the look, if it is one that matters.
        let watch = log.kv.watch(from, to).await;
        // What came before the watch.
        let caught_up = log.catch_up().await;
        match (watch, caught_up) {
            (Ok(watch), Ok(())) => take(&log, watch).await,
            _ => sleep(PAUSE).await,
        }
    }
}

/// Until the watch breaks, or etcd does not answer.
async fn take(log: &Log, mut watch: mpsc::Receiver<Vec<Event>>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks.reset();
    loop {
        let sound = tokio::select! {
            events = watch.recv() => match events {
                Some(events) => log.take(&events) || log.catch_up().await.is_ok(),
                None => return,
            },
            _ = looks.tick() => log.catch_up().await.is_ok(),
        };
        if !sound {
            return;
        }
    }
}
