//! The subnet of addresses without an assigned one must be reachable through their interface, and what
//! several resources share there goes with the last one that needs it.

use std::io;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType},
};
use nix::libc;

use crate::{
    act::address::PROTOCOL,
    model::{Addresses, Range, Ranges},
    observe::network::{
        Link, Network, NetworkError,
        routes::{self, Of},
    },
};

impl Network {
    /// Makes a route to each subnet that has none on the interface, and lets the interface hear the
    /// solicitations for IPv6 addresses. To be called when the local routes are there: otherwise
    /// [`Network::tidy`] would take away what nobody seems to need.
    pub(super) async fn reach(&self, link: &Link, addresses: &Addresses) -> Result<(), NetworkError> {
        let mut kept = self.kept.lock().await;
        for v6 in [false, true] {
            let mut subnets = addresses.subnets().filter(|s| matches!(s, IpNet::V6(_)) == v6).peekable();
            if subnets.peek().is_none() {
                continue;
            }
            let there = routes::on_link(&self.netlink, link.index, v6).await?;
            for subnet in subnets {
                if !there.iter().any(|route| reaches(route, subnet)) {
                    self.add_connected(link, subnet).await?;
                }
            }
            if v6 {
                self.hear_all(link, &mut kept).await?;
            }
        }
        Ok(())
    }

    async fn add_connected(&self, link: &Link, subnet: IpNet) -> Result<(), NetworkError> {
        let message = RouteNetlinkMessage::NewRoute(connected(link.index, subnet));
        // To append leaves the same subnet's routes on other interfaces where they are.
        let append = if matches!(subnet, IpNet::V4(_)) { NLM_F_APPEND } else { 0 };
        match self.netlink.change(message, NLM_F_CREATE | append).await {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            result => {
                let action = format!("add a route to {subnet} through {}", link.name);
                result.map_err(NetworkError::trying(action))
            }
        }
    }

    /// Takes away, on all interfaces, what no local route of ours needs any more. Many callers at once
    /// share one look at what remains.
    pub(super) async fn tidy(&self) -> Result<(), NetworkError> {
        let work = || async { self.tidy_now().await.map_err(|e| e.to_string()) };
        let result = self.tidied.get(work).await;
        result.map_err(|reason| NetworkError::trying("tidy up after local routes")(io::Error::other(reason)))
    }

    async fn tidy_now(&self) -> Result<(), NetworkError> {
        let mut kept = self.kept.lock().await;
        let connected = self.our_connected().await?;
        if connected.is_empty() && kept.allmulti.is_empty() {
            return Ok(());
        }
        let remaining = routes::local(&self.netlink, Of::Protocol(PROTOCOL)).await?;
        let on = |index: u32| -> Ranges {
            remaining.iter().filter(|r| r.index == index).map(|r| Range::from(r.net)).collect()
        };
        for route in connected {
            let (Some(net), Some(index)) = (routes::destination(&route), routes::oif(&route)) else {
                continue;
            };
            let subnet: Ranges = [Range::from(net)].into_iter().collect();
            if on(index).intersection(&subnet).is_empty() {
                self.delete_connected(net, route).await?;
            }
        }
        self.stop_hearing_all(&mut kept, |index| {
            remaining.iter().any(|r| r.index == index && matches!(r.net, IpNet::V6(_)))
        })
        .await
    }

    async fn delete_connected(&self, net: IpNet, route: RouteMessage) -> Result<(), NetworkError> {
        match self.netlink.change(RouteNetlinkMessage::DelRoute(clean(route)), 0).await {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ESRCH | libc::ENODEV)) => Ok(()),
            result => result.map_err(NetworkError::trying(format!("delete the route to {net}"))),
        }
    }

    async fn our_connected(&self) -> Result<Vec<RouteMessage>, NetworkError> {
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            all.extend(routes::of_protocol(&self.netlink, family, PROTOCOL).await?);
        }
        all.retain(routes::is_on_link);
        Ok(all)
    }
}

/// Whether packets to the subnet leave by the route's interface, as far as this route is concerned.
pub(super) fn reaches(route: &RouteMessage, subnet: IpNet) -> bool {
    routes::destination(route).is_some_and(|net| net.contains(&subnet))
}

fn connected(index: u32, subnet: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = routes::family(matches!(subnet, IpNet::V6(_)));
    message.header.destination_prefix_length = subnet.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = PROTOCOL.into();
    message.header.kind = RouteType::Unicast;
    message.header.scope = match subnet {
        IpNet::V4(_) => RouteScope::Link,
        IpNet::V6(_) => RouteScope::Universe,
    };
    message.attributes = vec![RouteAttribute::Destination(subnet.addr().into()), RouteAttribute::Oif(index)];
    message
}

/// As the kernel takes back what it gave.
pub(super) fn clean(mut route: RouteMessage) -> RouteMessage {
    route.header.flags &= netlink_packet_route::route::RouteFlags::Onlink;
    route.attributes.retain(|a| !matches!(a, RouteAttribute::CacheInfo(_)));
    route
}
