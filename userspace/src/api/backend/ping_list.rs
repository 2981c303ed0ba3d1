//! `ping-list`: per node and subnet, the addresses that a connectivity check pings (row IP-11).

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{Context, Member, Result, lookup};
use crate::{
    act::address::PROTOCOL,
    api::{Answer, ApiError, PingListOf},
    core::change::Change,
    model::{ClusterState, Node, NodeId, Resource},
};

impl Context {
    pub(super) fn ping_list_show(&self, subnet: Option<IpNet>, node: Option<&str>) -> Result<Answer> {
        let state = self.member()?.state();
        let node = match node {
            None | Some("all") => None,
            Some(name) => Some(lookup::node(&state, name)?.id),
        };
        Ok(Answer::PingLists(lists(&state, subnet.map(|s| s.trunc()), node)))
    }

    pub(super) async fn ping_list_add(
        &self,
        subnet: IpNet,
        addresses: &[IpAddr],
        node: Option<&str>,
    ) -> Result<Answer> {
        let subnet = subnet.trunc();
        for address in addresses {
            check(subnet, *address)?;
        }
        let member = self.member()?;
        let state = member.fresh().await?;
        for address in addresses {
            check_virtual(&state, *address)?;
        }
        let own = self.own_addresses().await?;
        self.change(subnet, addresses, node, |list, name| {
            let node = state.node_named(name);
            for address in addresses {
                if node.is_some_and(|n| reaches(n, *address) || (n.id == member.id && own.contains(address))) {
                    return Err(ApiError::refused(format!(
                        "{address} is an address of node '{name}' itself, and a node's own answers never count: leave \
                         it out, or name other nodes with --node"
                    )));
                }
                if !list.contains(address) {
                    list.push(*address);
                }
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn ping_list_remove(
        &self,
        subnet: IpNet,
        addresses: &[IpAddr],
        node: Option<&str>,
    ) -> Result<Answer> {
        let subnet = subnet.trunc();
        self.change(subnet, addresses, node, |list, name| {
            if let Some(missing) = addresses.iter().find(|a| !list.contains(a)) {
                return Err(ApiError::refused(format!(
                    "{missing} is not in the ping list of {subnet} on node '{name}': 'vipctl ping-list show {subnet}' \
                     shows it"
                )));
            }
            list.retain(|a| !addresses.contains(a));
            Ok(())
        })
        .await
    }

    /// Changes the list of one node (this one unless named) or of all.
    async fn change(
        &self,
        subnet: IpNet,
        addresses: &[IpAddr],
        node: Option<&str>,
        edit: impl Fn(&mut Vec<IpAddr>, &str) -> Result<()>,
    ) -> Result<Answer> {
        if addresses.is_empty() {
            return Err(ApiError::usage("no address is given: name those to add or remove"));
        }
        let member = self.member()?;
        let state = member.fresh().await?;
        let mut changes = Vec::new();
        for id in targets(&state, &member, node)? {
            let mut list = state.ping_lists.get(&(id, subnet)).cloned().unwrap_or_default();
            edit(&mut list, &state.node_name(id))?;
            changes.push(Change::SetPingList { node: id, subnet, addresses: list });
        }
        let of: Vec<NodeId> = changes
            .iter()
            .filter_map(|c| match c {
                Change::SetPingList { node, .. } => Some(*node),
                _ => None,
            })
            .collect();
        member.propose(changes).await?;
        let state = member.state();
        let now = of.into_iter().flat_map(|id| {
            let found = lists(&state, Some(subnet), Some(id));
            // An emptied list is shown empty.
            if found.is_empty() { vec![list_of(&state, id, subnet, &[])] } else { found }
        });
        let mut now: Vec<PingListOf> = now.collect();
        let used = |list: &PingListOf| {
            let node = state.node_named(&list.node).map(|n| n.id);
            let here = |r: &&Resource| node.is_some_and(|id| r.nodes.contains_key(&id));
            state.resources.values().filter(here).any(|r| r.addresses().subnets().any(|s| s == subnet))
        };
        for list in now.iter_mut().filter(|list| !list.addresses.is_empty()) {
            if !used(list) {
                list.hint = Some(format!(
                    "no resource of node '{}' has an address of {subnet}: the list waits for one{}",
                    list.node,
                    nearby(&state, subnet)
                ));
            }
        }
        Ok(Answer::PingLists(now))
    }

    /// All that this host has and vipd did not assign.
    async fn own_addresses(&self) -> Result<BTreeSet<IpAddr>> {
        if self.config.witness {
            return Ok(BTreeSet::new());
        }
        let (_, assigned) = self.look().await?;
        let own = assigned.iter().filter(|a| a.protocol != Some(PROTOCOL));
        Ok(own.map(|a| a.address.addr()).collect())
    }
}

fn targets(state: &ClusterState, member: &Member, node: Option<&str>) -> Result<Vec<NodeId>> {
    match node {
        Some("all") => Ok(state.nodes.values().filter(|n| !n.witness).map(|n| n.id).collect()),
        Some(name) => Ok(vec![lookup::holder(state, name)?.id]),
        None if state.nodes.get(&member.id).is_some_and(|n| n.witness) => Err(ApiError::refused(
            "this node is a witness, which needs no ping list: name another with --node NODE, or --node all",
        )),
        None => Ok(vec![member.id]),
    }
}

/// The lists of a subnet (or all) on a node (or all).
pub(super) fn lists(state: &ClusterState, subnet: Option<IpNet>, node: Option<NodeId>) -> Vec<PingListOf> {
    state
        .ping_lists
        .iter()
        .filter(|((n, net), _)| node.is_none_or(|id| id == *n) && subnet.is_none_or(|s| s == *net))
        .map(|((n, net), addresses)| list_of(state, *n, *net, addresses))
        .collect()
}

fn list_of(state: &ClusterState, node: NodeId, subnet: IpNet, addresses: &[IpAddr]) -> PingListOf {
    PingListOf { node: state.node_name(node), subnet, addresses: addresses.to_vec(), hint: None }
}

/// Subnets of resources that are alike: a slip of the prefix length is easily made.
fn nearby(state: &ClusterState, subnet: IpNet) -> String {
    let alike = |other: &IpNet| other.contains(&subnet) || subnet.contains(other);
    let found: BTreeSet<String> = state
        .resources
        .values()
        .flat_map(|r| r.addresses().subnets())
        .filter(|s| *s != subnet && alike(s))
        .map(|s| s.to_string())
        .take(3)
        .collect();
    match found.is_empty() {
        true => String::new(),
        false => format!("; is {} meant?", found.into_iter().collect::<Vec<_>>().join(" or ")),
    }
}

/// The cluster reaches the node by this address.
fn reaches(node: &Node, address: IpAddr) -> bool {
    node.rpc.ip() == address || node.paths.iter().any(|p| p.ip() == address)
}

fn check_virtual(state: &ClusterState, address: IpAddr) -> Result<()> {
    match state.resource_with(&[address].into_iter().collect()) {
        Some(resource) if !resource.nodes.values().any(|s| s.physical) => Err(ApiError::refused(format!(
            "{address} is a virtual address itself (resource '{}'), which may be on the node that pings it: name \
             routers or other hosts that stay where they are",
            resource.tag
        ))),
        Some(_) | None => Ok(()),
    }
}

fn check(subnet: IpNet, address: IpAddr) -> Result<()> {
    let no = |reason: &str| {
        Err(ApiError::refused(format!("{address} cannot be in a ping list: {reason}; name single hosts")))
    };
    if address.is_ipv4() != subnet.addr().is_ipv4() {
        return no(&format!("it is not of the address family of {subnet}"));
    }
    let everybody = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if everybody {
        return no("it is the broadcast address, which is pinged when no list is given");
    }
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        return no("it is no other host's address");
    }
    if address == subnet.broadcast() && address.is_ipv4() && subnet.prefix_len() < 31 {
        return no("it is the broadcast address, which is pinged when no list is given");
    }
    if address == subnet.network() && address.is_ipv4() && subnet.prefix_len() < 31 {
        return no(&format!("it is the network address of {subnet}"));
    }
    Ok(())
}
