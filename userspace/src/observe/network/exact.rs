//! Is this one address on that interface? Asked without listing the thousands of others.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
};

use ipnet::IpNet;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
};
use nix::{
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::{Assigned, Link, NetworkError, convert, netlink::Netlink};
use crate::model::with_length;

/// A socket for the ioctls of IPv4: netlink has no question about one address there.
pub(super) struct Asker(OwnedFd);

impl Asker {
    /// In the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self(socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?))
    }

    /// The address with its prefix length, if it is on the interface. Not found: one that somebody has
    /// given a label of its own (`eth0:1`).
    pub(super) fn find(&self, link: &Link, address: Ipv4Addr) -> Option<IpNet> {
        // The kernel takes the address that is passed as a hint, and answers with the interface's first
        // one when it does not fit.
        if self.ask(libc::SIOCGIFADDR, link, address)? != address {
            return None;
        }
        let mask = self.ask(libc::SIOCGIFNETMASK, link, address)?;
        with_length(address.into(), u32::from(mask).leading_ones() as u8)
    }

    fn ask(&self, request: libc::Ioctl, link: &Link, address: Ipv4Addr) -> Option<Ipv4Addr> {
        // SAFETY: ifreq is plain data, for which all zeros are a value.
        let mut question: libc::ifreq = unsafe { std::mem::zeroed() };
        let name = link.name.as_bytes();
        if name.len() >= question.ifr_name.len() {
            return None;
        }
        for (to, from) in question.ifr_name.iter_mut().zip(name) {
            *to = *from as libc::c_char;
        }
        let sought = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: u32::from(address).to_be() },
            sin_zero: [0; 8],
        };
        // SAFETY: both are 16 bytes of plain data, and the union is at least as aligned.
        question.ifr_ifru.ifru_addr =
            unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(sought) };
        // SAFETY: these two requests read and write one ifreq, which lives until after the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, &mut question) };
        if result != 0 {
            return None;
        }
        // SAFETY: after success this field of the union is a socket address of IPv4 (see above).
        let found =
            unsafe { std::mem::transmute::<libc::sockaddr, libc::sockaddr_in>(question.ifr_ifru.ifru_addr) };
        Some(Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr)))
    }
}

/// Where the IPv6 address is assigned, if anywhere. None as well where the kernel does not answer that.
pub(super) async fn find6(netlink: &Netlink, address: Ipv6Addr) -> Result<Option<Assigned>, NetworkError> {
    let mut message = AddressMessage::default();
    message.header.family = netlink_packet_route::AddressFamily::Inet6;
    message.attributes.push(AddressAttribute::Address(IpAddr::V6(address)));
    match netlink.get(RouteNetlinkMessage::GetAddress(message)).await {
        Ok(found) => Ok(found.iter().find_map(|m| match m {
            RouteNetlinkMessage::NewAddress(a) => convert::assigned(a),
            _ => None,
        })),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)) => Ok(None),
        Err(e) => Err(NetworkError::trying(format!("look for {address}"))(e)),
    }
}
