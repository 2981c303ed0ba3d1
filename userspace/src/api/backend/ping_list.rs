//! `ping-list`: per node and subnet, the addresses that a connectivity check pings (row IP-11).

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Context, Member, Result, lookup};
use crate::{
    api::{Answer, ApiError, PingListOf},
    core::change::Change,
    model::{ClusterState, NodeId},
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
        self.change(subnet, addresses, node, |list, _| {
            for address in addresses {
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
        Ok(Answer::PingLists(now.collect()))
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
    PingListOf { node: state.node_name(node), subnet, addresses: addresses.to_vec() }
}

fn check(subnet: IpNet, address: IpAddr) -> Result<()> {
    let no = |reason: &str| {
        Err(ApiError::refused(format!("{address} cannot be in a ping list: {reason}; name single hosts")))
    };
    if address.is_ipv4() != subnet.addr().is_ipv4() {
        return no(&format!("it is not of the address family of {subnet}"));
    }
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        return no("it is no other host's address");
    }
    if address == subnet.broadcast() && address.is_ipv4() && subnet.prefix_len() < 31 {
        return no("it is the broadcast address, which is pinged when no list is given");
    }
    Ok(())
}
