//! What vipd itself has put on this host.

use ipnet::IpNet;

use crate::{
    act::address::PROTOCOL,
    model::{Accept, Addresses, Range, Ranges},
    observe::network::{
        Link, Network, NetworkError, routed,
        routes::{self, Of},
    },
};

/// Addresses that an interface of this host accepts packets for because of vipd, this process or an
/// earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub index: u32,
    /// Of a local route for one address it cannot be told whether it was meant as [`Accept::Route`] or
    /// was left over by [`Accept::Anyip`]: it counts as the former.
    pub accept: Accept,
    pub addresses: Ranges,
}

impl Network {
    /// All that is marked with vipd's protocol number, one item for each interface and way. Quick also with
    /// 65,536 local routes; an interface may have gone meanwhile.
    pub async fn ours(&self) -> Result<Vec<Placed>, NetworkError> {
        let mut assigned = std::collections::BTreeMap::<u32, Vec<Range>>::new();
        for a in self.addresses().await?.iter().filter(|a| a.protocol == Some(PROTOCOL)) {
            assigned.entry(a.index).or_default().push(a.address.addr().into());
        }
        let placed = |(index, ranges): (u32, Vec<Range>)| Placed {
            index,
            accept: Accept::Assign,
            addresses: ranges.into(),
        };
        let mut all: Vec<Placed> = assigned.into_iter().map(placed).collect();
        let routes = routes::local(&self.netlink, Of::Protocol(PROTOCOL)).await?;
        all.extend(routed(&routes).into_iter().map(|(class, addresses)| {
            let accept = if class.host { Accept::Route } else { Accept::Anyip };
            Placed { index: class.index, accept, addresses }
        }));
        Ok(all)
    }

    /// Takes everything of ours that accepts packets for these hosts off the interface, in whichever way it
    /// is there, and gives back what only that needed: the source of a route, routes to subnets,
    /// allmulticast. Everything is tried.
    ///
    /// # Errors
    /// The first failure.
    pub async fn remove_ours(&self, link: &Link, hosts: &Ranges) -> Result<(), NetworkError> {
        let there = self.addresses_on(link.index).await?;
        let assigned: Addresses = there
            .iter()
            .filter(|a| a.protocol == Some(PROTOCOL) && hosts.contains(a.address.addr()))
            .map(|a| a.address)
            .collect::<Vec<IpNet>>()
            .into_iter()
            .collect();
        // A route whose source is deleted would go with it.
        let released = self.release_source(link, hosts).await;
        let unassigned = if assigned.is_empty() { Ok(()) } else { self.unassign(link, &assigned).await };
        let ours = Of::Protocol(PROTOCOL);
        let unrouted = self.delete_local(link, hosts, Accept::Anyip, ours).await;
        let unrouted = unrouted.and(self.delete_local(link, hosts, Accept::Route, ours).await);
        let tidied = self.tidy().await;
        released.and(unassigned).and(unrouted).and(tidied)
    }

    /// Takes routes to subnets away that no address needs any more.
    pub async fn remove_idle_routes(&self) -> Result<(), NetworkError> {
        self.tidy().await
    }
}
