//! Assigns addresses to interfaces of this host and takes them away.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, CacheInfo},
    link::{LinkAttribute, LinkMessage},
    route::RouteProtocol,
};
use nix::libc;
use tokio::time::Instant;

use crate::{
    model::Addresses,
    observe::network::{
        Link, Network, NetworkError,
        routes::{self, Of},
    },
};

/// IFA_PROTO of every address that vipd adds (Linux 5.18), and RTA_PROTOCOL of every route: leftovers are
/// recognised after a crash.
pub const PROTOCOL: u8 = 0x76;

/// A lifetime without end (RFC 4861 section 4.6.2).
const FOREVER: u32 = u32::MAX;

/// How long new IPv6 addresses are waited for to accept packets, and how much longer for each.
const LOCAL_ROUTE_WAIT: Duration = Duration::from_millis(500);
const LOCAL_ROUTE_WAIT_EACH: Duration = Duration::from_millis(1);

/// More IPv6 addresses than this are looked for in a list of all.
const ASKED_SINGLY: usize = 16;

impl Network {
    /// As [`Network::assign`], of one.
    pub async fn add_address(&self, link: &Link, address: IpNet) -> Result<(), NetworkError> {
        self.assign(link, &address.into()).await
    }

    /// As [`Network::unassign`], of one.
    pub async fn delete_address(&self, link: &Link, address: IpNet) -> Result<(), NetworkError> {
        self.unassign(link, &address.into()).await
    }

