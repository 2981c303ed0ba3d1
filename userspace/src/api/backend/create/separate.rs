//! `create ip --separate`: one resource for each address, many in one log entry.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::super::{Context, Member, Out, Result, progress, wait::Verdict};
use crate::{
    api::{Answer, ApiError, thousands},
    core::{accept::Budget, change::Change},
    model::{
        Accept, AcceptBy, Addresses, ClusterState, IpResource, Kind, NodeId, NodeSettings, Resource,
        Switchback, Tag,
    },
};

/// Resources of one log entry: some hundred KiB.
const BATCH: usize = 1000;

/// What the resources have in common.
pub struct Pattern {
    pub nodes: BTreeMap<NodeId, NodeSettings>,
    pub switchback: Switchback,
    /// None for the rule.
    pub accept: Option<Accept>,
}

impl Pattern {
    /// One for each address, with its default tag. Which way each accepts is settled in their order.
    pub fn apply(&self, state: &ClusterState, addresses: &Addresses) -> Result<Vec<Resource>> {
        let mut budget = Budget::new(state);
        let mut resources = Vec::new();
        for net in addresses.iter() {
            let tag = super::default_tag(net)?;
            if state.resources.contains_key(&tag) {
                return Err(ApiError::refused(format!(
                    "the tag '{tag}' is taken: leave {} out with --except, or create it with a --tag of its own",
                    net.addr()
                )));
            }
            let one = Addresses::from(net);
            let (accept, by) = match self.accept {
                Some(accept) => (accept, AcceptBy::Operator),
                None => budget.choose(&one, self.nodes.keys().copied()),
            };
            let kind = Kind::Ip(IpResource { addresses: one, accept, accept_by: by });
            let resource = Resource::of_kind(tag, kind, self.nodes.clone());
            resources.push(Resource { switchback: self.switchback, ..resource });
        }
        Ok(resources)
    }
}

impl Context {
    /// Some at a time, each time all or none.
    pub(super) async fn create_all(
        &self,
        member: &Member,
        resources: Vec<Resource>,
        wait: bool,
        out: &Out,
    ) -> Result<Answer> {
        let total = thousands(resources.len() as u64);
        let tags: BTreeSet<Tag> = resources.iter().map(|r| r.tag.clone()).collect();
        let ends = match (tags.first(), resources.last()) {
            (Some(_), Some(last)) if tags.len() > 1 => {
                format!("{} to {}", resources[0].tag, last.tag)
            }
            _ => tags.iter().map(Tag::to_string).collect(),
        };
        let mut created = 0;
        for batch in resources.chunks(BATCH) {
            let change = Change::CreateAll { resources: batch.to_vec(), on: member.id };
            member.propose(vec![change]).await.map_err(|e| match created {
                0 => e,
                n => ApiError {
                    message: format!("{} of {total} were created, then: {}", thousands(n), e.message),
                    ..e
                },
            })?;
            created += batch.len() as u64;
            progress(out, format!("created: {} of {total}", thousands(created))).await;
        }
        if !wait {
            return Ok(Answer::done(format!(
                "{total} resources are created, {ends}, and being brought in service"
            )));
        }
        self.wait_all(member, &tags, &ends, out).await
    }

    /// Until each of them is in service or failed. As long as there is some progress it goes on.
    async fn wait_all(&self, member: &Member, tags: &BTreeSet<Tag>, ends: &str, out: &Out) -> Result<Answer> {
        let total = thousands(tags.len() as u64);
        let mut views = member.store.view();
        let mut best = 0;
        let mut deadline = Instant::now() + self.limit_of_start();
        loop {
            let state = views.borrow_and_update().state.clone();
            let mut up = 0;
            let mut failed = Vec::new();
            for tag in tags {
                match self.started(&state, tag, None) {
                    Verdict::Done(_) => up += 1,
                    Verdict::Failed(e) => failed.push(e),
                    Verdict::Pending(_) => {}
                }
            }
            if up + failed.len() == tags.len() {
                return match failed.into_iter().next() {
                    None => Ok(Answer::done(format!("{total} resources are in service: {ends}"))),
                    Some(e) => Err(ApiError {
                        message: format!(
                            "{} of {total} resources are in service; 'vipctl status --resources --state OSF' lists the \
                             others, of which the first: {}",
                            thousands(up as u64),
                            e.message
                        ),
                        ..e
                    }),
                };
            }
            if up > best {
                best = up;
                deadline = Instant::now() + self.limit_of_start();
                progress(out, format!("in service: {} of {total}", thousands(up as u64))).await;
            }
            tokio::select! {
                changed = views.changed() => if changed.is_err() {
                    return Err(ApiError::failed("vipd is stopping: the order stands, ask another node"));
                },
                () = out.closed() => return Ok(Answer::done("nobody waits any more")),
                () = tokio::time::sleep_until(deadline) => {
                    return Err(ApiError::failed(format!(
                        "{} of {total} resources are in service, and no more came for a while: the order stands and is \
                         still being worked on, 'vipctl status' tells how far it is",
                        thousands(up as u64)
                    )));
                }
            }
        }
    }
}
