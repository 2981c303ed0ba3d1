//! Reads the routes that matter to virtual addresses: local ones, and those to subnets on the link.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteType},
};
use nix::libc;

use super::{LocalRoute, NetworkError, netlink::Netlink};
use crate::model::with_length;

/// Whose routes are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// But not those that the kernel makes for each assigned address.
    Anybody,
    Protocol(u8),
}

impl Of {
    pub(crate) fn includes(self, protocol: u8) -> bool {
        match self {
            Self::Anybody => protocol != u8::from(RouteProtocol::Kernel),
            Self::Protocol(one) => protocol == one,
        }
    }
}

const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// The local routes in the table `local`.
pub(crate) async fn local(netlink: &Netlink, of: Of) -> Result<Vec<LocalRoute>, NetworkError> {
    let mut all = Vec::new();
    for family in FAMILIES {
        let mut filter = RouteMessage::default();
        filter.header.address_family = family;
        filter.header.table = libc::RT_TABLE_LOCAL;
        filter.header.kind = RouteType::Local;
        if let Of::Protocol(protocol) = of {
            filter.header.protocol = protocol.into();
        }
        let found = dump(netlink, filter).await.map_err(NetworkError::trying("list the local routes"))?;
        let found = found.iter().filter(|r| is_local(r)).filter_map(local_route);
        all.extend(found.filter(|r| of.includes(r.protocol)));
    }
    Ok(all)
}

/// The routes of the main table whose destinations are on the interface's own link.
pub(crate) async fn on_link(
    netlink: &Netlink,
    index: u32,
    v6: bool,
) -> Result<Vec<RouteMessage>, NetworkError> {
    let mut filter = RouteMessage::default();
    filter.header.address_family = family(v6);
    filter.header.table = RouteHeader::RT_TABLE_MAIN;
    filter.header.kind = RouteType::Unicast;
    filter.attributes.push(RouteAttribute::Oif(index));
    let found = match dump(netlink, filter).await {
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Vec::new(),
        found => found.map_err(NetworkError::trying("list the routes of an interface"))?,
    };
    Ok(found.into_iter().filter(|r| oif(r) == Some(index) && is_on_link(r)).collect())
}

/// The routes of the main table with this protocol.
pub(crate) async fn of_protocol(
    netlink: &Netlink,
    family: AddressFamily,
    protocol: u8,
) -> Result<Vec<RouteMessage>, NetworkError> {
    let mut filter = RouteMessage::default();
    filter.header.address_family = family;
    filter.header.table = RouteHeader::RT_TABLE_MAIN;
    filter.header.protocol = protocol.into();
    let found = dump(netlink, filter).await.map_err(NetworkError::trying("list the routes"))?;
    Ok(found.into_iter().filter(|r| u8::from(r.header.protocol) == protocol).collect())
}

/// The routes of the main table that have this destination and protocol, in the order in which the
/// kernel prefers them among those of one metric.
pub(crate) async fn to(
    netlink: &Netlink,
    net: IpNet,
    protocol: RouteProtocol,
) -> Result<Vec<RouteMessage>, NetworkError> {
    let family = family(matches!(net, IpNet::V6(_)));
    let found = of_protocol(netlink, family, protocol.into()).await?;
    Ok(found.into_iter().filter(|r| destination(r) == Some(net)).collect())
}

/// The route that a packet to the address would take, as it stands in its table. None when there is none.
pub(crate) async fn matching(
    netlink: &Netlink,
    address: IpAddr,
) -> Result<Option<RouteMessage>, NetworkError> {
    let mut message = RouteMessage::default();
    message.header.address_family = family(address.is_ipv6());
    message.header.destination_prefix_length = if address.is_ipv6() { 128 } else { 32 };
    message.header.flags = RouteFlags::FibMatch;
    message.attributes.push(RouteAttribute::Destination(address.into()));
    match netlink.get(RouteNetlinkMessage::GetRoute(message)).await {
        Ok(found) => Ok(found.into_iter().find_map(|m| match m {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        })),
        Err(e) if no_route(e.raw_os_error()) => Ok(None),
        Err(e) => Err(NetworkError::trying(format!("look up the route to {address}"))(e)),
    }
}

/// ENETUNREACH is the answer where nothing matches; the others come from routes that say no.
fn no_route(errno: Option<i32>) -> bool {
    let refusals = [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL, libc::ENOENT];
    errno.is_some_and(|e| refusals.contains(&e))
}

async fn dump(netlink: &Netlink, filter: RouteMessage) -> std::io::Result<Vec<RouteMessage>> {
    let found = match netlink.dump(RouteNetlinkMessage::GetRoute(filter)).await {
        // The table has had no route yet, or the host has no IPv6.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EAFNOSUPPORT)) => {
            return Ok(Vec::new());
        }
        found => found?,
    };
    let routes = found.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewRoute(route) => Some(route),
        _ => None,
    });
    Ok(routes.collect())
}

/// None when the route has no interface, or several.
pub(crate) fn local_route(route: &RouteMessage) -> Option<LocalRoute> {
    let (net, index) = (destination(route)?, oif(route)?);
    Some(LocalRoute { net, index, protocol: route.header.protocol.into() })
}

pub(crate) fn is_local(route: &RouteMessage) -> bool {
    route.header.kind == RouteType::Local
}

pub(crate) fn is_on_link(route: &RouteMessage) -> bool {
    let elsewhere = |a: &RouteAttribute| {
        matches!(a, RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_))
    };
    route.header.kind == RouteType::Unicast && !route.attributes.iter().any(elsewhere)
}

pub(crate) fn oif(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// All of the family when the message names none.
pub(crate) fn destination(route: &RouteMessage) -> Option<IpNet> {
    let named = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(address) => Some(ip(address)),
        _ => None,
    });
    let address = match (named, route.header.address_family) {
        (Some(named), _) => named?,
        (None, AddressFamily::Inet) => IpAddr::from([0; 4]),
        (None, AddressFamily::Inet6) => IpAddr::from([0; 16]),
        (None, _) => return None,
    };
    with_length(address, route.header.destination_prefix_length)
}

pub(crate) fn preferred_source(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|a| match a {
        RouteAttribute::PrefSource(address) => ip(address),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some((*a).into()),
        RouteAddress::Inet6(a) => Some((*a).into()),
        _ => None,
    }
}

pub(crate) fn family(v6: bool) -> AddressFamily {
    if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet }
}
