//! At start: what an earlier life of this daemon left in the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{AgentDriver, Loop};
use crate::{
    act::{accept::Placed, address, announce::Plan, datapath::Programmed},
    core::agent::Here,
    daemon::{events::About, owners::Owners},
    model::{Accept, Addresses, ClusterState, NodeId, Range, Ranges, Resource, ResourceId, Tag, with_length},
    observe::{
        clock,
        network::{Assigned, Link},
    },
};

impl AgentDriver {
    /// Served addresses go on being served; what belongs to no resource any more is removed.
    ///
    /// # Errors
    /// When the datapath or this host's addresses cannot be read.
    pub(super) async fn adopt_what_is_here(&self, l: &mut Loop, state: &ClusterState) -> anyhow::Result<()> {
        let programmed: BTreeMap<ResourceId, Programmed> =
            self.datapath.programmed()?.into_iter().map(|p| (p.group, p)).collect();
        let mut assigned = self.network.addresses().await?;
        assigned.retain(|a| a.protocol == Some(address::PROTOCOL));
        let links = self.network.links().await?;
        let owners = Owners::of(state);
        let mut of_tag: BTreeMap<&Tag, Vec<&Assigned>> = BTreeMap::new();
        let mut nobodys = Vec::new();
        let mut leftovers: BTreeMap<u32, Vec<Range>> = BTreeMap::new();
        let groups: BTreeSet<ResourceId> = state.resources.values().map(|r| r.id).collect();
        // What a resource gave up meanwhile goes when its addresses are changed, in the right order.
        let given_up: Ranges = programmed
            .values()
            .filter(|p| groups.contains(&p.group))
            .flat_map(|p| p.addresses.ranges().iter().copied())
            .collect();
        for one in &assigned {
            match owners.find(one.address.addr()) {
                Some(tag) => of_tag.entry(tag).or_default().push(one),
                None => nobodys.push(one),
            }
        }
        let mut routed: BTreeMap<&Tag, (u32, Accept, Vec<Range>)> = BTreeMap::new();
        for Placed { index, accept, addresses } in self.network.ours().await? {
            for ip in addresses.iter() {
                match owners.find(ip) {
                    Some(tag) if accept != Accept::Assign => {
                        routed.entry(tag).or_insert((index, accept, Vec::new())).2.push(ip.into());
                    }
                    None if !given_up.contains(ip) => leftovers.entry(index).or_default().push(ip.into()),
                    Some(_) | None => {}
                }
            }
        }
        let (held, now) = (self.keeper.held(), clock::now());
        let mut plan = None;
        for (tag, resource) in &state.resources {
            let gate = programmed.get(&resource.id);
            let present = of_tag.get(tag).map_or(&[][..], Vec::as_slice);
            let by_route = routed.get(tag).map(|(index, _, hosts)| (*index, Ranges::from(hosts.clone())));
            if gate.is_none() && present.is_empty() && by_route.is_none() {
                continue;
            }
            let accepted = !present.is_empty() || by_route.is_some();
            let serving =
                gate.filter(|g| accepted && g.gate_active && g.lease_epoch == held.epoch).map(|g| g.epoch);
            let resource =
                Arc::new(as_found(resource, !present.is_empty(), routed.get(tag).map(|(_, way, _)| *way)));
            let here = here(self.me, &resource, gate, (present, by_route), &nobodys, &links);
            let link = links.iter().find(|l| l.name == here.device);
            if let Some(link) = link.filter(|_| serving.is_some()) {
                let plan = plan.get_or_insert_with(|| Plan::from(&self.tunables.read()));
                self.executor.announcer().adopt(link, here.addresses.hosts().iter(), *plan);
            }
            l.agent.found(tag.clone(), here, serving, now);
            self.know(l, tag);
        }
        self.adopt_from_cloud(l, state, now);
        for (index, hosts) in leftovers {
            self.remove_leftovers(index, &hosts.into(), &links).await;
        }
        self.let_go(l, programmed.values().filter(|p| !groups.contains(&p.group))).await
    }

    /// Takes what is programmed for no resource out of the datapath, unless it is still on this host: behind
    /// a closed gate it is at least silent.
    async fn let_go(&self, l: &mut Loop, nobodys: impl Iterator<Item = &Programmed>) -> anyhow::Result<()> {
        let still = self.network.addresses().await?;
        let mut still: Ranges = still.iter().map(|a| a.address.addr()).collect();
        for Placed { addresses, .. } in self.network.ours().await? {
            still = still.union(&addresses);
        }
        for Programmed { group, addresses, .. } in nobodys {
            let (kept, gone) = (addresses.intersection(&still), addresses.difference(&still));
            if !kept.is_empty() {
                self.keeper.close(*group)?;
                l.shut.push((*group, kept));
            }
            if let Err(error) = self.datapath.unprogram(*group, &gone) {
                tracing::error!(%error, %addresses, "cannot remove a leftover from the datapath");
            }
        }
        Ok(())
    }

    /// These are gone from this host: no gate needs to keep them silent any more.
    pub(super) fn forget_shut(&self, l: &mut Loop, removed: &Addresses) {
        for (group, kept) in &mut l.shut {
            let gone = kept.intersection(&removed.hosts());
            if gone.is_empty() {
                continue;
            }
            match self.datapath.unprogram(*group, &gone) {
                Ok(()) => *kept = kept.difference(&gone),
                Err(error) => tracing::error!(%error, %gone, "cannot remove a leftover from the datapath"),
            }
        }
        l.shut.retain(|(_, kept)| !kept.is_empty());
    }

