//! `cluster leave`, `remove`, `readdress`: who belongs to the cluster, and where it is.

use std::time::Duration;

use super::{Context, Member, Out, Result, hierarchy::names, lookup, progress, wait::Verdict};
use crate::{
    api::{Answer, ApiError},
    core::{
        change::{Applied, Change, Duty},
        inspection::Inquiries,
        planner::simulate::{WhatIf, simulate},
    },
    daemon::events::About,
    model::{ClusterState, Node, NodeId, Tag},
};

impl Context {
    /// This node leaves the cluster; with `drain` what it holds moves to others first.
    pub(super) async fn cluster_leave(&self, drain: bool, out: &Out) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        let me = member.id;
        let node = state.nodes.get(&me).ok_or_else(|| ApiError::failed("this node is not yet admitted"))?;
        check_apart(&state, node)?;
        let held = held(&state, me);
        let moves = !held.is_empty();
        if moves {
            if !drain {
                return Err(ApiError::refused(format!(
                    "this node holds {}: '--move' moves what it holds to others first",
                    names(held.into_iter().take(10))
                )));
            }
            self.check_refuge(&member, &state, node)?;
            member.propose(vec![Change::SetNode { node: me, duty: Duty::Standby }]).await?;
            let limit = self.limit_of_start() + Duration::from_secs(state.placements.len() as u64 / 10);
            let name = node.name.clone();
            let emptied = move |state: &ClusterState| match self::held(state, me).len() {
                0 => Verdict::Done(String::new()),
                left => Verdict::Pending(format!("this node ('{name}') still holds {left} resources")),
            };
            self.wait_for(&member, None, limit, out, emptied).await.map_err(|e| still_here(e, node))?;
        }
        remove(&member, me, None).await.map_err(|e| if moves { still_here(e, node) } else { e })?;
        Ok(Answer::done(format!(
            "this node ('{}') has left the cluster '{}': vipd starts over without one",
            node.name, state.name
        )))
    }

    /// What this node holds has somewhere to go, as `simulate` tells it.
    fn check_refuge(&self, member: &Member, state: &ClusterState, node: &Node) -> Result<()> {
        let moves = simulate(state, &self.observed(member, state), &[WhatIf::Standby(node.id)]);
        let mut stranded = moves.iter().filter(|m| m.from == Some(node.id) && m.to.is_none());
        let Some(first) = stranded.next() else { return Ok(()) };
        let tags = std::iter::once(&first.tag).chain(stranded.map(|m| &m.tag)).take(10);
        Err(ApiError::refused(format!(
            "nobody else can have {} now ({}): 'vipctl simulate --standby {}' tells what would become of each; take out \
             of service or delete what is to end",
            names(tags),
            first.reason,
            node.name
        )))
    }

    /// This node forgets its cluster without telling it.
    pub(super) async fn cluster_forget(&self) -> Result<Answer> {
        let member = self.member()?;
        if self.facts.borrow().quorum {
            return Err(ApiError::refused(
                "this node reaches a majority of its cluster: 'vipctl cluster leave' leaves it in order",
            ));
        }
        let name = member.state().name.clone();
        self.control.forget().await?;
        Ok(Answer::done(format!(
            "this node has forgotten the cluster '{name}' and vipd starts over without one; if the others still have it, \
             'vipctl cluster remove' there has them forget it"
        )))
    }

    /// Another node is forgotten; `heir` takes its place.
    ///
    /// The heir checks on itself what it gets; with `force` it need not be there.
    pub(super) async fn cluster_remove(
        &self,
        name: &str,
        heir: Option<&str>,
        force: bool,
        out: &Out,
    ) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        let node = lookup::node(&state, name)?;
        if node.id == member.id {
            return Err(ApiError::refused(format!(
                "'{name}' is this node: 'vipctl cluster leave' has it leave, or remove it from another node"
            )));
        }
        let heir = heir.map(|name| lookup::holder(&state, name)).transpose()?;
        let mut unasked = String::new();
        if let Some(heir) = heir {
            let change = Change::Remove { node: node.id, heir: Some(heir.id) };
            let after = lookup::tried(&state, &[change])?;
            // Whatever becomes of the other nodes, they get nothing by it.
            let inquiries = Inquiries::of_change(&state, &after, member.id).only(heir.id);
            let verdict = self.ask_nodes(&member, &state, &inquiries, force, out).await;
            verdict.refuse()?;
            unasked = verdict.said();
        }
        progress(out, format!("taking '{name}' out of the cluster")).await;
        remove(&member, node.id, heir.map(|n| n.id)).await?;
        let inherits = heir.map_or_else(String::new, |n| format!(" and '{}' has its place", n.name));
        let rest = self.facts.borrow().peers.get(&node.id).is_some_and(|p| p.alive);
        let rest = if rest {
            "its vipd starts over without a cluster"
        } else {
            "should it come back, it is told so and starts over without a cluster"
        };
        let told = format!("node '{name}' is no part of the cluster any more{inherits}; {rest}{unasked}");
        if node.declared_dead {
            let message =
                format!("UNSAFE unless it is off: it was declared dead, and nothing else says so; {told}");
            self.events.warn(About::default(), "node.removed", &message);
            return Ok(Answer::done(message));
        }
        Ok(Answer::done(told))
    }

    /// The node takes `rpc` and `paths` from its configuration anew.
    pub(super) async fn cluster_readdress(&self, out: &Out) -> Result<Answer> {
        self.member()?;
        progress(out, "reading the addresses in node.toml".to_owned()).await;
        Ok(Answer::done(self.control.readdress().await?))
    }
}

fn still_here(e: ApiError, node: &Node) -> ApiError {
    let message = format!(
        "{}; this node is on standby and still a member: 'vipctl node online {}' takes that back",
        e.message, node.name
    );
    ApiError { message, ..e }
}

/// What would have nowhere to go is not stopped on the way out.
fn check_apart(state: &ClusterState, node: &Node) -> Result<()> {
    let only = |r: &&crate::model::Resource| r.nodes.len() == 1 && r.nodes.contains_key(&node.id);
    let tags: Vec<&Tag> = state.resources.values().filter(only).map(|r| &r.tag).take(10).collect();
    if tags.is_empty() {
        return Ok(());
    }
    Err(ApiError::refused(format!(
        "this node ('{}') is the only one of {}: extend them to another node, or delete them",
        node.name,
        names(tags.into_iter())
    )))
}

fn held(state: &ClusterState, node: NodeId) -> Vec<&Tag> {
    let owned = state.placements.iter().filter(|(_, p)| p.grant.is_some_and(|g| g.owner == node));
    owned.map(|(tag, _)| tag).collect()
}

async fn remove(member: &Member, node: NodeId, heir: Option<NodeId>) -> Result<()> {
    match member.store.remove(node, heir).await.map_err(lookup::store)? {
        Applied::Done | Applied::Node(_) => Ok(()),
        Applied::Refused(refusal) => Err(ApiError::refused(refusal.to_string())),
    }
}
