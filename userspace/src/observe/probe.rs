//! Does anybody else use this address? ARP probe (RFC 5227 section 2.1.1) or neighbour solicitation
//! for duplicate address detection (RFC 4862 section 5.4.2), from a raw socket.

use std::{net::IpAddr, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{
    frame::{self, Mac},
    network::{self, Link, NetworkError, netlink::Netlink},
    packet_socket::{ETH_P_ARP, ETH_P_IPV6, Listener},
};

/// PROBE_NUM of RFC 5227 section 1.1.
const PROBES: u32 = 3;

/// Longest frame that is looked at: neighbour advertisements have at most a few options.
const FRAME_BYTES: usize = 1514;

/// Sends probes on the link, spread over `wait`, and answers the distinct link-layer addresses, not
/// this host's own, that claim `address` until then. Returns early once one was heard.
///
/// Another host's simultaneous probe for the address counts as a claim, as the RFCs ask; so two hosts
/// must not check the same address at the same time unless at least one of them is to be refused.
pub async fn claims(link: &Link, address: IpAddr, wait: Duration) -> Result<Vec<[u8; 6]>, NetworkError> {
    let failed = || NetworkError::trying(format!("probe for duplicates of {address} on {}", link.name));
    let (protocol, probe, group) = match address {
        IpAddr::V4(a) => (ETH_P_ARP, frame::arp_probe(link.mac, a), None),
        IpAddr::V6(a) => {
            let group = frame::multicast_mac(frame::solicited_node(a));
            (ETH_P_IPV6, frame::duplicate_address_solicitation(link.mac, a), Some(group))
        }
    };
    // Listening begins before anything is sent, so that no answer can be too early.
    let listener =
        Listener::open(link.index, protocol, &frame::claim_filter(address), group).map_err(failed())?;
    let mut others = Others::new(link.mac);
    let start = Instant::now();
    for n in 0..PROBES {
        listener.send(&probe).map_err(failed())?;
        let until = start + wait * (n + 1) / PROBES;
        while let Ok(heard) = timeout_at(until, claim(&listener, address)).await {
            if others.are(heard.map_err(failed())?).await? {
                return Ok(others.found);
            }
        }
    }
    Ok(others.found)
}

async fn claim(listener: &Listener, address: IpAddr) -> std::io::Result<Mac> {
    let mut buffer = [0; FRAME_BYTES];
    loop {
        let length = listener.receive(&mut buffer).await?;
        if let Some(claimant) = frame::claimant(&buffer[..length], address) {
            return Ok(claimant);
        }
    }
}

/// Tells other hosts from this one, whose other interfaces on the same segment may answer too.
struct Others {
    own: Vec<Mac>,
    asked: bool,
    found: Vec<Mac>,
}

impl Others {
    fn new(own: Mac) -> Self {
        Self { own: vec![own], asked: false, found: Vec::new() }
    }

    /// Whether the claimant is another host. The host's links are read at the first claim: normally
    /// there is none, and a takeover probes for hundreds of addresses at once.
    async fn are(&mut self, claimant: Mac) -> Result<bool, NetworkError> {
        if !self.own.contains(&claimant) && !self.asked {
            let netlink = Netlink::open().map_err(NetworkError::trying("open a netlink socket"))?;
            self.own.extend(network::links(&netlink).await?.into_iter().map(|link| link.mac));
            self.asked = true;
        }
        let other = !self.own.contains(&claimant);
        if other && !self.found.contains(&claimant) {
            self.found.push(claimant);
        }
        Ok(other)
    }
}
