//! Local routes: packets to a prefix are this host's own, without an address for each.
//!
//! What applications see of such an address: IPv4 sockets bind it and answer from it as from an assigned
//! one. IPv6 sockets that listen on `::` do as well; to bind just that address they need IPV6_FREEBIND
//! (or the sysctl `net.ipv6.ip_nonlocal_bind`), since there the kernel looks for an assigned address.
//! By itself the kernel answers ARP for local routes, on every interface, unless `arp_ignore` is 1 or more; it
//! never answers neighbour solicitations for them.

use std::{collections::HashSet, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use nix::libc;

use crate::{
    act::address::PROTOCOL,
    model::{Accept, Addresses, Range, Ranges},
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
        let there = self.add_local_routes(link, &nets, NLM_F_CREATE | NLM_F_EXCL).await?;
        if !there.is_empty() {
            // Ours already, here or on another interface, or somebody else's: the kernel does not say which.
            let ours = routes::local(&self.netlink, Of::Protocol(PROTOCOL)).await?;
            let nets = |here: bool| -> HashSet<IpNet> {
                ours.iter().filter(|r| (r.index == link.index) == here).map(|r| r.net).collect()
            };
            let (here, elsewhere) = (nets(true), nets(false));
            let missing = there.into_iter().filter(|net| !here.contains(net));
            let (moving, foreign): (Vec<_>, Vec<_>) = missing.partition(|net| elsewhere.contains(net));
            if !foreign.is_empty() {
                let foreign: Ranges = foreign.into_iter().map(Range::from).collect();
                let reason = "somebody else made a local route for it ('ip route show table local'): delete that first";
                let action = format!("route {foreign} to this host on {}", link.name);
                return Err(NetworkError::trying(action)(std::io::Error::other(reason)));
            }
            self.add_beside(link, moving).await?;
        }
        self.reach(link, addresses).await
    }

    /// On their way from one interface to another they are accepted on both, without an interruption.
    async fn add_beside(&self, link: &Link, nets: Vec<IpNet>) -> Result<(), NetworkError> {
        let (v4, v6): (Vec<_>, Vec<_>) = nets.into_iter().partition(|net| matches!(net, IpNet::V4(_)));
        // The kernel takes an IPv4 route beside another of the same prefix only when it is told to append.
        for (nets, append) in [(v4, NLM_F_APPEND), (v6, 0)] {
            self.add_local_routes(link, &nets, NLM_F_CREATE | append).await?;
        }
        Ok(())
    }

    /// Returns the prefixes for which there is a route already.
    async fn add_local_routes(
        &self,
        link: &Link,
        nets: &[IpNet],
        flags: u16,
    ) -> Result<Vec<IpNet>, NetworkError> {
        let index = link.index;
        let message = move |net| RouteNetlinkMessage::NewRoute(local_route(index, net));
        let owned = nets.to_vec();
        let messages = owned.into_iter().map(message);
        let failed = |what: &str| NetworkError::trying(format!("route {what} to this host on {}", link.name));
        let refused = self.netlink.change_all(messages, flags).await;
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

    /// Takes the local routes away by which the hosts are accepted in this way, `of` whom they may be. A
    /// prefix is taken away only if it is ours; the addresses of it that are not among the hosts go on
    /// being accepted, without an interruption.
    pub(super) async fn delete_local(
        &self,
        link: &Link,
        hosts: &Ranges,
        accept: Accept,
        of: Of,
    ) -> Result<(), NetworkError> {
        if accept == Accept::Route && hosts.count() <= DELETED_SINGLY {
            let routes =
                hosts.iter().map(|ip| LocalRoute { net: ip.into(), index: link.index, protocol: PROTOCOL });
            self.delete_local_routes(link, routes.collect()).await?;
            if !self.is_any_routed(link, hosts, of).await? {
                return Ok(());
            }
        }
        let mut there = routes::local(&self.netlink, of).await?;
        there.retain(|route| route.index == link.index && overlaps(hosts, route.net.into()));
        let (single, mut wide): (Vec<_>, Vec<_>) = there.into_iter().partition(|r| is_host(r.net));
        if accept == Accept::Route {
            return self.delete_local_routes(link, single).await;
        }
        wide.retain(|route| route.protocol == PROTOCOL);
        let covered: Ranges = wide.iter().map(|r| Range::from(r.net)).collect();
        let rest = covered.difference(hosts);
        if !rest.is_empty() {
            self.add_local_routes(link, &rest.prefixes(), NLM_F_CREATE | NLM_F_EXCL).await?;
        }
        // A part of the rest may be what was there as well.
        let kept: HashSet<IpNet> = rest.prefixes().into_iter().collect();
        wide.retain(|route| !kept.contains(&route.net));
        // Single addresses among the prefixes; one that a prefix covers has its own route for another reason.
        let alone: HashSet<IpNet> = hosts.prefixes().into_iter().filter(|net| is_host(*net)).collect();
        let alone = single.into_iter().filter(|r| alone.contains(&r.net) && !covered.contains(r.net.addr()));
        wide.extend(alone);
        self.delete_local_routes(link, wide).await
    }

    async fn delete_local_routes(&self, link: &Link, routes: Vec<LocalRoute>) -> Result<(), NetworkError> {
        let message = |route: LocalRoute| {
            let mut message = local_route(route.index, route.net);
            message.header.protocol = route.protocol.into();
            RouteNetlinkMessage::DelRoute(message)
        };
        let failed =
            |what: &str| NetworkError::trying(format!("delete the local route of {what} on {}", link.name));
        let messages = routes.clone().into_iter().map(message);
        let refused = self.netlink.change_all(messages, 0).await.map_err(failed("addresses"))?;
        let gone = |errno| matches!(errno, Some(libc::ESRCH | libc::ENODEV));
        match refused.into_iter().find(|r| !gone(r.error.raw_os_error())) {
            Some(refusal) => Err(failed(&routes[refusal.at].net.to_string())(refusal.error)),
            None => Ok(()),
        }
    }

    /// Removes the host routes in the local table that removed addresses may leave behind: ours and those
    /// that the kernel made. It is no error when there are none.
    ///
    /// # Errors
    /// The first route that could not be deleted.
    pub async fn delete_host_routes(&self, link: &Link, addresses: &Addresses) -> Result<(), NetworkError> {
        let hosts = addresses.hosts();
        let protocols = [PROTOCOL, RouteProtocol::Kernel.into()];
        let mut routes = Vec::new();
        if hosts.count() <= DELETED_SINGLY {
            for protocol in protocols {
                let route = |ip: IpAddr| LocalRoute { net: ip.into(), index: link.index, protocol };
                routes.extend(hosts.iter().map(route));
            }
        } else {
            for protocol in protocols {
                let mut there = routes::local(&self.netlink, Of::Protocol(protocol)).await?;
                there.retain(|r| r.index == link.index && is_host(r.net) && hosts.contains(r.net.addr()));
                routes.extend(there);
            }
        }
        self.delete_local_routes(link, routes).await
    }

    /// Our local routes on the interface.
    pub(super) async fn our_local_routes(&self, index: u32) -> Result<Vec<LocalRoute>, NetworkError> {
        let mut routes = routes::local(&self.netlink, Of::Protocol(PROTOCOL)).await?;
        routes.retain(|route| route.index == index);
        Ok(routes)
    }

    async fn is_any_routed(&self, link: &Link, hosts: &Ranges, of: Of) -> Result<bool, NetworkError> {
        for address in hosts.iter() {
            let route = routes::matching(&self.netlink, address).await?.filter(routes::is_local);
            let route = route.as_ref().and_then(routes::local_route);
            if route.is_some_and(|r| r.index == link.index && is_host(r.net) && of.includes(r.protocol)) {
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

pub(super) fn is_host(net: IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}
