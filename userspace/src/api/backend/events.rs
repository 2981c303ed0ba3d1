//! `events`: what happened on this node.

use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{Context, Out, Result};
use crate::api::{Answer, Event, EventFilter};

impl Context {
    pub(super) async fn events(&self, follow: bool, filter: &EventFilter, out: &Out) -> Result<Answer> {
        let (kept, coming) = self.events.follow();
        let kept: Vec<Event> = kept.into_iter().filter(|e| wanted(filter, e)).collect();
        let skipped = filter.last.map_or(0, |last| kept.len().saturating_sub(last));
        for event in kept.into_iter().skip(skipped) {
            if out.send(Answer::Event(event)).await.is_err() {
                return Ok(Answer::done(""));
            }
        }
        if follow {
            self.pass_on(coming, filter, out).await;
        }
        Ok(Answer::done(""))
    }

    /// Until nobody listens any more.
    async fn pass_on(&self, mut coming: Receiver<Event>, filter: &EventFilter, out: &Out) {
        loop {
            let event = tokio::select! {
                event = coming.recv() => event,
                () = out.closed() => return,
            };
            let event = match event {
                Ok(event) if !wanted(filter, &event) => continue,
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

/// A kind is meant with all that it is divided into: `restore` with `restore.announce`.
fn wanted(filter: &EventFilter, event: &Event) -> bool {
    let kind = filter.kind.as_deref().is_none_or(|kind| {
        event.kind.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    kind && filter.tag.as_ref().is_none_or(|tag| event.tag.as_ref() == Some(tag))
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