    async fn remove_leftovers(&self, index: u32, hosts: &Ranges, links: &[Link]) {
        let about = About { address: hosts.first(), ..About::default() };
        let Some(link) = links.iter().find(|l| l.index == index) else { return };
        match self.network.remove_ours(link, hosts).await {
            Ok(()) => self.events.record(
                about,
                "leftover.removed",
                format!("{hosts} on {} was left by an earlier life of vipd: removed", link.name),
            ),
            Err(error) => self.events.warn(about, "leftover.failed", error.to_string()),
        }
    }
}

/// The resource with the way of accepting that its addresses were found with: another way that was set since
/// takes effect at the next bring-up, and a restart is none.
fn as_found(resource: &Resource, assigned: bool, routed: Option<Accept>) -> Resource {
    let mut resource = resource.clone();
    let Some(ip) = resource.ip_mut() else { return resource };
    match (assigned, routed) {
        (true, None) => ip.accept = Accept::Assign,
        // Of one route for one address it cannot be told which way it was meant.
        (false, Some(way)) if ip.accept == Accept::Assign => ip.accept = way,
        (true | false, Some(_)) | (false, None) => {}
    }
    resource
}

/// What of a resource is here: what the datapath knows for it, and what is assigned of it.
fn here(
    me: NodeId,
    resource: &Arc<Resource>,
    gate: Option<&Programmed>,
    (present, by_route): (&[&Assigned], Option<(u32, Ranges)>),
    nobodys: &[&Assigned],
    links: &[Link],
) -> Here {
    let assigned: Addresses = present.iter().map(|a| a.address).collect();
    let (route, routed) = by_route.map_or((None, Ranges::default()), |(index, hosts)| (Some(index), hosts));
    let mut addresses = resource.addresses().within(&assigned.hosts().union(&routed));
    if let Some(gate) = gate {
        addresses = addresses.union(&resource.addresses().within(&gate.addresses));
        // Given up by the resource since: where it is assigned, its subnet is known.
        let given_up = gate.addresses.difference(&resource.addresses().hosts());
        let known: Addresses =
            nobodys.iter().map(|a| a.address).filter(|a| given_up.contains(a.addr())).collect();
        let unknown = given_up.difference(&known.hosts());
        let alone = unknown.iter().filter_map(|ip| with_length(ip, if ip.is_ipv4() { 32 } else { 128 }));
        addresses = addresses.union(&known).union(&alone.collect());
    }
    let index = present.first().map(|a| a.index).or(route).or(gate.map(|g| g.ifindex));
    let link = links.iter().find(|l| Some(l.index) == index);
    let listed = || resource.nodes.get(&me).and_then(|s| s.devices.first().cloned());
    let device = link.map(|l| l.name.clone()).or_else(listed).unwrap_or_default();
    Here { resource: resource.clone(), addresses: Arc::new(addresses), device }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NodeSettings, Ranges};

    fn nets(list: &[&str]) -> Addresses {
        list.iter().map(|text| text.parse::<ipnet::IpNet>().unwrap()).collect()
    }

    fn assigned(text: &str, index: u32) -> Assigned {
        Assigned {
            index,
            address: text.parse().unwrap(),
            broadcast: None,
            secondary: false,
            protocol: Some(address::PROTOCOL),
            tentative: false,
        }
    }

    #[test]
    fn what_is_here_may_be_more_and_less_than_the_resource_has_now() {
        let settings = NodeSettings::new(1, vec!["eth0".into()]);
        let tag = "a".parse().unwrap();
        let resource = Arc::new(Resource::new(tag, nets(&["10.0.0.5/24", "10.0.0.6/24"]), [(1, settings)]));
        let host = |n: u8| std::net::IpAddr::from([10, 0, 0, n]);
        let hosts: Ranges = [4, 5, 7].map(host).into_iter().collect();
        let gate = Programmed {
            group: 1,
            addresses: hosts,
            ifindex: 3,
            gate_active: true,
            lease_epoch: 1,
            epoch: 1,
        };
        let links = [Link {
            index: 3,
            name: "eth1".into(),
            mac: [2; 6],
            admin_up: true,
            carrier: true,
            loopback: false,
            kind: None,
            mtu: 1500,
        }];
        let (five, seven) = (assigned("10.0.0.5/24", 3), assigned("10.0.0.7/24", 3));
        let found = here(1, &resource, Some(&gate), (&[&five], None), &[&seven], &links);
        assert_eq!(*found.addresses, nets(&["10.0.0.5/24", "10.0.0.7/24", "10.0.0.4/32"]));
        assert_eq!(found.device, "eth1");
        let six = Ranges::from(vec![std::net::IpAddr::from([10, 0, 0, 6]).into()]);
        let by_route = here(1, &resource, None, (&[], Some((3, six))), &[], &links);
        assert_eq!((&*by_route.addresses, &*by_route.device), (&nets(&["10.0.0.6/24"]), "eth1"));
        assert_eq!(here(1, &resource, None, (&[], None), &[], &links).device, "eth0");
    }
}