    /// Adds secondary addresses that can be used when this returns, without duplicate address detection by the
    /// kernel (it is done before) and, for IPv6, never preferred as a source. It is no error when one is
    /// there already, whoever put it there. For IPv6 it is one when it is there with another prefix
    /// length; to the kernel, an IPv4 address with another prefix length is another address. All are
    /// tried; the error is the first failure.
    ///
    /// The kernel makes an IPv4 address secondary when its subnet is on the interface already; the
    /// first of a subnet is primary and brings the subnet's route with it, without which no client
    /// on the segment could be answered. So IFA_F_NOPREFIXROUTE is never set.
    pub(crate) async fn assign(&self, link: &Link, addresses: &Addresses) -> Result<(), NetworkError> {
        let mut there = Vec::new();
        let mut failure = None;
        let mut added: Vec<IpNet> = addresses.iter().collect();
        let mut refused = self.try_assign(link, &added, Some(PROTOCOL)).await?;
        if refused.iter().any(|(_, e)| matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))) {
            // A kernel that refuses IFA_PROTO (those before 5.18 ignore it).
            let again: Vec<IpNet> = refused.into_iter().map(|(address, _)| address).collect();
            refused = self.try_assign(link, &again, None).await?;
        }
        let not_added: HashSet<IpNet> = refused.iter().map(|(address, _)| *address).collect();
        added.retain(|address| !not_added.contains(address));
        for (address, error) in refused {
            if error.raw_os_error() == Some(libc::EEXIST) {
                there.push(address);
            } else if failure.is_none() {
                failure = Some(refused_because(link, address, error));
            }
        }
        if failure.is_none() && there.iter().any(|a| matches!(a, IpNet::V6(_))) {
            failure = self.with_another_length(link, &there).await?;
        }
        let added: Vec<Ipv6Addr> = added.iter().filter_map(v6).collect();
        self.wait_until_local(link, &added).await;
        failure.map_or(Ok(()), Err)
    }

    async fn try_assign(
        &self,
        link: &Link,
        addresses: &[IpNet],
        protocol: Option<u8>,
    ) -> Result<Vec<(IpNet, io::Error)>, NetworkError> {
        let index = link.index;
        let message = move |a: IpNet| RouteNetlinkMessage::NewAddress(new_address(index, a, protocol));
        let messages = addresses.to_vec().into_iter().map(message);
        let refused = self.netlink.change_all(messages, NLM_F_CREATE | NLM_F_EXCL).await;
        let refused = refused.map_err(NetworkError::trying(format!("add addresses to {}", link.name)))?;
        Ok(refused.into_iter().map(|r| (addresses[r.at], r.error)).collect())
    }

    async fn with_another_length(
        &self,
        link: &Link,
        there: &[IpNet],
    ) -> Result<Option<NetworkError>, NetworkError> {
        let snapshot = self.snapshot().await?;
        Ok(there.iter().find_map(|address| {
            let mut here = snapshot.find(address.addr()).filter(|a| a.index == link.index);
            let other = here.next().map(|a| a.address)?;
            (other.prefix_len() != address.prefix_len()).then(|| {
                let reason = format!("it is there as {other}; delete that first");
                refused_because(link, *address, io::Error::new(io::ErrorKind::AlreadyExists, reason))
            })
        }))
    }

    /// The kernel confirms an IPv6 address before it has made the local route by which packets to it are
    /// accepted (a work queue does that, also where no duplicates are looked for): announced in between,
    /// the address would draw traffic into the void. Without carrier the routes come with the carrier,
    /// so this does not wait long.
    async fn wait_until_local(&self, link: &Link, addresses: &[Ipv6Addr]) {
        // The queue is usually worked off in order: the last one first, then the others need no wait.
        let Some(last) = addresses.last() else { return };
        let wait = LOCAL_ROUTE_WAIT + LOCAL_ROUTE_WAIT_EACH * addresses.len() as u32;
        let deadline = Instant::now() + wait;
        let mut pause = Duration::from_millis(1);
        while !self.are_local(&[*last]).await || !self.are_local(addresses).await {
            if Instant::now() >= deadline {
                let (device, count) = (&link.name, addresses.len());
                tracing::info!(%last, count, device, "addresses are assigned, but not accepting packets yet");
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(16));
        }
    }

    async fn are_local(&self, addresses: &[Ipv6Addr]) -> bool {
        if addresses.len() > ASKED_SINGLY {
            let kernel = Of::Protocol(RouteProtocol::Kernel.into());
            let Ok(found) = routes::local(&self.netlink, kernel).await else { return false };
            let found: HashSet<IpAddr> = found.iter().map(|r| r.net.addr()).collect();
            return addresses.iter().all(|a| found.contains(&IpAddr::V6(*a)));
        }
        for address in addresses {
            let route = routes::matching(&self.netlink, (*address).into()).await;
            if !route.is_ok_and(|r| r.as_ref().is_some_and(routes::is_local)) {
                return false;
            }
        }
        true
    }

    /// It is no error when they are not there. All are tried; the error is the first failure.
    ///
    /// Deleting a primary IPv4 address takes all secondaries of its subnet along, other VIPs
    /// included, unless the kernel is told to promote one of them: so before an address that is
    /// primary is deleted, `promote_secondaries` is switched on for its interface, and left on, since
    /// switching it back would race with other deletions.
    pub(crate) async fn unassign(&self, link: &Link, addresses: &Addresses) -> Result<(), NetworkError> {
        let mut all: Vec<IpNet> = addresses.iter().collect();
        if all.iter().any(|a| matches!(a, IpNet::V4(_))) {
            let there = self.snapshot().await?;
            let is_primary = |a: &IpNet| {
                matches!(a, IpNet::V4(_))
                    && there.find(a.addr()).any(|a| a.index == link.index && !a.secondary)
            };
            // Each that is deleted while it is primary makes the kernel go through all others.
            all.sort_by_cached_key(is_primary);
            if all.last().is_some_and(is_primary) {
                self.promote_secondaries(link).await?;
            }
        }
        let index = link.index;
        let delete = move |address| RouteNetlinkMessage::DelAddress(old_address(index, address));
        let failed = |what: String| NetworkError::trying(format!("delete {what} from {}", link.name));
        let refused = self.netlink.change_all(all.clone().into_iter().map(delete), 0).await;
        let refused = refused.map_err(failed(addresses.to_string()))?;
        // A device that is gone has no addresses.
        let gone = |e: &io::Error| matches!(e.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV));
        match refused.into_iter().find(|r| !gone(&r.error)) {
            Some(refusal) => Err(failed(all[refusal.at].to_string())(refusal.error)),
            None => Ok(()),
        }
    }

    /// Through netlink and not /proc/sys, which may be read-only.
    async fn promote_secondaries(&self, link: &Link) -> Result<(), NetworkError> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        message.attributes.push(LinkAttribute::Other(promote_secondaries_attribute()));
        match self.netlink.change(RouteNetlinkMessage::SetLink(message), 0).await {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            result => result
                .map_err(NetworkError::trying(format!("switch on promote_secondaries for {}", link.name))),
        }
    }
}

fn refused_because(link: &Link, address: IpNet, error: io::Error) -> NetworkError {
    let error = match (error.raw_os_error(), address) {
        (Some(libc::EACCES), IpNet::V6(_)) => {
            let reason = format!("IPv6 is off there (sysctl net.ipv6.conf.{}.disable_ipv6)", link.name);
            io::Error::new(error.kind(), reason)
        }
        _ => error,
    };
    NetworkError::trying(format!("add {address} to {}", link.name))(error)
}

fn v6(address: &IpNet) -> Option<Ipv6Addr> {
    match address {
        IpNet::V4(_) => None,
        IpNet::V6(net) => Some(net.addr()),
    }
}

fn new_address(ifindex: u32, address: IpNet, protocol: Option<u8>) -> AddressMessage {
    let mut message = old_address(ifindex, address);
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

/// What says which address is meant.
fn old_address(ifindex: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = routes::family(matches!(address, IpNet::V6(_)));
    message.header.index = ifindex;
    message.header.prefix_len = address.prefix_len();
    message.attributes =
        vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
    message
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
