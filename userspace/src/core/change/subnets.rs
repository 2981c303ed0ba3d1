//! Changes about monitored subnets (rows NM-3, NM-4).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;

use super::{Applied, Refusal, Result, no_node};
use crate::model::{ClusterState, MonitoredSubnet, NodeId, Resource, SubnetDown, Tag};

/// Bounds of what an operator may set.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
const MOST_POLLS: u16 = 1000;
/// Each is pinged in every poll.
const MOST_TARGETS: usize = 64;

pub(super) fn monitor(
    state: &mut ClusterState,
    subnet: IpNet,
    settings: &MonitoredSubnet,
) -> Result<Applied> {
    let subnet = subnet.trunc();
    if subnet.addr().is_loopback() || subnet.addr().is_multicast() || subnet.prefix_len() == 0 {
        return Err(Refusal(format!(
            "{subnet} is no network that an interface belongs to: give the subnet of an interface, as 10.1.0.0/24"
        )));
    }
    check_pace(&subnet.to_string(), settings.interval, settings.fall, settings.rise)?;
    if settings.targets.len() > MOST_TARGETS {
        return Err(Refusal(format!(
            "{subnet} has {} targets: name {MOST_TARGETS} at most, one answer suffices",
            settings.targets.len()
        )));
    }
    let mut targets: Vec<IpAddr> = Vec::new();
    for target in &settings.targets {
        check_target(subnet, *target)?;
        if let Some(resource) = state.resources.values().find(|r| r.addresses().contains(*target)) {
            return Err(Refusal(format!(
                "{target} is a virtual address (of '{}'), which this cluster itself answers for: name hosts outside",
                resource.tag
            )));
        }
        if !targets.contains(target) {
            targets.push(*target);
        }
    }
    state.subnets.insert(subnet, MonitoredSubnet { targets, ..settings.clone() });
    Ok(Applied::Done)
}

/// How often something is polled, and how many polls decide.
pub(super) fn check_pace(what: &str, interval: Duration, fall: u16, rise: u16) -> Result<()> {
    let (least, most) = INTERVAL;
    if interval < least || interval > most {
        return Err(Refusal(format!(
            "{what} cannot be polled every {interval:?}: use an interval from 0.1 to 3600 seconds"
        )));
    }
    for (name, count) in [("fall", fall), ("rise", rise)] {
        if !(1..=MOST_POLLS).contains(&count) {
            return Err(Refusal(format!("{name} {count} of {what} is out of range: use 1 to {MOST_POLLS}")));
        }
    }
    Ok(())
}

/// Not an address that everybody, nobody or this host itself answers for.
pub(super) fn check_single_host(target: IpAddr) -> Result<()> {
    let broadcast = matches!(target, IpAddr::V4(v4) if v4.is_broadcast());
    if target.is_unspecified() || target.is_multicast() || target.is_loopback() || broadcast {
        return Err(Refusal(format!("{target} is no other host's address: name single hosts as targets")));
    }
    Ok(())
}

fn check_target(subnet: IpNet, target: IpAddr) -> Result<()> {
    if target.is_ipv4() != subnet.addr().is_ipv4() {
        return Err(Refusal(format!(
            "{target} cannot be pinged from an address of {subnet}: name targets of the same family"
        )));
    }
    let everybody = target.is_ipv4() && subnet.prefix_len() < 31 && target == subnet.broadcast();
    if everybody {
        return Err(Refusal(format!("{target} is no other host's address: name single hosts as targets")));
    }
    check_single_host(target)?;
    Ok(())
}

pub(super) fn unmonitor(state: &mut ClusterState, subnet: IpNet) -> Result<Applied> {
    let subnet = subnet.trunc();
    if !state.subnets.contains_key(&subnet) {
        return Ok(Applied::Done);
    }
    let needing = |r: &&Resource| r.monitored.contains(&subnet);
    let tags: Vec<String> = state.resources.values().filter(needing).map(|r| r.tag.to_string()).collect();
    if let [first, ..] = &tags[..] {
        return Err(Refusal(format!(
            "{subnet} is needed by {}: take it from there first, as 'vipctl set {first} subnets=' does",
            tags.join(", ")
        )));
    }
    state.subnets.remove(&subnet);
    for down in state.subnets_down.values_mut() {
        down.remove(&subnet);
    }
    state.subnets_down.retain(|_, down| !down.is_empty());
    Ok(Applied::Done)
}

/// All that is down on a node now, in place of what it said before.
pub(super) fn report(
    state: &mut ClusterState,
    node: NodeId,
    down: &BTreeMap<IpNet, SubnetDown>,
) -> Result<Applied> {
    if !state.nodes.contains_key(&node) {
        return Err(no_node(node));
    }
    // Others are not monitored any more.
    let down: BTreeMap<IpNet, SubnetDown> = down
        .iter()
        .filter(|(subnet, _)| state.subnets.contains_key(*subnet))
        .map(|(subnet, down)| (*subnet, down.clone()))
        .collect();
    if down.is_empty() {
        state.subnets_down.remove(&node);
    } else {
        state.subnets_down.insert(node, down);
    }
    Ok(Applied::Done)
}

/// Subnets that a resource needs must be monitored. Answers them without their host bits.
pub(super) fn needed(
    state: &ClusterState,
    tag: &Tag,
    subnets: impl IntoIterator<Item = IpNet>,
) -> Result<BTreeSet<IpNet>> {
    let subnets: BTreeSet<IpNet> = subnets.into_iter().map(|s| s.trunc()).collect();
    match subnets.iter().find(|s| !state.subnets.contains_key(*s)) {
        Some(unknown) => Err(Refusal(format!(
            "{unknown} is not monitored, so '{tag}' cannot need it: 'vipctl subnet monitor {unknown}' first"
        ))),
        None => Ok(subnets),
    }
}
