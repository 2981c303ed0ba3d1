//! `in-service`, `out-of-service`, `delete`: an order, then waiting until it is carried out.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use super::{
    Context, Member, Out, Result,
    hierarchy::{along, check_not_maintained, names},
    lookup, placement, subnet,
    wait::Verdict,
};
use crate::{
    api::{Answer, ApiError},
    core::change::Change,
    model::{ClusterState, Desired, NodeId, Phase, Placement, Tag},
};

/// For agreement, and for proving a silent owner silent.
const AGREEMENT: Duration = Duration::from_secs(30);

impl Context {
    /// How long a removal elsewhere and a bring-up may take together.
    pub(super) fn limit_of_start(&self) -> Duration {
        let tunables = self.tunables.read();
        let ec2 = match self.has_clouds() {
            true => tunables.ec2.restore_timeout + tunables.ec2.remove_timeout,
            false => Duration::ZERO,
        };
        tunables.restore_timeout + tunables.remove_timeout + ec2 + AGREEMENT
    }

    fn limit_of_stop(&self) -> Duration {
        let tunables = self.tunables.read();
        let ec2 = if self.has_clouds() { tunables.ec2.remove_timeout } else { Duration::ZERO };
        tunables.remove_timeout + ec2 + AGREEMENT
    }

    /// What is in EC2 takes its own time, and may belong to the hierarchy of anything.
    fn has_clouds(&self) -> bool {
        let member = self.member.borrow();
        let state = member.as_ref().map(Member::state);
        state.is_some_and(|state| state.resources.values().any(|r| r.cloud().is_some()))
    }

