//! Changes about the hosts that every node pings (row CL-8).

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    Applied, Refusal, Result, no_node,
    subnets::{check_pace, check_single_host},
};
use crate::model::{ClusterState, Connectivity, NodeId, TwoNodes};

/// Each is pinged in every poll.
const MOST_HOSTS: usize = 64;

pub(super) fn set(state: &mut ClusterState, settings: &Connectivity) -> Result<Applied> {
    check_pace("the connectivity hosts", settings.interval, settings.fall, settings.rise)?;
    if settings.hosts.len() > MOST_HOSTS {
        return Err(Refusal(format!(
            "{} hosts are too many: name {MOST_HOSTS} at most",
            settings.hosts.len()
        )));
    }
    if settings.hosts.is_empty() && state.defaults.two_nodes == TwoNodes::TieBreaker {
        return Err(Refusal::new(
            "the last connectivity host is the tie-breaker of two voters (two-nodes=tie-breaker): name another with \
             'vipctl connectivity add HOST' first, or end that with 'vipctl cluster set two-nodes=off'",
        ));
    }
    for host in &settings.hosts {
        check_single_host(*host)?;
        if let Some(resource) = state.resources.values().find(|r| r.addresses().contains(*host)) {
            return Err(Refusal(format!(
                "{host} is a virtual address (of '{}'), which this cluster itself answers for: name hosts outside",
                resource.tag
            )));
        }
    }
    state.connectivity = settings.clone();
    for lost in state.unreached.values_mut() {
        lost.retain(|host| settings.hosts.contains(host));
    }
    state.unreached.retain(|_, lost| !lost.is_empty());
    Ok(Applied::Done)
}

pub(super) fn report(
    state: &mut ClusterState,
    node: NodeId,
    unreached: &BTreeSet<IpAddr>,
) -> Result<Applied> {
    if !state.nodes.contains_key(&node) {
        return Err(no_node(node));
    }
    let hosts = &state.connectivity.hosts;
    let lost: BTreeSet<IpAddr> = unreached.iter().filter(|h| hosts.contains(*h)).copied().collect();
    if lost.is_empty() {
        state.unreached.remove(&node);
    } else {
        state.unreached.insert(node, lost);
    }
    Ok(Applied::Done)
}
