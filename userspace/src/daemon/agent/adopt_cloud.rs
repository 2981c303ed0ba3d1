//! At start: what an earlier life of this daemon did in EC2, which outlives it.

use std::sync::Arc;

use super::{AgentDriver, Loop};
use crate::{
    core::{
        agent::{Here, recall},
        time::BootTime,
    },
    model::{Cloud, ClusterState, Phase},
};

impl AgentDriver {
    /// It is taken to be in service as long as its grant is the one under which this node serves, and the first check
    /// tells: a restart of vipd must not hang on an answer of EC2. Nothing is left of a route; of an Elastic IP the book
    /// knows where it may be.
    pub(super) fn adopt_from_cloud(&self, l: &mut Loop, state: &ClusterState, now: BootTime) {
        self.adopt_routes(l, state, now);
        for recalled in recall(self.me, self.keeper.held().epoch, state, &self.eip_book.noted()) {
            let tag = recalled.tag.clone();
            l.agent.recalled(recalled, now);
            self.know(l, &tag);
        }
    }

    fn adopt_routes(&self, l: &mut Loop, state: &ClusterState, now: BootTime) {
        let held = self.keeper.held();
        for (tag, resource) in &state.resources {
            let Some(Cloud::Route(route)) = resource.cloud() else { continue };
            let Some(placement) = state.placements.get(tag) else { continue };
            let serves = placement.grant.is_some_and(|g| {
                g.owner == self.me && g.phase == Phase::InService && g.lease_epoch == held.epoch
            });
            let carrier = l.agent.here(&route.ip).filter(|_| serves && l.agent.is_up(&route.ip));
            let Some(Here { addresses, device, .. }) = carrier.cloned() else { continue };
            let here = Here { resource: Arc::new(resource.clone()), addresses, device };
            l.agent.found(tag.clone(), here, Some(placement.epoch), now);
            self.know(l, tag);
        }
    }
}