    pub(super) async fn in_service(
        &self,
        tag: &Tag,
        on: Option<&str>,
        hold: Option<Duration>,
        wait: bool,
        out: &Out,
    ) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        let resource = lookup::resource(&state, tag)?;
        let on = on.map(|name| lookup::holder(&state, name)).transpose()?;
        if let Some(node) = on {
            if !resource.nodes.contains_key(&node.id) {
                return Err(ApiError::refused(format!(
                    "'{tag}' is not extended to node '{0}': 'vipctl extend {tag} --to {0}' first",
                    node.name
                )));
            }
            let heard = self.facts.borrow().peers.get(&node.id).is_none_or(|p| p.alive);
            if !heard && node.id != member.id {
                return Err(ApiError::refused(format!(
                    "node '{}' is not heard by this node: bring it back first, or choose another node",
                    node.name
                )));
            }
        }
        check_not_maintained(&state, tag)?;
        let on = on.map(|n| n.id);
        let lacking = match on {
            Some(id) => subnet::lacking(&state, resource, id).map(|why| (state.node_name(id), why)),
            None => subnet::lacking_everywhere(&state, resource).map(|why| ("any node".to_owned(), why)),
        };
        if let Some((place, why)) = lacking {
            return Err(ApiError::refused(format!(
                "{tag} cannot start on {place}: {why}; mend that, or take the subnet from it with 'vipctl set {tag} \
                 subnets='"
            )));
        }
        let until = hold.map(|hold| {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            u64::try_from((since + hold).as_millis()).unwrap_or(u64::MAX)
        });
        member.propose(vec![Change::InService { tag: tag.clone(), on, until }]).await?;
        if !wait {
            return Ok(Answer::done(format!("{tag} is being brought in service")));
        }
        let limit = self.limit_of_start();
        self.wait(&member, tag, limit, out, |state| self.started_with_children(state, tag, on)).await
    }

    /// The resource comes last: when it is in service, all that it depends on is. With a node, what depends on it
    /// goes along.
    fn started_with_children(&self, state: &ClusterState, tag: &Tag, on: Option<NodeId>) -> Verdict {
        let mut others = state.with_descendants(tag);
        if on.is_some() {
            let wanted = |t: &Tag| state.placements.get(t).is_some_and(|p| p.is_wanted());
            others.extend(state.hierarchy_of(tag).into_iter().filter(wanted));
        }
        for other in others.iter().filter(|t| *t != tag) {
            match self.started(state, other, on) {
                Verdict::Done(_) => {}
                other => return other,
            }
        }
        self.started(state, tag, on)
    }

    pub(super) async fn clear(&self, tag: &Tag) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        lookup::resource(&state, tag)?;
        let chosen = state.placements.get(tag).map(|p| p.desired);
        member.propose(vec![Change::Clear { tag: tag.clone() }]).await?;
        Ok(Answer::done(match chosen {
            Some(Desired::InService { on: Some(node) }) => format!(
                "{tag} was sent to {}; from now on the cluster decides where it is{}",
                state.node_name(node),
                resting(&state, tag)
            ),
            Some(Desired::InService { on: None } | Desired::OutOfService) | None => {
                format!("nobody had sent {tag} to a node: nothing has changed")
            }
        }))
    }

    pub(super) async fn cleanup(&self, tag: &Tag, node: Option<&str>) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        lookup::resource(&state, tag)?;
        let node = node.map(|name| lookup::holder(&state, name)).transpose()?;
        member.propose(vec![Change::Cleanup { tag: tag.clone(), node: node.map(|n| n.id) }]).await?;
        let place = node.map_or("every node".to_owned(), |n| n.name.clone());
        Ok(Answer::done(format!(
            "the failures of {tag} on {place} are forgotten{}{}",
            along(&state, tag, "so are those of"),
            resting(&state, tag)
        )))
    }

    pub(super) async fn out_of_service(&self, tag: &Tag, wait: bool, out: &Out) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        lookup::resource(&state, tag)?;
        check_not_maintained(&state, tag)?;
        let stopped = state.with_ancestors(tag);
        let above = match stopped.len() {
            1 => String::new(),
            _ => format!(", and so are {}, which depend on it", names(stopped.iter().filter(|t| *t != tag))),
        };
        member.propose(vec![Change::OutOfService { tag: tag.clone() }]).await?;
        if !wait {
            return Ok(Answer::done(format!("{tag} is being taken out of service{above}")));
        }
        let judge = |state: &ClusterState| match state.placements.get(tag) {
            None => Verdict::Failed(deleted(tag)),
            Some(p) if p.grant.is_none() => Verdict::Done(format!("{tag} is out of service{above}")),
            Some(p) if matches!(p.desired, Desired::InService { .. }) => Verdict::Failed(ApiError::failed(
                format!("{tag} was ordered in service meanwhile, by somebody else"),
            )),
            Some(p) => Verdict::Pending(where_it_is(state, tag, p)),
        };
        self.wait(&member, tag, self.limit_of_stop(), out, judge).await
    }

    pub(super) async fn delete(
        &self,
        tag: &Tag,
        hierarchy: bool,
        force: bool,
        wait: bool,
        out: &Out,
    ) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        lookup::resource(&state, tag)?;
        let along = if hierarchy { along(&state, tag, "with") } else { String::new() };
        let gone = if hierarchy { state.hierarchy_of(tag) } else { BTreeSet::from([tag.clone()]) };
        let change = Change::Delete { tag: tag.clone(), hierarchy };
        let unasked = self.propose_checked(&member, &state, vec![change], force, out).await?;
        if !wait {
            return Ok(Answer::done(format!("{tag} is being deleted{along}{unasked}")));
        }
        let judge = |state: &ClusterState| {
            // One of that tag that is not being deleted is a new one.
            let left = gone.iter().filter_map(|t| Some((t, state.placements.get(t)?)));
            match left.clone().find(|(_, p)| p.deleting) {
                Some((tag, p)) => Verdict::Pending(where_it_is(state, tag, p)),
                None => match left.map(|(t, _)| t).next() {
                    None => Verdict::Done(format!("{tag} is deleted{along}{unasked}")),
                    Some(again) => Verdict::Done(format!(
                        "{tag} is deleted{along}, and {again} was created anew{unasked}"
                    )),
                },
            }
        };
        self.wait(&member, tag, self.limit_of_stop(), out, judge).await
    }

    /// Whether a bring-up, on a certain node or any, has come to its end.
    pub(super) fn started(&self, state: &ClusterState, tag: &Tag, on: Option<NodeId>) -> Verdict {
        let (Some(resource), Some(p)) = (state.resources.get(tag), state.placements.get(tag)) else {
            return Verdict::Failed(deleted(tag));
        };
        if p.deleting {
            return Verdict::Failed(deleted(tag));
        }
        if matches!(p.desired, Desired::OutOfService) {
            return Verdict::Failed(ApiError::failed(format!(
                "{tag} was ordered out of service meanwhile, by somebody else"
            )));
        }
        if let Some(grant) = p.grant
            && grant.phase == Phase::InService
            && on.is_none_or(|n| n == grant.owner)
        {
            let elsewhere = match &p.failed {
                failed if failed.is_empty() => String::new(),
                _ => format!(" (failed on {})", placement::reasons(state, p)),
            };
            let owner = state.node_name(grant.owner);
            return Verdict::Done(format!("{tag} is in service on {owner}{elsewhere}"));
        }
        let failed_there = on.and_then(|n| p.failed.get(&n).map(|reason| (n, reason)));
        if let Some((node, reason)) = failed_there {
            return Verdict::Failed(ApiError::failed(format!(
                "{tag} failed on node '{}': {reason}; mend that and try again, 'vipctl show {tag}' shows where it is",
                state.node_name(node)
            )));
        }
        if p.grant.is_none() && placement::failed_everywhere(resource, p) {
            return Verdict::Failed(ApiError::failed(format!(
                "{tag} failed on every node: {}; mend that, then 'vipctl in-service {tag}'",
                placement::reasons(state, p)
            )));
        }
        Verdict::Pending(where_it_is(state, tag, p))
    }
}

/// What has no effect until maintenance ends; nothing where there is none.
fn resting(state: &ClusterState, tag: &Tag) -> String {
    match check_not_maintained(state, tag) {
        Ok(()) => String::new(),
        Err(e) => format!("; nothing moves yet: {}", e.message),
    }
}

pub(super) fn deleted(tag: &Tag) -> ApiError {
    ApiError::failed(format!("{tag} was deleted meanwhile, by somebody else"))
}

pub(super) fn where_it_is(state: &ClusterState, tag: &Tag, p: &Placement) -> String {
    match p.grant {
        Some(grant) => {
            let owner = state.node_name(grant.owner);
            match grant.phase {
                Phase::Starting => format!("{tag} is starting on {owner}"),
                Phase::InService => format!("{tag} is in service on {owner}"),
                Phase::Stopping => format!("{tag} is stopping on {owner}"),
            }
        }
        None => match state.resources.get(tag).and_then(|r| subnet::lacking_everywhere(state, r)) {
            Some(why) => format!("{tag} waits for its subnets ({why})"),
            None => format!("{tag} waits to be granted to a node"),
        },
    }
}
