//! What a resource of EC2 needs of the others (rows EC2-1, EC2-2, EC2-8).

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::{Change, Refusal, Result, Setting};
use crate::model::{Addresses, Cloud, ClusterState, Kind, Node, NodeId, NodeSettings, Resource, Tag};

/// Against a new one.
pub(super) fn check(state: &ClusterState, tag: &Tag, cloud: Cloud) -> Result<()> {
    cloud.region().map_or(Ok(()), check_region)?;
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
            if child.nodes.values().any(|s| s.physical) {
                return Err(Refusal(format!(
                    "'{}' protects a node's own address, which never moves: no route has to follow it",
                    route.ip
                )));
            }
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
            check_public(eip.address)?;
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

fn check_public(address: Ipv4Addr) -> Result<()> {
    if address.is_unspecified() || address.is_broadcast() || address.is_multicast() {
        return Err(Refusal(format!(
            "{address} is no Elastic IP: 'aws ec2 describe-addresses' lists those of the account"
        )));
    }
    Ok(())
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
    let mut followers = state.resources.values().filter(route);
    followers.try_for_each(|r| check_ipv4(&r.tag, ip, addresses))
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

/// Against a change that is made by itself, not as one of several: a route without what it leads to.
pub(super) fn check_alone(state: &ClusterState, change: &Change) -> Result<()> {
    match change {
        Change::Undepend { parent, child } if follows(state, parent, child) => {
            Err(inseparable(parent, child))
        }
        _ => Ok(()),
    }
}

/// Against the state that changes lead to: a route that was separated from what it leads to, and left so.
pub(super) fn check_together(after: &ClusterState, changes: &[Change]) -> Result<()> {
    for change in changes {
        if let Change::Undepend { parent, child } = change
            && follows(after, parent, child)
            && after.resources.get(parent).is_some_and(|r| !r.children.contains(child))
            && after.placements.get(parent).is_some_and(|p| !p.deleting)
        {
            return Err(inseparable(parent, child));
        }
    }
    Ok(())
}

/// Against deleting an IP resource alone, to which a route leads: they cannot be separated first.
pub(super) fn check_unfollowed(state: &ClusterState, parent: &Tag, child: &Tag) -> Result<()> {
    if follows(state, parent, child) {
        return Err(Refusal(format!(
            "'{parent}' sees to the routes to '{child}': 'vipctl delete {parent}' deletes it first, 'vipctl delete \
             {child} --hierarchy' deletes all that depends on each other"
        )));
    }
    Ok(())
}

fn follows(state: &ClusterState, parent: &Tag, child: &Tag) -> bool {
    let followed = state.resources.get(parent).and_then(Resource::cloud).and_then(Cloud::followed);
    followed == Some(child)
}

fn inseparable(parent: &Tag, child: &Tag) -> Refusal {
    Refusal(format!(
        "'{parent}' sees to the routes to '{child}' and cannot be without it: 'vipctl delete {parent}' deletes it"
    ))
}

/// Against two new ones at once of which each alone would do.
pub(super) fn check_distinct(new: &[Resource]) -> Result<()> {
    let mut seen: BTreeMap<String, &Tag> = BTreeMap::new();
    for resource in new {
        let what = match resource.cloud() {
            Some(Cloud::Route(route)) => format!("the routes to '{}'", route.ip),
            Some(Cloud::Eip(eip)) => format!("the Elastic IP {}", eip.address),
            None => continue,
        };
        if let Some(other) = seen.get(&what) {
            return Err(Refusal(format!(
                "'{other}' and '{}' are both for {what}: keep one of them",
                resource.tag
            )));
        }
        seen.insert(what, &resource.tag);
    }
    let mut taken: BTreeMap<(NodeId, &String), &Tag> = BTreeMap::new();
    for resource in new.iter().filter(|r| matches!(r.kind, Kind::Ec2Eip(_))) {
        let all = resource.nodes.iter().flat_map(|(id, s)| s.devices.iter().map(|d| (*id, d)));
        for (id, device) in all {
            if let Some(other) = taken.insert((id, device), &resource.tag).filter(|t| **t != resource.tag) {
                return Err(Refusal(format!(
                    "{device} may carry '{other}' and '{}' on the same node, and an interface has one Elastic IP: give each \
                     another one",
                    resource.tag
                )));
            }
        }
    }
    Ok(())
}

/// The longest name of a region that there is has 16 characters.
const REGION_MAX: usize = 32;

/// It becomes a part of the name of a host.
fn check_region(region: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let sound = region.starts_with(|c: char| c.is_ascii_lowercase()) && !region.ends_with('-');
    if sound && region.len() <= REGION_MAX && region.chars().all(fits) {
        return Ok(());
    }
    Err(Refusal(format!(
        "'{region}' is no region of AWS: write it as eu-central-1, or leave it out for the one that the nodes are in"
    )))
}

/// Against a setting of the resource as a whole that is for addresses.
pub(super) fn check_setting(resource: &Resource, setting: &Setting) -> Result<()> {
    let Some(cloud) = resource.cloud() else { return Ok(()) };
    let key = match setting {
        Setting::OnConflict(_) => "on-conflict",
        Setting::Accept(_) => "accept",
        Setting::Source(_) => "source",
        Setting::Switchback(_)
        | Setting::Priority(_)
        | Setting::Devices(_)
        | Setting::RestoreAndRecover(_)
        | Setting::Subnets(_)
        | Setting::Stickiness(_)
        | Setting::MigrationThreshold(_)
        | Setting::FailureTimeout(_)
        | Setting::ServiceFailfast(_)
        | Setting::NodeFailfast(_)
        | Setting::Maintenance(_)
        | Setting::IgnoresConnectivity(_) => return Ok(()),
    };
    let remedy = match cloud {
        Cloud::Route(route) => format!("set it for '{}', to which the routes lead", route.ip),
        Cloud::Eip(_) => "an Elastic IP is on no interface of a node, but in EC2".to_owned(),
    };
    Err(Refusal(format!(
        "{key} is about addresses of a node, and '{}' is of the kind {}: {remedy}",
        resource.tag,
        resource.kind.name()
    )))
}
