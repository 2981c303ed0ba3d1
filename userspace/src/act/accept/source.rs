//! The source address of what this host itself sends to a subnet (row IP-12, IPv4 only).
//!
//! The subnet's route on the interface is usually the kernel's, made with the first address of the subnet,
//! which is its source. It keeps everything but the source: its metric, scope and protocol number, by which
//! the kernel and network managers know it. What becomes of it afterwards:
//!
//! - the address that is the source is deleted: the kernel drops the route;
//! - the address that the route was made with is deleted: the kernel looks for a route with that source,
//!   finds none, and the route stays;
//! - the interface is set down and up: the kernel makes the route anew, with its own source.
//!
//! So the source is to be set again when one of these has happened.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use nix::libc;

use super::connected::clean;
use crate::{
    model::{Addresses, Ranges},
    observe::network::{Kept, Link, Network, NetworkError, Source, routes},
};

impl Network {
    /// The first address of each IPv4 subnet becomes the source of that subnet's route on the interface.
    /// The last one for which this is asked is the source.
    ///
    /// # Errors
    /// When there is no such route, or the kernel does not take the address (it must be local).
    pub async fn set_source(&self, link: &Link, addresses: &Addresses) -> Result<(), NetworkError> {
        let mut kept = self.kept.lock().await;
        for (subnet, address) in addresses.firsts().filter_map(v4) {
            let routes = self.routes_of(link, subnet).await?;
            if routes.is_empty() {
                let reason = format!(
                    "there is no route to {subnet} through {}: give the interface an address of that subnet",
                    link.name
                );
                let action = format!("make {address} the source for {subnet}");
                return Err(NetworkError::trying(action)(io::Error::other(reason)));
            }
            kept.routes.entry((link.index, subnet)).or_insert_with(|| routes.clone());
            kept.sources.retain(|s| (s.index, s.address) != (link.index, address));
            kept.sources.push(Source { index: link.index, subnet, address });
            for route in routes {
                self.change_source(link, subnet, route, Some(address)).await?;
            }
        }
        Ok(())
    }

    /// Where one of the addresses is the source of its subnet's route, another takes its place: the newest
    /// of those for which [`Network::set_source`] was asked and that are still here, or else the subnet's
    /// primary address. A route that went with its source is made again. It is no error when none of
    /// them is a source.
    pub async fn unset_source(&self, link: &Link, addresses: &Addresses) -> Result<(), NetworkError> {
        let hosts = addresses.hosts();
        let mut kept = self.kept.lock().await;
        let mut result = self.replace_sources(link, &hosts, &kept).await;
        for (subnet, _) in addresses.firsts().filter_map(v4) {
            result = result.and(self.make_again(link, subnet, &hosts, &kept).await);
        }
        forget(&mut kept, link, &hosts);
        result
    }

    /// As [`Network::unset_source`], for hosts of which only the routes know the subnets.
    pub(super) async fn release_source(&self, link: &Link, hosts: &Ranges) -> Result<(), NetworkError> {
        let mut kept = self.kept.lock().await;
        let result = self.replace_sources(link, hosts, &kept).await;
        forget(&mut kept, link, hosts);
        result
    }

    /// Sets again what was asked for, after the interface was set down and up.
    pub(crate) async fn renew_sources(&self, link: &Link) -> Result<(), NetworkError> {
        let kept = self.kept.lock().await;
        let mut result = Ok(());
        for route in routes::on_link(&self.netlink, link.index, false).await? {
            let Some(IpNet::V4(subnet)) = routes::destination(&route) else { continue };
            if let Some(newest) = self.newest(&kept, link, subnet, &Ranges::default()).await? {
                result = result.and(self.change_source(link, subnet, route, Some(newest)).await);
            }
        }
        result
    }

    async fn replace_sources(&self, link: &Link, hosts: &Ranges, kept: &Kept) -> Result<(), NetworkError> {
        let mut result = Ok(());
        for route in routes::on_link(&self.netlink, link.index, false).await? {
            let (Some(IpNet::V4(subnet)), Some(address)) = (routes::destination(&route), source(&route))
            else {
                continue;
            };
            if !subnet.contains(&address) || !hosts.contains(address.into()) {
                continue;
            }
            let own = self.own_addresses(link, subnet).await?;
            // The kernel made the route with this very address, and will take it away with that.
            if own.iter().any(|a| a.address == address && a.primary) {
                continue;
            }
            let primary = own.iter().find(|a| a.primary && !hosts.contains(a.address.into()));
            let next = self.newest(kept, link, subnet, hosts).await?.or(primary.map(|a| a.address));
            result = result.and(self.change_source(link, subnet, route, next).await);
        }
        result
    }

    /// The route to a subnet in which the interface has an address of its own, if the kernel dropped it.
    async fn make_again(
        &self,
        link: &Link,
        subnet: Ipv4Net,
        hosts: &Ranges,
        kept: &Kept,
    ) -> Result<(), NetworkError> {
        if !self.routes_of(link, subnet).await?.is_empty() {
            return Ok(());
        }
        let own = self.own_addresses(link, subnet).await?;
        let Some(primary) = own.iter().find(|a| a.primary && !hosts.contains(a.address.into())) else {
            return Ok(());
        };
        let routes = match kept.routes.get(&(link.index, subnet)) {
            Some(before) => before.clone(),
            // Somebody wanted no such route, or has made another.
            None if primary.without_route => return Ok(()),
            None => vec![kernel_route(link, subnet, primary.metric)],
        };
        let address = self.newest(kept, link, subnet, hosts).await?.unwrap_or(primary.address);
        for route in routes {
            let message = RouteNetlinkMessage::NewRoute(with_source(clean(route), Some(address)));
            match self.netlink.change(message, NLM_F_CREATE | NLM_F_APPEND).await {
                Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
                result => result.map_err(failed(link, subnet))?,
            }
        }
        Ok(())
    }

