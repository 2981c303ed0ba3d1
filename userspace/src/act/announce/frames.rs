//! The frames that announce an address, and their ways out: made by the kernel, or sent from here.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tracing::debug;

use crate::{
    act::datapath::{ANNOUNCE_CHUNK, Datapath, Generated},
    observe::{
        frame,
        network::{Link, Network},
        packet_socket::{ETH_P_ARP, ETH_P_IPV6, Outgoing},
    },
};

/// How the frames of a step look, whatever their address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look<'a> {
    pub(super) link: &'a Link,
    /// The interface forwards, so this host is a router there: neighbours take one that says otherwise
    /// off their list of routers (RFC 4861 section 7.2.5).
    pub(super) router: bool,
}

impl<'a> Look<'a> {
    pub(super) fn of(link: &'a Link) -> Self {
        // Which namespace's interface is meant is decided by the thread that reads. An interface without
        // IPv6 has no such file.
        let path = format!("/proc/sys/net/ipv6/conf/{}/forwarding", link.name);
        let forwarding = std::fs::read_to_string(path).unwrap_or_default();
        Self { link, router: !matches!(forwarding.trim(), "" | "0") }
    }

    /// The frame of a form, for an address; for none of the address' family where it is to be filled in.
    fn frame(&self, address: IpAddr, form: u32) -> Vec<u8> {
        match address {
            IpAddr::V4(a) => frame::gratuitous_arp(self.link.mac, a, form),
            IpAddr::V6(a) => frame::unsolicited_advertisement(self.link.mac, a, self.router),
        }
    }
}

/// Sends a frame for each, of the form beside it, from here. Answers those whose frame was dropped.
pub(super) fn send(network: &Network, look: Look<'_>, what: &[(u32, IpAddr)]) -> io::Result<Vec<IpAddr>> {
    let outgoing = |&(form, address): &(u32, IpAddr)| -> Outgoing {
        (if address.is_ipv4() { ETH_P_ARP } else { ETH_P_IPV6 }, look.frame(address, form))
    };
    let frames: Vec<_> = what.iter().map(outgoing).collect();
    let dropped = network.sender()?.send_all(look.link.index, &frames)?;
    Ok(dropped.into_iter().map(|i| what[i].1).collect())
}

/// As [`send`], the frames made by the kernel. None where it cannot make them; nothing was sent then.
pub(super) fn generate(
    datapath: &dyn Datapath,
    look: Look<'_>,
    what: &[(u32, IpAddr)],
) -> Option<Vec<IpAddr>> {
    let mut failed = Vec::new();
    let mut rest = what.to_vec();
    while let Some(&(form, first)) = rest.first() {
        let alike = |&(f, a): &(u32, IpAddr)| a.is_ipv4() == first.is_ipv4() && (f == form || a.is_ipv6());
        let addresses: Vec<_> =
            rest.extract_if(.., |entry| alike(entry)).map(|(_, address)| address).collect();
        let nobody: IpAddr = match first {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let frame = look.frame(nobody, form);
        for chunk in addresses.chunks(ANNOUNCE_CHUNK) {
            match datapath.announce(look.link.index, &frame, chunk) {
                Ok(Some(results)) => {
                    let unsent = results.iter().zip(chunk).filter(|(result, _)| **result != Generated::Sent);
                    failed.extend(unsent.map(|(_, address)| *address));
                }
                Ok(None) => return None,
                Err(error) => {
                    // What was sent already is sent a second time, which harms nobody.
                    debug!("{error}; sending the frames from user space");
                    return None;
                }
            }
        }
    }
    Some(failed)
}
