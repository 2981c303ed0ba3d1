//! Setting interfaces up and down without losing what the kernel forgets meanwhile.

use std::{io, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{LinkFlags, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteType},
};
use nix::libc;

use super::address::PROTOCOL;
use crate::observe::network::{Link, Network, NetworkError};

/// What the kernel forgets when an interface is set down and does not bring back when it is set up: the
/// routes that others configured (the default route!) and the IPv6 addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forgotten {
    addresses: Vec<AddressMessage>,
    /// Those without a gateway first: the others depend on them.
    routes: Vec<RouteMessage>,
}

impl Forgotten {
    /// As the kernel writes them.
    pub(crate) fn messages(self) -> impl Iterator<Item = RouteNetlinkMessage> {
        let addresses = self.addresses.into_iter().map(RouteNetlinkMessage::NewAddress);
        addresses.chain(self.routes.into_iter().map(RouteNetlinkMessage::NewRoute))
    }
}

impl FromIterator<RouteNetlinkMessage> for Forgotten {
    fn from_iter<T: IntoIterator<Item = RouteNetlinkMessage>>(messages: T) -> Self {
        let mut forgotten = Self::default();
        for message in messages {
            match message {
                RouteNetlinkMessage::NewAddress(address) => forgotten.addresses.push(address),
                RouteNetlinkMessage::NewRoute(route) => forgotten.routes.push(route),
                _ => {}
            }
        }
        forgotten
    }
}

impl Network {
    /// Sets the interface administratively up or down.
    pub async fn set_link(&self, link: &Link, up: bool) -> Result<(), NetworkError> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        let way = if up { "up" } else { "down" };
        let result = self.netlink.change(RouteNetlinkMessage::SetLink(message), 0).await;
        result.map_err(NetworkError::trying(format!("set {} {way}", link.name)))
    }

    /// What would be forgotten if the interface were set down now.
    pub(crate) async fn forgettable(&self, link: &Link) -> Result<Forgotten, NetworkError> {
        let failed = || NetworkError::trying(format!("read the configuration of {}", link.name));
        let mut filter = AddressMessage::default();
        filter.header.index = link.index;
        let addresses = self.netlink.dump(RouteNetlinkMessage::GetAddress(filter)).await;
        let addresses = addresses.map_err(failed())?.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(address) if address.header.index == link.index => Some(address),
            _ => None,
        });
        let addresses: Vec<_> = addresses.collect();
        let by_hand: Vec<_> = addresses.iter().filter_map(subnet_by_hand).collect();
        let addresses = addresses.into_iter().filter_map(configured_address).collect();
        let mut forgotten = Forgotten { addresses, routes: Vec::new() };
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            filter.attributes.push(RouteAttribute::Oif(link.index));
            let routes = match self.netlink.dump(RouteNetlinkMessage::GetRoute(filter)).await {
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => continue,
                routes => routes.map_err(failed())?,
            };
            forgotten.routes.extend(routes.into_iter().filter_map(|message| match message {
                RouteNetlinkMessage::NewRoute(route) => configured_route(route, link.index, &by_hand),
                _ => None,
            }));
        }
        forgotten.routes.sort_by_key(|route| {
            route.attributes.iter().any(|a| matches!(a, RouteAttribute::Gateway(_) | RouteAttribute::Via(_)))
        });
        Ok(forgotten)
    }

    /// Brings back what others (a network manager) have not brought back already. Tries everything; the
    /// error is the first failure.
    pub(crate) async fn bring_back(&self, link: &Link, forgotten: Forgotten) -> Result<(), NetworkError> {
        let addresses = forgotten.addresses.into_iter().map(|address| {
            let what = address.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(a) => Some(format!("{a}/{}", address.header.prefix_len)),
                _ => None,
            });
            (what, RouteNetlinkMessage::NewAddress(address), NLM_F_CREATE | NLM_F_EXCL)
        });
        let routes = forgotten.routes.into_iter().map(|route| {
            let what = destination(&route);
            let what = what.map_or("the default route".to_owned(), |to| format!("the route to {to}"));
            (Some(what), RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_APPEND)
        });
        let mut failure = None;
        for (what, message, flags) in addresses.chain(routes) {
            let result: io::Result<()> = self.netlink.change(message, flags).await;
            match result {
                Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
                Err(e) => {
                    let what = what.unwrap_or_default();
                    let action = format!("bring {what} back after {} was set down and up", link.name);
                    failure.get_or_insert(NetworkError::trying(action)(e));
                }
                Ok(()) => {}
            }
        }
        // What the routes were for may have gone meanwhile, and the kernel makes its own with its own source.
        let tidied = self.remove_idle_routes().await;
        let renewed = self.renew_sources(link).await;
        failure.map_or(Ok(()), Err).and(tidied).and(renewed)
    }
}

/// The address's subnet, where the kernel adds no route to it by itself: NetworkManager does that, and
/// the route looks as if the kernel had made it.
fn subnet_by_hand(address: &AddressMessage) -> Option<IpNet> {
    let by_hand = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Flags(flags) => flags.contains(AddressFlags::Noprefixroute),
        _ => false,
    };
    if !address.attributes.iter().any(by_hand) {
        return None;
    }
    let within = address.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(within) => Some(*within),
        _ => None,
    })?;
    Some(IpNet::new(within, address.header.prefix_len).ok()?.trunc())
}

/// As it is to be added again, unless the kernel or a router advertisement made it, or vipd itself: a
/// virtual address may have been taken out of service meanwhile, and where it is to stay its check finds
/// it missing and recovers it.
fn configured_address(mut address: AddressMessage) -> Option<AddressMessage> {
    let permanent = address.header.flags.contains(AddressHeaderFlags::Permanent);
    let ours = address.attributes.contains(&AddressAttribute::Protocol(PROTOCOL.into()));
    let kept = address.header.family != AddressFamily::Inet6;
    if !permanent || ours || kept || address.header.scope == AddressScope::Link {
        return None;
    }
    // It was in use a moment ago, and without carrier the kernel could not look for duplicates.
    address.header.flags |= AddressHeaderFlags::Nodad;
    for attribute in &mut address.attributes {
        if let AddressAttribute::Flags(flags) = attribute {
            *flags |= AddressFlags::Nodad;
        }
    }
    Some(address)
}

/// As it is to be added again, unless the kernel, a redirect or a router advertisement made it.
fn configured_route(mut route: RouteMessage, ifindex: u32, by_hand: &[IpNet]) -> Option<RouteMessage> {
    let learnt = match route.header.protocol {
        RouteProtocol::Kernel => !destination(&route).is_some_and(|to| by_hand.contains(&to)),
        RouteProtocol::IcmpRedirect | RouteProtocol::Ra => true,
        _ => false,
    };
    let through = route.attributes.contains(&RouteAttribute::Oif(ifindex));
    if learnt || !through || route.header.kind != RouteType::Unicast {
        return None;
    }
    route.header.flags &= RouteFlags::Onlink;
    route.attributes.retain(|a| !matches!(a, RouteAttribute::CacheInfo(_)));
    Some(route)
}

/// None for a default route.
fn destination(route: &RouteMessage) -> Option<IpNet> {
    let to = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(to)) => Some(IpAddr::from(*to)),
        RouteAttribute::Destination(RouteAddress::Inet6(to)) => Some(IpAddr::from(*to)),
        _ => None,
    })?;
    IpNet::new(to, route.header.destination_prefix_length).ok()
}
