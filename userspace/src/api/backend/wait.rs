//! Waits until the cluster has done what was ordered, telling the client what happens meanwhile.

use std::time::Duration;

use tokio::{sync::broadcast::error::RecvError, time::Instant};

use super::{Context, Member, Out, Result, progress};
use crate::{
    api::{Answer, ApiError},
    model::{ClusterState, Tag},
};

/// What the state says of an order.
pub enum Verdict {
    /// Carried out: what to tell.
    Done(String),
    /// It will not be.
    Failed(ApiError),
    /// Under way: where it stands.
    Pending(String),
}

impl Context {
    /// Waits for `judge` to come to an end, at most `limit`. Steps taken on this node and changes of the
    /// verdict go to the client as progress. Ends early when nobody listens any more.
    pub(super) async fn wait(
        &self,
        member: &Member,
        tag: &Tag,
        limit: Duration,
        out: &Out,
        judge: impl Fn(&ClusterState) -> Verdict,
    ) -> Result<Answer> {
        self.wait_for(member, Some(tag), limit, out, judge).await
    }

    /// As [`wait`](Self::wait), for an order about more than one resource.
    pub(super) async fn wait_for(
        &self,
        member: &Member,
        tag: Option<&Tag>,
        limit: Duration,
        out: &Out,
        judge: impl Fn(&ClusterState) -> Verdict,
    ) -> Result<Answer> {
        let deadline = Instant::now() + limit;
        let mut steps = self.events.subscribe();
        let mut steps_open = true;
        let mut views = member.store.view();
        let mut told = String::new();
        loop {
            let state = views.borrow_and_update().state.clone();
            match judge(&state) {
                Verdict::Done(message) => return Ok(Answer::done(message)),
                Verdict::Failed(e) => return Err(e),
                Verdict::Pending(now) if now != told => {
                    progress(out, now.clone()).await;
                    told = now;
                }
                Verdict::Pending(_) => {}
            }
            let changed = loop {
                tokio::select! {
                    changed = views.changed() => break changed.is_ok(),
                    step = steps.recv(), if steps_open => match step {
                        Ok(event) if tag.is_some() && event.tag.as_ref() == tag => {
                            progress(out, format!("{}: {}", event.kind, event.message)).await;
                        }
                        Ok(_) | Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => steps_open = false,
                    },
                    () = out.closed() => return Ok(Answer::done("nobody waits any more")),
                    () = tokio::time::sleep_until(deadline) => {
                        let look = tag.map_or("'vipctl status'".to_owned(), |tag| format!("'vipctl show {tag}'"));
                        return Err(ApiError::failed(format!(
                            "{told} after {} s: the order stands and is still being worked on, {look} and 'vipctl \
                             events' tell how far it is",
                            limit.as_secs()
                        )));
                    }
                }
            };
            if !changed {
                return Err(ApiError::failed("vipd is stopping: the order stands, ask another node"));
            }
        }
    }
}
