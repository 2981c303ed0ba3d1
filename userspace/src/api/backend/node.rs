//! `node`: standby, online, maintenance.

use std::time::Duration;

use super::{Context, Out, Result, hierarchy::names, lookup, wait::Verdict};
use crate::{
    api::{Answer, NodeOrder},
    core::change::{Change, Duty},
    model::{ClusterState, NodeId, Tag},
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
                self.wait_for(&member, None, limit, out, move |state| drained(state, id, &name)).await
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

fn drained(state: &ClusterState, node: NodeId, name: &str) -> Verdict {
    let owned = |p: &crate::model::Placement| p.grant.is_some_and(|g| g.owner == node);
    let left: Vec<&Tag> = state.placements.iter().filter(|(_, p)| owned(p)).map(|(tag, _)| tag).collect();
    if left.is_empty() {
        let mut homeless = state.placements.iter().filter(|(_, p)| p.is_wanted() && p.grant.is_none());
        let nowhere: Vec<&Tag> = homeless.by_ref().map(|(tag, _)| tag).take(10).collect();
        return Verdict::Done(match nowhere.is_empty() {
            true => format!("{name} is on standby and holds nothing"),
            false => format!(
                "{name} is on standby and holds nothing; nobody holds {} yet: 'vipctl show TAG' says why",
                names(nowhere.into_iter())
            ),
        });
    }
    Verdict::Pending(format!("{name} still holds {} resources", left.len()))
}
