//! `node`: standby, online, maintenance.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Context, Out, Result, hierarchy::names, lookup, wait::Verdict};
use crate::{
    api::{Answer, NodeOrder},
    core::{
        change::{Change, Duty},
        planner::simulate::destinations,
    },
    model::{ClusterState, NodeId, Phase, Placement, Tag},
};

impl Context {
    pub(super) async fn node_order(
        &self,
        name: &str,
        order: NodeOrder,
        wait: bool,
        out: &Out,
    ) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        let node = lookup::holder(&state, name)?;
        let duty = match order {
            NodeOrder::Standby => Duty::Standby,
            NodeOrder::Online => Duty::Online,
            NodeOrder::Maintenance(on) => Duty::Maintenance(on),
        };
        member.propose(vec![Change::SetNode { node: node.id, duty }]).await?;
        match order {
            NodeOrder::Standby if wait => {
                let limit = self.limit_of_start() + Duration::from_secs(state.placements.len() as u64 / 10);
                let (id, name) = (node.id, node.name.clone());
                let held: BTreeSet<Tag> = owned(&state, id).cloned().collect();
                let judge = |state: &ClusterState| {
                    drained(state, id, &name, &held, || destinations(state, &self.observed(&member, state)))
                };
                self.wait_for(&member, None, limit, out, judge).await
            }
            NodeOrder::Standby => Ok(Answer::done(format!("{name} is on standby: what it holds moves away"))),
            NodeOrder::Online => Ok(Answer::done(match &node.gave_up {
                Some(reason) => format!("{name} is online again; it had given up everything: {reason}"),
                None => format!("{name} is online"),
            })),
            NodeOrder::Maintenance(true) => Ok(Answer::done(format!(
                "{name} is in maintenance: what it holds stays, unchecked, and it gets nothing; 'vipctl node \
                 maintenance {name} off' ends it"
            ))),
            NodeOrder::Maintenance(false) => Ok(Answer::done(format!(
                "{name} is in maintenance no longer: what it holds is checked again"
            ))),
        }
    }
}

/// What is granted to the node.
fn owned(state: &ClusterState, node: NodeId) -> impl Iterator<Item = &Tag> {
    let owned = move |p: &Placement| p.grant.is_some_and(|g| g.owner == node);
    state.placements.iter().filter(move |(_, p)| owned(p)).map(|(tag, _)| tag)
}

/// `held`: what it had when this was ordered. It is done when all of that is in service elsewhere, or cannot be: who
/// empties one node after another takes the next one only then.
fn drained(
    state: &ClusterState,
    node: NodeId,
    name: &str,
    held: &BTreeSet<Tag>,
    destinations: impl FnOnce() -> BTreeMap<Tag, Option<NodeId>>,
) -> Verdict {
    match owned(state, node).count() {
        0 => {}
        left => return Verdict::Pending(format!("{name} still holds {left} resources")),
    }
    let placed = held.iter().filter_map(|tag| Some((tag, state.placements.get(tag)?)));
    let (granted, nobodys): (Vec<_>, Vec<_>) =
        placed.filter(|(_, p)| p.is_wanted()).partition(|(_, p)| p.grant.is_some());
    let in_service = |p: &Placement| p.grant.is_some_and(|g| g.phase == Phase::InService);
    let mut under_way: Vec<&Tag> =
        granted.into_iter().filter(|(_, p)| !in_service(p)).map(|(tag, _)| tag).collect();
    let mut nowhere: Vec<&Tag> = nobodys.into_iter().map(|(tag, _)| tag).collect();
    if !nowhere.is_empty() {
        let to = destinations();
        let (moving, stranded) =
            nowhere.into_iter().partition(|tag| to.get(tag).is_some_and(Option::is_some));
        under_way.extend::<Vec<&Tag>>(moving);
        nowhere = stranded;
    }
    if !under_way.is_empty() {
        let tags = names(under_way.iter().copied().take(10));
        return Verdict::Pending(format!("{name} holds nothing; {tags} not in service elsewhere yet"));
    }
    Verdict::Done(match nowhere.is_empty() {
        true => format!("{name} is on standby and holds nothing"),
        false => format!(
            "{name} is on standby and holds nothing; nobody else can have {} now: 'vipctl show TAG' says why",
            names(nowhere.into_iter().take(10))
        ),
    })
}
