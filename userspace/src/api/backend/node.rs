//! `node`: standby, online, maintenance.

use std::{collections::BTreeSet, time::Duration};

use super::{Context, Out, Result, hierarchy::names, lookup, wait::Verdict};
use crate::{
    api::{Answer, NodeOrder},
    core::change::{Change, Duty},
    model::{ClusterState, NodeId, Placement, Tag},
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
                self.wait_for(&member, None, limit, out, move |state| drained(state, id, &name, &held)).await
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

/// `held`: what it had when this was ordered.
fn drained(state: &ClusterState, node: NodeId, name: &str, held: &BTreeSet<Tag>) -> Verdict {
    match owned(state, node).count() {
        0 => {}
        left => return Verdict::Pending(format!("{name} still holds {left} resources")),
    }
    let placed = held.iter().filter_map(|tag| Some((tag, state.placements.get(tag)?)));
    let nowhere: Vec<&Tag> =
        placed.filter(|(_, p)| p.is_wanted() && p.grant.is_none()).map(|(tag, _)| tag).take(10).collect();
    Verdict::Done(match nowhere.is_empty() {
        true => format!("{name} is on standby and holds nothing"),
        false => format!(
            "{name} is on standby and holds nothing; nobody holds {} yet: 'vipctl show TAG' says why",
            names(nowhere.into_iter())
        ),
    })
}
