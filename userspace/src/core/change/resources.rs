//! Changes that operators ask for: resources, their settings, where they should be.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;

use super::{Applied, Refusal, Result, cloud, no_node, no_resource, placement, subnets};
use crate::model::{
    Addresses, ClusterState, Desired, Kind, Node, NodeId, NodeSettings, Placement, Resource, Standing, Tag,
};

/// The longest name of a network interface (IFNAMSIZ less its end mark).
const DEVICE_NAME_MAX: usize = 15;

/// The most addresses of one resource.
pub const ADDRESSES_MAX: u64 = 1 << 20;

pub(super) fn create(state: &mut ClusterState, resource: &Resource, on: NodeId) -> Result<Applied> {
    check_new(state, resource, on)?;
    check_free(state, resource)?;
    add(state, resource, on);
    Ok(Applied::Done)
}

/// All that can be said against a new resource but what others have.
pub(super) fn check_new(state: &ClusterState, resource: &Resource, on: NodeId) -> Result<()> {
    let tag = &resource.tag;
    if state.resources.contains_key(tag) {
        return Err(Refusal(format!("the tag '{tag}' is taken: choose another with --tag")));
    }
    match resource.cloud() {
        None => check_address(state, resource)?,
        Some(cloud) => cloud::check(state, tag, cloud)?,
    }
    subnets::needed(state, tag, resource.monitored.iter().copied())?;
    if resource.nodes.is_empty() {
        return Err(Refusal(format!("'{tag}' has no node: it must be extended to at least one")));
    }
    let mut priorities = BTreeMap::new();
    for (id, settings) in &resource.nodes {
        let node = holder(state, tag, *id)?;
        check_settings(state, resource, node, settings)?;
        if let Some(other) = priorities.insert(settings.priority, *id) {
            return Err(same_priority(state, tag, settings.priority, other));
        }
    }
    let first = holder(state, tag, on)?;
    if !resource.nodes.contains_key(&on) {
        return Err(Refusal(format!(
            "'{tag}' is not extended to node '{}', so it cannot start there: extend it to that node or start it elsewhere",
            first.name
        )));
    }
    if first.standing != Standing::Member {
        return Err(Refusal(format!(
            "node '{}' is deposed: create '{tag}' on another node, or wait until it has rejoined",
            first.name
        )));
    }
    Ok(())
}

/// A checked one.
pub(super) fn add(state: &mut ClusterState, resource: &Resource, on: NodeId) {
    let tag = &resource.tag;
    state
        .placements
        .insert(tag.clone(), Placement::new(Desired::InService { on: Some(on) }, state.spent_epoch));
    state.last_resource += 1;
    let id = state.last_resource;
    let monitored = resource.monitored.iter().map(IpNet::trunc).collect();
    // What it depends on, or what depends on it, is said by changes of their own.
    let (children, parents) = (BTreeSet::new(), BTreeSet::new());
    state.resources.insert(tag.clone(), Resource { id, monitored, children, parents, ..resource.clone() });
    for id in resource.nodes.keys() {
        copy_ping_lists(state, resource, *id);
    }
}

/// Replaces the addresses of a resource, also while it is in service.
pub(super) fn set_addresses(state: &mut ClusterState, tag: &Tag, addresses: &Addresses) -> Result<Applied> {
    let mut resource = kept(state, tag)?.clone();
    if resource.nodes.values().any(|s| s.physical) {
        return Err(Refusal(format!(
            "'{tag}' protects a stationary address: its address is what it is; create another resource"
        )));
    }
    let Some(ip) = resource.ip_mut() else { return Err(no_ip(&resource)) };
    let former = std::mem::replace(&mut ip.addresses, addresses.clone());
    check_address(state, &resource)?;
    check_free(state, &resource)?;
    cloud::check_followed(state, tag, addresses)?;
    let placement = placement(state, tag)?;
    if former == *addresses {
        return Ok(Applied::Done);
    }
    placement.alterations += 1;
    if placement.grant.is_some() {
        placement.retired = placement.retired.union(&former.hosts()).difference(&addresses.hosts());
    } else {
        placement.forget_amendments();
    }
    for id in resource.nodes.keys() {
        copy_ping_lists(state, &resource, *id);
    }
    state.resources.insert(tag.clone(), resource);
    Ok(Applied::Done)
}

