//! What a resource of EC2 needs of the others (rows EC2-1, EC2-2, EC2-8).

use super::{Refusal, Result};
use crate::model::{Addresses, Cloud, ClusterState, Kind, Node, NodeSettings, Resource, Tag};

/// Against a new one.
pub(super) fn check(state: &ClusterState, tag: &Tag, cloud: Cloud) -> Result<()> {
    match cloud {
        Cloud::Route(route) => {
            let Some(child) = state.resources.get(&route.ip) else {
                return Err(Refusal(format!(
                    "there is no resource '{}' to which routes could lead: create it with 'vipctl create ip' first",
                    route.ip
                )));
            };
            let Some(ip) = child.ip() else {
                return Err(Refusal(format!(
                    "'{}' is of the kind {}, and routes lead to an IP resource: name one with --ip",
                    route.ip,
                    child.kind.name()
                )));
            };
            check_ipv4(tag, &route.ip, &ip.addresses)?;
            let same = |r: &&Resource| matches!(&r.kind, Kind::Ec2Route(other) if other.ip == route.ip);
            match state.resources.values().find(same) {
                Some(other) => Err(Refusal(format!(
                    "'{}' sees to the routes to '{}' already: 'vipctl show {}' shows it",
                    other.tag, route.ip, other.tag
                ))),
                None => Ok(()),
            }
        }
        Cloud::Eip(eip) => {
            let same = |r: &&Resource| matches!(&r.kind, Kind::Ec2Eip(other) if other.address == eip.address);
            match state.resources.values().find(same) {
                Some(other) => Err(Refusal(format!(
                    "the Elastic IP {} belongs to the resource '{}' already: 'vipctl show {}' shows it",
                    eip.address, other.tag, other.tag
                ))),
                None => Ok(()),
            }
        }
    }
}

fn check_ipv4(tag: &Tag, ip: &Tag, addresses: &Addresses) -> Result<()> {
    match addresses.subnets().find(|s| s.addr().is_ipv6()) {
        Some(subnet) => Err(Refusal(format!(
            "'{ip}' has addresses in {subnet}, and '{tag}' sees to routes of IPv4 addresses only: put them into \
             resources of their own"
        ))),
        None => Ok(()),
    }
}

/// Against other addresses of an IP resource to which a route leads.
pub(super) fn check_followed(state: &ClusterState, ip: &Tag, addresses: &Addresses) -> Result<()> {
    let route = |r: &&Resource| matches!(&r.kind, Kind::Ec2Route(route) if route.ip == *ip);
    let followers = state.resources.values().filter(route);
    followers.map(|r| check_ipv4(&r.tag, ip, addresses)).collect()
}

/// Against settings on one node.
pub(super) fn check_settings(
    state: &ClusterState,
    resource: &Resource,
    node: &Node,
    settings: &NodeSettings,
) -> Result<()> {
    let (tag, name) = (&resource.tag, &node.name);
    let Some(cloud) = resource.cloud() else { return Ok(()) };
    if settings.physical || settings.source {
        return Err(Refusal(format!(
            "'{tag}' is of the kind {} and has no address on node '{name}': leave physical and source out",
            resource.kind.name()
        )));
    }
    match cloud {
        Cloud::Route(route) if !settings.devices.is_empty() => Err(Refusal(format!(
            "'{tag}' follows '{0}' to the interface that carries it on node '{name}': leave --dev out, or set it for '{0}'",
            route.ip
        ))),
        Cloud::Route(_) => Ok(()),
        Cloud::Eip(_) => check_apart(state, tag, node, settings),
    }
}

/// Two of them on one interface would take it from each other for ever.
fn check_apart(state: &ClusterState, tag: &Tag, node: &Node, settings: &NodeSettings) -> Result<()> {
    let eips = state.resources.values().filter(|r| r.tag != *tag && matches!(r.kind, Kind::Ec2Eip(_)));
    let there = eips.filter_map(|r| Some((&r.tag, r.nodes.get(&node.id)?)));
    let both = |(other, s): (&Tag, &NodeSettings)| {
        let device = settings.devices.iter().find(|d| s.devices.contains(d))?;
        Some((other.clone(), device.clone()))
    };
    match there.filter_map(both).next() {
        Some((other, device)) => Err(Refusal(format!(
            "{device} of node '{}' may carry '{other}' already, and an interface has one Elastic IP: name another one for \
             '{tag}' with --dev",
            node.name
        ))),
        None => Ok(()),
    }
}

/// Against a route without what it leads to.
pub(super) fn check_separable(parent: &Resource, child: &Tag) -> Result<()> {
    match &parent.kind {
        Kind::Ec2Route(route) if route.ip == *child => Err(Refusal(format!(
            "'{0}' sees to the routes to '{child}' and cannot be without it: 'vipctl delete {0}' deletes it",
            parent.tag
        ))),
        Kind::Ip(_) | Kind::Ec2Route(_) | Kind::Ec2Eip(_) => Ok(()),
    }
}
