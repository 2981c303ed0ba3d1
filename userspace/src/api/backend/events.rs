//! `events`: what happened on this node.

use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{Context, Out, Result};
use crate::api::{Answer, Event};

impl Context {
    pub(super) async fn events(&self, follow: bool, out: &Out) -> Result<Answer> {
        let (kept, coming) = self.events.follow();
        for event in kept {
            if out.send(Answer::Event(event)).await.is_err() {
                return Ok(Answer::done(""));
            }
        }
        if follow {
            self.pass_on(coming, out).await;
        }
        Ok(Answer::done(""))
    }

    /// Until nobody listens any more.
    async fn pass_on(&self, mut coming: Receiver<Event>, out: &Out) {
        loop {
            let event = tokio::select! {
                event = coming.recv() => event,
                () = out.closed() => return,
            };
            let event = match event {
                Ok(event) => event,
                Err(RecvError::Lagged(lost)) => lost_events(lost, &self.events.follow().0),
                Err(RecvError::Closed) => return,
            };
            if out.send(Answer::Event(event)).await.is_err() {
                return;
            }
        }
    }
}

/// Said in the place of events that this follower was too slow for.
fn lost_events(lost: u64, newest: &[Event]) -> Event {
    let newest = newest.last();
    Event {
        number: newest.map_or(0, |e| e.number),
        time: newest.map_or_else(String::new, |e| e.time.clone()),
        boot_ns: newest.map_or(0, |e| e.boot_ns),
        tag: None,
        address: None,
        epoch: None,
        kind: "events.lost".to_owned(),
        message: format!("{lost} events are missing here: they came faster than they were read"),
    }
}
