//! Reads an interface's facts at once, without the daemon's netlink task: for tools and tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo};
use nix::{
    ifaddrs::getifaddrs,
    net::if_::if_nametoindex,
    sys::socket::{SockaddrLike as _, SockaddrStorage},
};

use super::{DatapathError, InterfaceFacts, bpffs::failed, query};

/// The facts of an interface of the calling thread's network namespace; all of its present addresses
/// count as stationary.
pub fn facts(name: &str, broadcast_pings_per_second: u32) -> Result<InterfaceFacts, DatapathError> {
    let action = || format!("look at interface {name}");
    let index = if_nametoindex(name).map_err(|error| failed(action(), error))?;
    let link = query::link(index).map_err(|error| failed(action(), error))?;
    let mut mac = None;
    let mut kind = None;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(address) => mac = address.as_slice().try_into().ok(),
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind_name(kind)),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let mac = mac.ok_or_else(|| failed(action(), "it has no Ethernet address"))?;
    let mut facts = InterfaceFacts {
        index,
        name: name.to_owned(),
        mac,
        kind,
        broadcast_pings_per_second,
        stationary_v4: Vec::new(),
        link_local: None,
        global_v6: None,
        router: router(name),
    };
    let addresses = getifaddrs().map_err(|error| failed(action(), error))?;
    for entry in addresses.filter(|entry| entry.interface_name == name) {
        match entry.address.as_ref().and_then(ip) {
            Some(IpAddr::V4(address)) => {
                if let Some(broadcast) = entry.broadcast.as_ref().and_then(v4) {
                    facts.stationary_v4.push((address, broadcast));
                }
            }
            Some(IpAddr::V6(address)) if address.is_unicast_link_local() => {
                facts.link_local.get_or_insert(address);
            }
            Some(IpAddr::V6(address)) => {
                facts.global_v6.get_or_insert(address);
            }
            None => {}
        }
    }
    Ok(facts)
}

/// Whether the kernel forwards IPv6 packets that arrive there. Not where it has no IPv6.
pub fn router(interface: &str) -> bool {
    let setting = format!("/proc/sys/net/ipv6/conf/{interface}/forwarding");
    std::fs::read_to_string(setting).is_ok_and(|text| text.trim() != "0")
}

/// As `ip link` calls it.
fn kind_name(kind: &InfoKind) -> String {
    kind.to_string()
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    v4(address).map(IpAddr::V4).or_else(|| v6(address).map(IpAddr::V6))
}

fn v4(address: &SockaddrStorage) -> Option<Ipv4Addr> {
    address.family().and_then(|_| address.as_sockaddr_in()).map(|address| address.ip())
}

fn v6(address: &SockaddrStorage) -> Option<Ipv6Addr> {
    address.as_sockaddr_in6().map(|address| address.ip())
}