pub(super) fn set_ping_list(
    state: &mut ClusterState,
    node: NodeId,
    subnet: IpNet,
    addresses: &[IpAddr],
) -> Result<Applied> {
    if !state.nodes.contains_key(&node) {
        return Err(no_node(node));
    }
    let subnet = subnet.trunc();
    let mut list: Vec<IpAddr> = Vec::new();
    for address in addresses {
        if address.is_ipv4() != subnet.addr().is_ipv4() {
            return Err(Refusal(format!(
                "{address} cannot be pinged from an address of {subnet}: the ping list needs addresses of the same family"
            )));
        }
        if unusable(address) {
            return Err(Refusal(format!(
                "{address} is no host's address: the ping list needs addresses of single hosts"
            )));
        }
        if !list.contains(address) {
            list.push(*address);
        }
    }
    if list.is_empty() {
        state.ping_lists.remove(&(node, subnet));
    } else {
        state.ping_lists.insert((node, subnet), list);
    }
    Ok(Applied::Done)
}

/// The resource, unless it is being deleted.
pub(super) fn kept<'a>(state: &'a ClusterState, tag: &Tag) -> Result<&'a Resource> {
    let resource = state.resources.get(tag).ok_or_else(|| no_resource(tag))?;
    if state.placements.get(tag).is_some_and(|p| p.deleting) {
        return Err(Refusal(format!(
            "'{tag}' is being deleted: wait until 'vipctl status' no longer shows it, then create it anew"
        )));
    }
    Ok(resource)
}

/// The node, if it is one that may hold addresses.
pub(super) fn holder<'a>(state: &'a ClusterState, tag: &Tag, id: NodeId) -> Result<&'a Node> {
    let node = state.nodes.get(&id).ok_or_else(|| no_node(id))?;
    if node.witness {
        return Err(Refusal(format!(
            "node '{}' is a witness and holds no addresses: extend '{tag}' to another node",
            node.name
        )));
    }
    match node.standing {
        Standing::Joining => Err(Refusal(format!(
            "node '{}' is still joining: use it for '{tag}' once 'vipctl status' shows it as a member",
            node.name
        ))),
        Standing::Member | Standing::Deposed => Ok(node),
    }
}

pub(super) fn extended(state: &ClusterState, resource: &Resource, id: NodeId) -> Result<()> {
    let node = state.nodes.get(&id).ok_or_else(|| no_node(id))?;
    if resource.nodes.contains_key(&id) {
        return Ok(());
    }
    let (tag, name) = (&resource.tag, &node.name);
    Err(Refusal(format!(
        "'{tag}' is not extended to node '{name}': 'vipctl extend {tag} --to {name}' does it"
    )))
}

fn check_address(state: &ClusterState, resource: &Resource) -> Result<()> {
    let tag = &resource.tag;
    let addresses = resource.addresses();
    let hosts = addresses.hosts();
    let Some(address) = hosts.first() else {
        return Err(Refusal(format!("'{tag}' has no address: give at least one")));
    };
    if hosts.count() > ADDRESSES_MAX {
        return Err(Refusal(format!(
            "'{tag}' would have {} addresses, and {ADDRESSES_MAX} are the limit: split it",
            hosts.count()
        )));
    }
    let bad = |ip: IpAddr| unusable(&ip) || ip.is_loopback();
    if let Some(range) = hosts.ranges().iter().find(|r| bad(r.first()) || bad(r.last())) {
        return Err(Refusal(format!(
            "{range} cannot be a virtual address: use an address of a single host in the subnet"
        )));
    }
    let physical = resource.nodes.values().any(|s| s.physical);
    let own = |n: &&Node| hosts.contains(n.rpc.ip()) || n.paths.iter().any(|p| hosts.contains(p.ip()));
    if let Some(node) = state.nodes.values().find(own).filter(|_| !physical) {
        let own = |ip: &IpAddr| hosts.contains(*ip);
        let its = node.paths.iter().map(SocketAddr::ip).chain([node.rpc.ip()]).find(own).unwrap_or(address);
        return Err(Refusal(format!(
            "{its} is the stationary address by which the cluster reaches node '{}': use another for '{tag}'",
            node.name
        )));
    }
    Ok(())
}

/// No other resource has one of its addresses.
fn check_free(state: &ClusterState, resource: &Resource) -> Result<()> {
    let hosts = resource.addresses().hosts();
    for other in state.resources.values().filter(|r| r.tag != resource.tag) {
        let both = hosts.intersection(&other.addresses().hosts());
        if let Some(address) = both.first() {
            return Err(belongs(address, &other.tag));
        }
    }
    check_retired(state, resource)
}

