//! `simulate`, and the explanation in `show`: the planner's own words, from what this node knows.

use std::collections::BTreeMap;

use super::{Context, Member, Result, lookup};
use crate::{
    api::{Answer, ApiError, Foreseen, Supposition},
    core::planner::{
        Explanation, NodeHealth, Observed, explain,
        simulate::{WhatIf, simulate},
    },
    model::{ClusterState, NodeId, Tag},
    observe::clock,
};

impl Context {
    /// The leader judges by a majority's view and by how long things last; this node says what it hears itself.
    pub(super) fn observed(&self, member: &Member, state: &ClusterState) -> Observed {
        let facts = self.facts.borrow();
        let health = |id: NodeId| {
            let fit = if id == member.id {
                self.lease(clock::now()).valid
            } else {
                facts.peers.get(&id).is_some_and(|p| p.alive && p.lease_valid)
            };
            NodeHealth { fit, ..NodeHealth::default() }
        };
        let nodes: BTreeMap<NodeId, NodeHealth> = state.nodes.keys().map(|id| (*id, health(*id))).collect();
        Observed { nodes, ..Observed::default() }
    }

    pub(super) fn explanation(
        &self,
        member: &Member,
        state: &ClusterState,
        tag: &Tag,
    ) -> Option<Explanation> {
        explain(state, &self.observed(member, state), tag)
    }

    pub(super) async fn simulate(&self, suppositions: Vec<Supposition>) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        let what = suppositions.iter().map(|s| resolve(&state, s)).collect::<Result<Vec<_>>>()?;
        if what.is_empty() {
            return Err(ApiError::usage(
                "nothing is supposed: use --fail NODE, --standby NODE or --link NODE:IF=down",
            ));
        }
        let moves = simulate(&state, &self.observed(&member, &state), &what);
        let name = |id: Option<NodeId>| id.map(|id| state.node_name(id));
        let foreseen = moves.into_iter().map(|m| Foreseen {
            hierarchy: state.roots(&state.hierarchy_of(&m.tag)).next().unwrap_or(&m.tag).clone(),
            tag: m.tag,
            from: name(m.from),
            to: name(m.to),
            reason: m.reason,
        });
        Ok(Answer::Foreseen(foreseen.collect()))
    }
}

fn resolve(state: &ClusterState, supposition: &Supposition) -> Result<WhatIf> {
    Ok(match supposition {
        Supposition::Fail(node) => WhatIf::NodeFails(lookup::node(state, node)?.id),
        Supposition::Standby(node) => WhatIf::Standby(lookup::holder(state, node)?.id),
        Supposition::LinkDown { node, device } => {
            let node = lookup::holder(state, node)?;
            let known = state
                .resources
                .values()
                .any(|r| r.nodes.get(&node.id).is_some_and(|s| s.devices.contains(device)));
            if !known {
                return Err(ApiError::refused(format!(
                    "no resource may use an interface '{device}' on node '{}': 'vipctl show TAG' lists the interfaces",
                    node.name
                )));
            }
            WhatIf::LinkFails { node: node.id, device: device.clone() }
        }
    })
}
