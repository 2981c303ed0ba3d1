//! Address assignment on this host through rtnetlink.

use std::{
    io,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, CacheInfo},
    link::{LinkAttribute, LinkMessage},
    neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAttribute, RouteMessage, RouteScope, RouteType},
};
use nix::libc;
use tokio::time::Instant;

use crate::observe::network::{Assigned, Link, Network, NetworkError};

/// IFA_PROTO of every address that vipd adds (Linux 5.18): leftovers are recognised after a crash.
pub const PROTOCOL: u8 = 0x76;

/// A lifetime without end (RFC 4861 section 4.6.2).
const FOREVER: u32 = u32::MAX;

/// How long a new IPv6 address is waited for to accept packets.
const LOCAL_ROUTE_WAIT: Duration = Duration::from_millis(500);

/// Deletions of neighbour entries that are under way at a time.
const NEIGHBOURS_AT_ONCE: usize = 64;

/// Writing to these empties the caches of learnt route exceptions.
const ROUTE_CACHES: [&str; 2] = ["/proc/sys/net/ipv4/route/flush", "/proc/sys/net/ipv6/route/flush"];

impl Network {
    /// Adds a secondary address that can be used when this returns, without duplicate address detection by the kernel (it is done
    /// before) and, for IPv6, never preferred as a source. It is no error when it is there already,
    /// whoever put it there. For IPv6 it is one when it is there with another prefix length; to the
    /// kernel, an IPv4 address with another prefix length is another address.
    ///
    /// The kernel makes an IPv4 address secondary when its subnet is on the interface already; the
    /// first of a subnet is primary and brings the subnet's route with it, without which no client
    /// on the segment could be answered. So IFA_F_NOPREFIXROUTE is never set.
    pub async fn add_address(&self, link: &Link, address: IpNet) -> Result<(), NetworkError> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let add = |protocol| RouteNetlinkMessage::NewAddress(new_address(link.index, address, protocol));
        let failed = || NetworkError::trying(format!("add {address} to {}", link.name));
        let mut result = self.netlink.change(add(Some(PROTOCOL)), flags).await;
        if matches!(&result, Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))) {
            // A kernel that refuses IFA_PROTO (those before 5.18 ignore it).
            result = self.netlink.change(add(None), flags).await;
        }
        match result {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {
                let there = self.snapshot().await?;
                let here = |a: &&_| assigned_here(a, link);
                match there.find(address.addr()).filter(here).map(|a| a.address).next() {
                    Some(other) if other.prefix_len() != address.prefix_len() => {
                        let reason = format!("it is there as {other}; delete that first");
                        Err(failed()(io::Error::new(io::ErrorKind::AlreadyExists, reason)))
                    }
                    _ => Ok(()),
                }
            }
            Err(e) if e.raw_os_error() == Some(libc::EACCES) && matches!(address, IpNet::V6(_)) => {
                let reason = format!("IPv6 is off there (sysctl net.ipv6.conf.{}.disable_ipv6)", link.name);
                Err(failed()(io::Error::new(e.kind(), reason)))
            }
            result => {
                result.map_err(failed())?;
                if let IpNet::V6(net) = address {
                    self.wait_until_local(link, net.addr()).await;
                }
                Ok(())
            }
        }
    }

    /// The kernel confirms an IPv6 address before it has made the local route by which packets to it are
    /// accepted (a work queue does that, also where no duplicates are looked for): announced in between,
    /// the address would draw traffic into the void. Without carrier the route comes with the carrier,
    /// so this does not wait long.
    async fn wait_until_local(&self, link: &Link, address: Ipv6Addr) {
        let deadline = Instant::now() + LOCAL_ROUTE_WAIT;
        let mut pause = Duration::from_millis(1);
        while !self.is_local(address).await {
            if Instant::now() >= deadline {
                let device = &link.name;
                tracing::info!(%address, device, "the address is assigned, but not accepting packets yet");
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(16));
        }
    }

    async fn is_local(&self, address: Ipv6Addr) -> bool {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        message.header.destination_prefix_length = 128;
        message.attributes.push(RouteAttribute::Destination(address.into()));
        let found = self.netlink.get(RouteNetlinkMessage::GetRoute(message)).await;
        found.is_ok_and(|routes| {
            routes.iter().any(|route| {
                matches!(route, RouteNetlinkMessage::NewRoute(r) if r.header.kind == RouteType::Local)
            })
        })
    }

    /// It is no error when it is not there.
    ///
    /// Deleting a primary IPv4 address takes all secondaries of its subnet along, other VIPs
    /// included, unless the kernel is told to promote one of them: so before an address that is
    /// primary is deleted, `promote_secondaries` is switched on for its interface, and left on, since
    /// switching it back would race with other deletions.
    pub async fn delete_address(&self, link: &Link, address: IpNet) -> Result<(), NetworkError> {
        let failed = || NetworkError::trying(format!("delete {address} from {}", link.name));
        if matches!(address, IpNet::V4(_)) {
            let there = self.snapshot().await?;
            if there.find(address.addr()).any(|a| assigned_here(a, link) && !a.secondary) {
                self.promote_secondaries(link).await?;
            }
        }
        let mut message = AddressMessage::default();
        message.header.family = family(address.addr());
        message.header.index = link.index;
        message.header.prefix_len = address.prefix_len();
        message.attributes =
            vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
        match self.netlink.change(RouteNetlinkMessage::DelAddress(message), 0).await {
            // A device that is gone has no addresses.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(()),
            result => result.map_err(failed()),
        }
    }

    /// Removes the host route in the local table that a removed address may leave behind. It is no
    /// error when there is none.
    pub async fn delete_host_route(&self, link: &Link, address: IpAddr) -> Result<(), NetworkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(address);
        message.header.destination_prefix_length = host_prefix_len(address);
        message.header.table = libc::RT_TABLE_LOCAL;
        message.header.kind = RouteType::Local;
        message.header.scope = match address {
            IpAddr::V4(_) => RouteScope::Host,
            IpAddr::V6(_) => RouteScope::Universe,
        };
        message.attributes =
            vec![RouteAttribute::Destination(address.into()), RouteAttribute::Oif(link.index)];
        match self.netlink.change(RouteNetlinkMessage::DelRoute(message), 0).await {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ESRCH | libc::ENODEV)) => Ok(()),
            result => {
                let action = format!("delete the host route of {address} on {}", link.name);
                result.map_err(NetworkError::trying(action))
            }
        }
    }

    /// Forgets learnt route exceptions (redirects, path MTUs). Where /proc/sys cannot be written
    /// (containers, a hardened unit) this is left to the kernel, which does the same by itself at
    /// every change of an IPv4 address.
    pub async fn flush_route_cache(&self) -> Result<(), NetworkError> {
        for path in ROUTE_CACHES {
            match std::fs::write(path, "-1") {
                Ok(()) => {}
                Err(e)
                    if matches!(
                        e.raw_os_error(),
                        Some(libc::ENOENT | libc::EROFS | libc::EACCES | libc::EPERM)
                    ) =>
                {
                    tracing::debug!(path, error = %e, "the route cache is left to the kernel");
                }
                Err(e) => return Err(NetworkError::trying(format!("flush the route cache ({path})"))(e)),
            }
        }
        Ok(())
    }

    /// Forgets the neighbours learnt on the interface; entries that somebody configured stay.
    pub async fn flush_neighbours(&self, link: &Link) -> Result<(), NetworkError> {
        let failed = || NetworkError::trying(format!("flush the neighbour entries of {}", link.name));
        let mut filter = NeighbourMessage::default();
        filter.attributes.push(NeighbourAttribute::IfIndex(link.index));
        let found = match self.netlink.dump(RouteNetlinkMessage::GetNeighbour(filter)).await {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
            found => found.map_err(failed())?,
        };
        let learnt = found.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(n) if n.header.ifindex == link.index => learnt(&n),
            _ => None,
        });
        stream::iter(learnt)
            .map(|entry| async move {
                match self.netlink.change(RouteNetlinkMessage::DelNeighbour(entry), 0).await {
                    // Aged out meanwhile.
                    Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
                    result => result,
                }
            })
            .buffer_unordered(NEIGHBOURS_AT_ONCE)
            .try_collect::<()>()
            .await
            .map_err(failed())
    }

    /// Through netlink and not /proc/sys, which may be read-only.
    async fn promote_secondaries(&self, link: &Link) -> Result<(), NetworkError> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        message.attributes.push(LinkAttribute::Other(promote_secondaries_attribute()));
        let result = self.netlink.change(RouteNetlinkMessage::SetLink(message), 0).await;
        result.map_err(NetworkError::trying(format!("switch on promote_secondaries for {}", link.name)))
    }
}

