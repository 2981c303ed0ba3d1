//! Local routes: packets to a prefix are this host's own, without an address for each.
//!
//! What applications see of such an address: IPv4 sockets bind it and answer from it as from an assigned
//! one. IPv6 sockets that listen on `::` do as well; to bind just that address they need IPV6_FREEBIND
//! (or the sysctl `net.ipv6.ip_nonlocal_bind`), since there the kernel looks for an assigned address.
//! By itself the kernel answers ARP for local routes, on every interface, unless `arp_ignore` is 1 or more; it
//! never answers neighbour solicitations for them.

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage, RouteScope, RouteType},
};
use nix::libc;

use crate::{
    act::address::PROTOCOL,
    model::{Addresses, Range, Ranges},
    observe::network::{
        Link, LocalRoute, Network, NetworkError,
        routes::{self, Of},
    },
};

/// Up to so many addresses are taken away without listing all routes first.
const DELETED_SINGLY: u64 = 16;

impl Network {
    /// The prefixes make up the addresses.
    pub(super) async fn add_local(
        &self,
        link: &Link,
        addresses: &Addresses,
        nets: Vec<IpNet>,
    ) -> Result<(), NetworkError> {
        let there = self.add_local_routes(link, &nets).await?;
        if !there.is_empty() {
            // Ours already, or somebody else's: the kernel does not say which.
            let ours = self.our_local_routes(link.index).await?;
            let ours: Ranges = ours.iter().map(|r| Range::from(r.net)).collect();
            let missing = Ranges::from_iter(there.into_iter().map(Range::from)).difference(&ours);
            if !missing.is_empty() {
                let reason = "somebody else made a local route for it ('ip route show table local'): delete that first";
                let action = format!("route {missing} to this host on {}", link.name);
                return Err(NetworkError::trying(action)(std::io::Error::other(reason)));
            }
        }
        self.reach(link, addresses).await
    }

    /// Returns the prefixes for which there is a route already.
    async fn add_local_routes(&self, link: &Link, nets: &[IpNet]) -> Result<Vec<IpNet>, NetworkError> {
        let index = link.index;
        let message = move |net| RouteNetlinkMessage::NewRoute(local_route(index, net));
        let messages = nets.to_vec().into_iter().map(message);
        let failed = |what: &str| NetworkError::trying(format!("route {what} to this host on {}", link.name));
        let refused = self.netlink.change_all(messages, NLM_F_CREATE | NLM_F_EXCL).await;
        let refused = refused.map_err(failed("addresses"))?;
        let mut there = Vec::new();
        for refusal in refused {
            let net = nets[refusal.at];
            match refusal.error.raw_os_error() {
                Some(libc::EEXIST) => there.push(net),
                _ => return Err(failed(&net.to_string())(refusal.error)),
            }
        }
        Ok(there)
    }

    /// Afterwards no route of ours on the interface covers any of the addresses, whatever its prefix; the
    /// other addresses of a prefix that reaches beyond them are still accepted, without an interruption.
    pub(super) async fn delete_local(&self, link: &Link, hosts: &Ranges) -> Result<(), NetworkError> {
        if hosts.count() <= DELETED_SINGLY {
            self.delete_local_routes(link, hosts.iter().map(IpNet::from).collect()).await?;
            if !self.is_any_ours(link, hosts).await? {
                return Ok(());
            }
        }
        let mut covering = self.our_local_routes(link.index).await?;
        covering.retain(|route| overlaps(hosts, route.net.into()));
        let covered: Ranges = covering.iter().map(|r| Range::from(r.net)).collect();
        let rest = covered.difference(hosts);
        if !rest.is_empty() {
            self.add_local_routes(link, &rest.prefixes()).await?;
        }
        // A part of the rest may be what was there as well.
        let keep: std::collections::HashSet<IpNet> = rest.prefixes().into_iter().collect();
        let nets = covering.iter().map(|r| r.net).filter(|net| !keep.contains(net)).collect();
        self.delete_local_routes(link, nets).await
    }

    async fn delete_local_routes(&self, link: &Link, nets: Vec<IpNet>) -> Result<(), NetworkError> {
        let index = link.index;
        let message = move |net| RouteNetlinkMessage::DelRoute(local_route(index, net));
        let messages = nets.clone().into_iter().map(message);
        let failed =
            |what: &str| NetworkError::trying(format!("delete the local route of {what} on {}", link.name));
        let refused = self.netlink.change_all(messages, 0).await.map_err(failed("addresses"))?;
        let gone = |errno| matches!(errno, Some(libc::ESRCH | libc::ENODEV));
        match refused.into_iter().find(|r| !gone(r.error.raw_os_error())) {
            Some(refusal) => Err(failed(&nets[refusal.at].to_string())(refusal.error)),
            None => Ok(()),
        }
    }

    /// Removes the host routes in the local table that removed addresses may leave behind, whoever made
    /// them. It is no error when there are none.
    ///
    /// # Errors
    /// The first route that could not be deleted.
    pub async fn delete_host_routes(&self, link: &Link, addresses: &Addresses) -> Result<(), NetworkError> {
        let index = link.index;
        let all: Vec<IpNet> = addresses.hosts().iter().map(IpNet::from).collect();
        let failed =
            |what: String| NetworkError::trying(format!("delete the host route of {what} on {}", link.name));
        let message = move |net| {
            let mut route = local_route(index, net);
            route.header.protocol = 0.into();
            RouteNetlinkMessage::DelRoute(route)
        };
        let refused = self.netlink.change_all(all.clone().into_iter().map(message), 0).await;
        let gone = |errno| matches!(errno, Some(libc::ESRCH | libc::ENODEV));
        let refused = refused.map_err(failed(addresses.to_string()))?;
        match refused.into_iter().find(|r| !gone(r.error.raw_os_error())) {
            Some(refusal) => Err(failed(all[refusal.at].addr().to_string())(refusal.error)),
            None => Ok(()),
        }
    }

    /// Our local routes on the interface.
    pub(super) async fn our_local_routes(&self, index: u32) -> Result<Vec<LocalRoute>, NetworkError> {
        let mut routes = routes::local(&self.netlink, Of::Protocol(PROTOCOL)).await?;
        routes.retain(|route| route.index == index);
        Ok(routes)
    }

    async fn is_any_ours(&self, link: &Link, hosts: &Ranges) -> Result<bool, NetworkError> {
        for address in hosts.iter() {
            let route = routes::matching(&self.netlink, address).await?.filter(routes::is_local);
            let route = route.as_ref().and_then(routes::local_route);
            if route.is_some_and(|r| r.protocol == PROTOCOL && r.index == link.index) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn local_route(index: u32, net: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = routes::family(matches!(net, IpNet::V6(_)));
    message.header.destination_prefix_length = net.prefix_len();
    message.header.table = libc::RT_TABLE_LOCAL;
    message.header.protocol = PROTOCOL.into();
    message.header.kind = RouteType::Local;
    message.header.scope = match net {
        IpNet::V4(_) => RouteScope::Host,
        IpNet::V6(_) => RouteScope::Universe,
    };
    message.attributes = vec![RouteAttribute::Destination(net.addr().into()), RouteAttribute::Oif(index)];
    message
}

fn overlaps(hosts: &Ranges, range: Range) -> bool {
    let ranges = hosts.ranges();
    let at = ranges.partition_point(|r| r.last() < range.first());
    ranges.get(at).is_some_and(|r| r.first() <= range.last())
}