/// An owner may still answer for what was taken from its resource.
pub(super) fn check_retired(state: &ClusterState, resource: &Resource) -> Result<()> {
    let hosts = resource.addresses().hosts();
    let others = state.placements.iter().filter(|(tag, p)| **tag != resource.tag && !p.retired.is_empty());
    for (tag, placement) in others {
        if let Some(address) = hosts.intersection(&placement.retired).first() {
            return Err(Refusal(format!(
                "{address} was taken from '{tag}' and its owner has not said yet that it is gone: try again in a moment"
            )));
        }
    }
    Ok(())
}

/// What is asked for is for IP resources only.
pub(super) fn no_ip(resource: &Resource) -> Refusal {
    Refusal(format!(
        "'{}' is no IP resource but of the kind {}: it has no addresses of its own",
        resource.tag,
        resource.kind.name()
    ))
}

pub(super) fn belongs(address: IpAddr, tag: &Tag) -> Refusal {
    Refusal(format!(
        "{address} belongs to the resource '{tag}': use another address, or delete that resource first"
    ))
}

fn unusable(address: &IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    address.is_unspecified() || address.is_multicast() || broadcast
}

pub(super) fn check_settings(
    state: &ClusterState,
    resource: &Resource,
    node: &Node,
    settings: &NodeSettings,
) -> Result<()> {
    let (tag, name) = (&resource.tag, &node.name);
    if !(1..=999).contains(&settings.priority) {
        return Err(Refusal(format!(
            "priority {} of '{tag}' on node '{name}' is out of range: use 1 (best) to 999",
            settings.priority
        )));
    }
    cloud::check_settings(state, resource, node, settings)?;
    if settings.devices.is_empty() && !matches!(resource.kind, Kind::Ec2Route(_)) {
        return Err(Refusal(format!(
            "'{tag}' has no interface on node '{name}': name at least one with --dev"
        )));
    }
    let mut seen = BTreeSet::new();
    // The whole subnet of an address on the loopback becomes local to the host.
    if settings.devices.iter().any(|d| d == "lo") {
        return Err(Refusal(
            "'lo' is the loopback, which no network hears: 'vipctl interfaces' lists those that may carry an \
             address"
                .to_owned(),
        ));
    }
    for device in &settings.devices {
        let bad = |c: char| c.is_whitespace() || c == '/';
        if device.is_empty() || device.len() > DEVICE_NAME_MAX || device.contains(bad) {
            return Err(Refusal(format!(
                "'{device}' is no name of an interface ('{tag}' on node '{name}'): 'vipctl interfaces' lists them"
            )));
        }
        if !seen.insert(device) {
            return Err(Refusal(format!(
                "interface '{device}' is listed twice for '{tag}' on node '{name}': list each once, the best first"
            )));
        }
    }
    Ok(())
}

pub(super) fn check_priority_free(
    state: &ClusterState,
    resource: &Resource,
    id: NodeId,
    priority: u16,
) -> Result<()> {
    let other = resource.nodes.iter().find(|(other, s)| **other != id && s.priority == priority);
    match other {
        Some((other, _)) => Err(same_priority(state, &resource.tag, priority, *other)),
        None => Ok(()),
    }
}

pub(super) fn same_priority(state: &ClusterState, tag: &Tag, priority: u16, other: NodeId) -> Refusal {
    Refusal(format!(
        "priority {priority} of '{tag}' is taken by node '{}': give every node a number of its own with --priority",
        state.node_name(other)
    ))
}

/// For each subnet of the resource.
pub(super) fn copy_ping_lists(state: &mut ClusterState, resource: &Resource, to: NodeId) {
    for subnet in resource.addresses().subnets() {
        copy_ping_list(state, resource, subnet, to);
    }
}

/// A node without a ping list for the resource's subnet takes that of the owner, or else of the best
/// node that has one (row IP-11).
fn copy_ping_list(state: &mut ClusterState, resource: &Resource, subnet: IpNet, to: NodeId) {
    if state.ping_lists.contains_key(&(to, subnet)) {
        return;
    }
    let owner = state.placements.get(&resource.tag).and_then(|p| p.grant).map(|g| g.owner);
    let list = resource
        .nodes
        .iter()
        .filter_map(|(id, s)| Some(((Some(*id) != owner, s.priority), state.ping_lists.get(&(*id, subnet))?)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, list)| list.clone());
    if let Some(list) = list {
        state.ping_lists.insert((to, subnet), list);
    }
}