fn assigned_here(assigned: &Assigned, link: &Link) -> bool {
    assigned.index == link.index
}

fn new_address(ifindex: u32, address: IpNet, protocol: Option<u8>) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.index = ifindex;
    message.header.prefix_len = address.prefix_len();
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(address.addr()));
    match address {
        // RFC 3021: a prefix of 31 bits has no broadcast address, nor has a single host.
        IpNet::V4(net) if net.prefix_len() < 31 => {
            message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
        }
        IpNet::V4(_) => {}
        IpNet::V6(_) => {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            let mut lifetimes = CacheInfo::default();
            lifetimes.ifa_preferred = 0;
            lifetimes.ifa_valid = FOREVER;
            message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
        }
    }
    if let Some(protocol) = protocol {
        message.attributes.push(AddressAttribute::Protocol(AddressProtocol::from(protocol)));
    }
    message
}

/// What to delete, if the entry was learnt.
fn learnt(neighbour: &NeighbourMessage) -> Option<NeighbourMessage> {
    if matches!(neighbour.header.state, NeighbourState::Permanent | NeighbourState::Noarp) {
        return None;
    }
    let destination = neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(address) => Some(address.clone()),
        _ => None,
    })?;
    let mut entry = NeighbourMessage::default();
    entry.header.family = neighbour.header.family;
    entry.header.ifindex = neighbour.header.ifindex;
    entry.attributes.push(NeighbourAttribute::Destination(destination));
    Some(entry)
}

/// IFLA_AF_SPEC { AF_INET { IFLA_INET_CONF { PROMOTE_SECONDARIES: 1 } } }, as in the kernel's
/// `inet_set_link_af`.
fn promote_secondaries_attribute() -> DefaultNla {
    const IFLA_AF_SPEC: u16 = 26;
    const IFLA_INET_CONF: u16 = 1;
    const IPV4_DEVCONF_PROMOTE_SECONDARIES: u16 = 20;
    const HEADER: u16 = 4;
    let nested = |kind: u16| kind | libc::NLA_F_NESTED as u16;
    let mut value = Vec::with_capacity(16);
    for (length, kind) in [
        (4 * HEADER, nested(libc::AF_INET as u16)),
        (3 * HEADER, nested(IFLA_INET_CONF)),
        (2 * HEADER, IPV4_DEVCONF_PROMOTE_SECONDARIES),
    ] {
        value.extend_from_slice(&length.to_ne_bytes());
        value.extend_from_slice(&kind.to_ne_bytes());
    }
    value.extend_from_slice(&1u32.to_ne_bytes());
    DefaultNla::new(nested(IFLA_AF_SPEC), value)
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn host_prefix_len(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}
