//! The frames that announce an address, and their ways out: made by the kernel, or sent from here.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
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

/// What is sent in one round: every address once in each form, one form after another.
pub(super) struct Round<'a> {
    addresses: &'a [IpAddr],
    /// Of gratuitous ARPs.
    forms: Range<u32>,
    /// Advertisements go with the first form, also when there is none for ARP.
    advertise: bool,
    next: usize,
}

impl<'a> Round<'a> {
    pub(super) fn new(addresses: &'a [IpAddr], forms: Range<u32>, advertise: bool) -> Self {
        Self { addresses, forms, advertise, next: 0 }
    }

    /// The next frames, by form and address, at most [`ANNOUNCE_CHUNK`]; none at the end.
    pub(super) fn chunk(&mut self) -> Vec<(u32, IpAddr)> {
        let mut chunk = Vec::with_capacity(ANNOUNCE_CHUNK);
        while chunk.len() < ANNOUNCE_CHUNK && (self.advertise || !self.forms.is_empty()) {
            let Some(address) = self.addresses.get(self.next) else {
                self.next = 0;
                self.advertise = false;
                self.forms.next();
                continue;
            };
            self.next += 1;
            let wanted = if address.is_ipv4() { !self.forms.is_empty() } else { self.advertise };
            if wanted {
                chunk.push((self.forms.start, *address));
            }
        }
        chunk
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

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut round: Round<'_>) -> Vec<(u32, IpAddr)> {
        let mut all = Vec::new();
        loop {
            let chunk = round.chunk();
            assert!(chunk.len() <= ANNOUNCE_CHUNK);
            if chunk.is_empty() {
                return all;
            }
            all.extend(chunk);
        }
    }

    #[test]
    fn a_round_goes_form_by_form_and_advertises_once() {
        let [a, b, c] = ["10.0.0.1", "fd00::1", "10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
        let addresses = [a, b, c];
        let expected = [(0, a), (0, b), (0, c), (1, a), (1, c), (2, a), (2, c)];
        assert_eq!(all(Round::new(&addresses, 0..3, true)), expected);
        assert_eq!(all(Round::new(&addresses, 1..3, false)), expected[3..]);
        assert_eq!(all(Round::new(&addresses, 0..0, true)), [(0, b)]);
        assert_eq!(all(Round::new(&addresses, 0..0, false)), []);
        assert_eq!(all(Round::new(&[], 0..3, true)), []);
    }

    #[test]
    fn chunks_are_full_up_to_the_last() {
        let addresses: Vec<_> = (0..=255).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        let mut round = Round::new(&addresses[..50], 0..2, true);
        let lengths = std::iter::from_fn(|| Some(round.chunk().len()).filter(|length| *length > 0));
        assert_eq!(lengths.collect::<Vec<_>>(), [32, 32, 32, 4]);
    }
}
