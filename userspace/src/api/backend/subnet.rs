//! `subnet`: which subnets are watched, and what each node says of them (rows NM-3, NM-4).

use ipnet::IpNet;

use super::{Context, Result};
use crate::{
    api::{Answer, ApiError, MonitorSubnet, SubnetOf, SubnetStatus, facts::Facts},
    core::change::Change,
    model::{ClusterState, MonitoredSubnet, NodeId, Resource},
};

impl Context {
    pub(super) fn subnet_list(&self) -> Result<Answer> {
        let member = self.member()?;
        Ok(Answer::Subnets(list(&member.state(), &self.facts.borrow(), member.id)))
    }

    pub(super) async fn subnet_monitor(&self, wanted: MonitorSubnet) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        let subnet = wanted.subnet.trunc();
        let known = state.subnets.get(&subnet);
        let MonitoredSubnet { targets, interval, fall, rise } = known.cloned().unwrap_or_default();
        let settings = MonitoredSubnet {
            targets: wanted.targets.unwrap_or(targets),
            interval: wanted.interval.unwrap_or(interval),
            fall: wanted.fall.unwrap_or(fall),
            rise: wanted.rise.unwrap_or(rise),
        };
        let how = if known.is_some() { "is monitored in another way now" } else { "is monitored" };
        member.propose(vec![Change::MonitorSubnet { subnet, settings }]).await?;
        Ok(Answer::done(format!(
            "{subnet} {how}; 'vipctl subnet list' shows it, 'vipctl set TAG subnets={subnet}' makes a resource need it"
        )))
    }

    pub(super) async fn subnet_unmonitor(&self, subnet: IpNet) -> Result<Answer> {
        let member = self.member()?;
        let subnet = subnet.trunc();
        if !member.fresh().await?.subnets.contains_key(&subnet) {
            return Err(ApiError::refused(format!(
                "{subnet} is not monitored: 'vipctl subnet list' shows those that are"
            )));
        }
        member.propose(vec![Change::UnmonitorSubnet { subnet }]).await?;
        Ok(Answer::done(format!("{subnet} is no longer monitored")))
    }
}

fn list(state: &ClusterState, facts: &Facts, me: NodeId) -> Vec<SubnetOf> {
    let all = statuses(state, facts, me);
    let of = |(subnet, settings): (&IpNet, &MonitoredSubnet)| SubnetOf {
        subnet: *subnet,
        targets: settings.targets.clone(),
        interval_ms: u64::try_from(settings.interval.as_millis()).unwrap_or(u64::MAX),
        fall: settings.fall,
        rise: settings.rise,
        needed_by: needing(state, subnet).map(|r| r.tag.clone()).collect(),
        nodes: all.iter().filter(|s| s.subnet == *subnet).cloned().collect(),
    };
    state.subnets.iter().map(of).collect()
}

/// Each monitored subnet on each node that may hold addresses.
pub(super) fn statuses(state: &ClusterState, facts: &Facts, me: NodeId) -> Vec<SubnetStatus> {
    let nodes = || state.nodes.values().filter(|n| !n.witness);
    let each =
        state.subnets.iter().flat_map(|(subnet, settings)| nodes().map(move |n| (subnet, settings, n)));
    let of = |(subnet, settings, node): (&IpNet, &MonitoredSubnet, &crate::model::Node)| {
        let alive = node.id == me || facts.peers.get(&node.id).is_some_and(|p| p.alive);
        let reason = state.subnet_down(node.id, subnet);
        SubnetStatus {
            subnet: *subnet,
            node: node.name.clone(),
            state: match reason {
                _ if !alive => "unknown".to_owned(),
                Some(_) => "down".to_owned(),
                None => "up".to_owned(),
            },
            reason: reason
                .map(|down| down.reason.clone())
                .or_else(|| (!alive).then(|| "the node is silent".to_owned())),
            targets: settings.targets.clone(),
        }
    };
    each.map(of).collect()
}

fn needing<'a>(state: &'a ClusterState, subnet: &IpNet) -> impl Iterator<Item = &'a Resource> {
    let subnet = *subnet;
    state.resources.values().filter(move |r| r.monitored.contains(&subnet))
}

/// Why a resource cannot be on a node for want of a subnet.
pub(super) fn lacking(state: &ClusterState, resource: &Resource, node: NodeId) -> Option<String> {
    let lost = state.lacking_subnets(resource, node);
    let each: Vec<String> =
        lost.map(|(subnet, down)| format!("subnet {subnet} is down ({})", down.reason)).collect();
    (!each.is_empty()).then(|| each.join(", "))
}

/// Why no node can start the resource for want of subnets; None when some node has them all.
pub(super) fn lacking_everywhere(state: &ClusterState, resource: &Resource) -> Option<String> {
    let each = resource.nodes.keys().map(|id| {
        let why = lacking(state, resource, *id)?;
        Some(format!("{}: {why}", state.node_name(*id)))
    });
    let all = each.collect::<Option<Vec<_>>>()?;
    (!all.is_empty()).then(|| all.join("; "))
}

/// Subnets that are down where a resource needs them, and resources that can be nowhere.
pub(super) fn warnings(state: &ClusterState) -> Vec<String> {
    let mut found = Vec::new();
    for (node, down) in &state.subnets_down {
        for (subnet, down) in down {
            let here = needing(state, subnet).filter(|r| r.nodes.contains_key(node));
            let tags: Vec<&str> = here.map(|r| r.tag.as_str()).collect();
            if !tags.is_empty() {
                found.push(format!(
                    "subnet {subnet} is down on node {} ({}): {} cannot start there",
                    state.node_name(*node),
                    down.reason,
                    tags.join(", ")
                ));
            }
        }
    }
    for resource in state.resources.values() {
        let idle = state.placements.get(&resource.tag).is_some_and(|p| p.grant.is_none() && p.is_wanted());
        if idle && let Some(why) = lacking_everywhere(state, resource) {
            found.push(format!(
                "{} can start on no node ({why}): mend the subnets, or take them from it with 'vipctl set {} subnets='",
                resource.tag, resource.tag
            ));
        }
    }
    found
}