    /// Others' routes stay, and stay where they are: with one metric the kernel prefers the first.
    async fn change_source(
        &self,
        link: &Link,
        subnet: Ipv4Net,
        old: RouteMessage,
        address: Option<Ipv4Addr>,
    ) -> Result<(), NetworkError> {
        if source(&old) == address {
            return Ok(());
        }
        let old = clean(old);
        let new = RouteNetlinkMessage::NewRoute(with_source(old.clone(), address));
        let all = routes::to(&self.netlink, subnet.into(), old.header.protocol).await?;
        // The kernel replaces the first one of that metric, whosever it is.
        let first = all.into_iter().map(clean).find(|r| metric(r) == metric(&old));
        if first.as_ref() == Some(&old) {
            match self.netlink.change(new, NLM_F_CREATE | NLM_F_REPLACE).await {
                Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
                result => return result.map_err(failed(link, subnet)),
            }
        } else {
            match self.netlink.change(new, NLM_F_CREATE | NLM_F_APPEND).await {
                Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
                result => result.map_err(failed(link, subnet))?,
            }
        }
        match self.netlink.change(RouteNetlinkMessage::DelRoute(old), 0).await {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result.map_err(failed(link, subnet)),
        }
    }

    async fn newest(
        &self,
        kept: &Kept,
        link: &Link,
        subnet: Ipv4Net,
        hosts: &Ranges,
    ) -> Result<Option<Ipv4Addr>, NetworkError> {
        let of_subnet = |s: &&Source| (s.index, s.subnet) == (link.index, subnet);
        let others = kept.sources.iter().filter(of_subnet).filter(|s| !hosts.contains(s.address.into()));
        for source in others.rev() {
            let route = routes::matching(&self.netlink, source.address.into()).await?;
            if route.as_ref().is_some_and(routes::is_local) {
                return Ok(Some(source.address));
            }
        }
        Ok(None)
    }

    async fn routes_of(&self, link: &Link, subnet: Ipv4Net) -> Result<Vec<RouteMessage>, NetworkError> {
        let mut routes = routes::on_link(&self.netlink, link.index, false).await?;
        routes.retain(|r| routes::destination(r) == Some(subnet.into()));
        Ok(routes)
    }

    /// The interface's addresses that have this very subnet.
    async fn own_addresses(&self, link: &Link, subnet: Ipv4Net) -> Result<Vec<Own>, NetworkError> {
        let mut filter = AddressMessage::default();
        filter.header.family = AddressFamily::Inet;
        filter.header.index = link.index;
        let found = match self.netlink.dump(RouteNetlinkMessage::GetAddress(filter)).await {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Vec::new(),
            found => found.map_err(NetworkError::trying(format!("list the addresses of {}", link.name)))?,
        };
        let own = found.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(a) if a.header.index == link.index => own(a),
            _ => None,
        });
        Ok(own.filter(|(net, _)| *net == subnet).map(|(_, own)| own).collect())
    }
}

/// An address of an interface as the kernel's route to its subnet depends on it.
struct Own {
    address: Ipv4Addr,
    primary: bool,
    /// IFA_F_NOPREFIXROUTE: network managers make the route themselves.
    without_route: bool,
    metric: Option<u32>,
}

fn own(message: &AddressMessage) -> Option<(Ipv4Net, Own)> {
    let mut local = None;
    let mut metric = None;
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => local = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            AddressAttribute::RoutePriority(priority) => metric = Some(*priority),
            _ => {}
        }
    }
    let (address, primary) = (local?, !flags.contains(AddressFlags::Secondary));
    let without_route = flags.contains(AddressFlags::Noprefixroute);
    let net = Ipv4Net::new(address, message.header.prefix_len).ok()?.trunc();
    Some((net, Own { address, primary, without_route, metric }))
}

fn forget(kept: &mut Kept, link: &Link, hosts: &Ranges) {
    let Kept { sources, routes, .. } = kept;
    sources.retain(|s| s.index != link.index || !hosts.contains(s.address.into()));
    routes.retain(|key, _| sources.iter().any(|s| (s.index, s.subnet) == *key));
}

fn failed(link: &Link, subnet: Ipv4Net) -> impl FnOnce(io::Error) -> NetworkError {
    NetworkError::trying(format!("change the source of the route to {subnet} through {}", link.name))
}

fn v4(first: IpNet) -> Option<(Ipv4Net, Ipv4Addr)> {
    match first {
        IpNet::V4(net) => Some((net.trunc(), net.addr())),
        IpNet::V6(_) => None,
    }
}

fn source(route: &RouteMessage) -> Option<Ipv4Addr> {
    match routes::preferred_source(route) {
        Some(IpAddr::V4(address)) => Some(address),
        _ => None,
    }
}

fn with_source(mut route: RouteMessage, address: Option<Ipv4Addr>) -> RouteMessage {
    route.attributes.retain(|a| !matches!(a, RouteAttribute::PrefSource(_)));
    route.attributes.extend(address.map(|a| RouteAttribute::PrefSource(IpAddr::V4(a).into())));
    route
}

fn metric(route: &RouteMessage) -> u32 {
    let named = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    named.unwrap_or_default()
}

/// As the kernel makes it for a new primary address.
fn kernel_route(link: &Link, subnet: Ipv4Net, metric: Option<u32>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = subnet.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Kernel;
    message.header.kind = RouteType::Unicast;
    message.header.scope = RouteScope::Link;
    message.attributes =
        vec![RouteAttribute::Destination(IpAddr::V4(subnet.addr()).into()), RouteAttribute::Oif(link.index)];
    message.attributes.extend(metric.map(RouteAttribute::Priority));
    message
}
