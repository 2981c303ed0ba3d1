//! At start: what an earlier life of this daemon did in EC2, which outlives it.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{AgentDriver, Loop};
use crate::{
    core::{agent::Here, time::BootTime},
    model::{Cloud, ClusterState, Grant, Phase},
};

impl AgentDriver {
    /// It is taken to be in service as long as its grant is the one under which this node serves, and the first check
    /// tells: a restart of vipd must not hang on an answer of EC2. An Elastic IP that was to leave may still be here:
    /// the removal of it that an earlier life owed is done before anything is said of it. (Nothing is left of a route.)
    pub(super) fn adopt_from_cloud(&self, l: &mut Loop, state: &ClusterState, now: BootTime) {
        let held = self.keeper.held();
        let serves =
            |g: &Grant| g.owner == self.me && g.phase == Phase::InService && g.lease_epoch == held.epoch;
        // One that is only starting is brought up anew.
        let leaves = |g: &Grant| g.owner == self.me && g.phase != Phase::Starting && !serves(g);
        for (tag, resource) in &state.resources {
            let Some(cloud) = resource.cloud() else { continue };
            let Some(placement) = state.placements.get(tag) else { continue };
            let serving = placement.grant.as_ref().is_some_and(serves);
            let leaving = placement.grant.as_ref().is_some_and(leaves);
            if !serving && !(leaving && matches!(cloud, Cloud::Eip(_))) {
                continue;
            }
            let (addresses, device) = match cloud {
                Cloud::Route(route) => match l.agent.here(&route.ip).filter(|_| l.agent.is_up(&route.ip)) {
                    Some(here) => (here.addresses.clone(), here.device.clone()),
                    None => continue,
                },
                Cloud::Eip(eip) => {
                    let listed = resource.nodes.get(&self.me).and_then(|s| s.devices.first());
                    let address = IpNet::from(IpAddr::V4(eip.address));
                    (Arc::new(address.into()), listed.cloned().unwrap_or_default())
                }
            };
            let here = Here { resource: Arc::new(resource.clone()), addresses, device };
            l.agent.found(tag.clone(), here, serving.then_some(placement.epoch), now);
            self.know(l, tag);
        }
    }
}
