//! Gratuitous ARP and unsolicited neighbour advertisements.

use std::{io, net::IpAddr};

use crate::observe::{
    frame,
    network::{Link, Network, NetworkError},
    packet_socket::{ETH_P_ARP, ETH_P_IPV6, Outgoing},
};

impl Network {
    /// Tells the segment where the addresses are now: four gratuitous ARPs each (request and reply,
    /// each naming the VIP's own hardware address and broadcast as its target), or an unsolicited
    /// neighbour advertisement with the override flag to ff02::1 (RFC 4861 section 7.2.6). All frames
    /// go to everybody, in one batch, through tc egress: the egress guard lets them pass only while the
    /// gate is open.
    ///
    /// Where there is no Ethernet (loopback, tunnels) there is nobody to tell, which is no error.
    ///
    /// The error names the addresses of which frames were dropped on the way out.
    pub fn announce(&self, link: &Link, addresses: &[IpAddr]) -> Result<(), NetworkError> {
        if !link.is_ethernet() {
            return Ok(());
        }
        let (frames, of): (Vec<_>, Vec<_>) =
            addresses.iter().flat_map(|&a| frames(link, a).into_iter().map(move |f| (f, a))).unzip();
        let failed = || {
            NetworkError::trying(match addresses {
                [one] => format!("announce {one} on {}", link.name),
                many => format!("announce {} addresses on {}", many.len(), link.name),
            })
        };
        let sender = self.sender().map_err(failed())?;
        let dropped = sender.send_all(link.index, &frames).map_err(failed())?;
        if dropped.is_empty() {
            return Ok(());
        }
        let mut which: Vec<_> = dropped.iter().map(|&i| of[i].to_string()).collect();
        which.dedup();
        let reason = format!(
            "{} of {} frames were dropped on their way out (is the gate closed, or the transmit queue \
             full?): {}",
            dropped.len(),
            frames.len(),
            which.join(", ")
        );
        Err(failed()(io::Error::other(reason)))
    }
}

fn frames(link: &Link, address: IpAddr) -> Vec<Outgoing> {
    match address {
        IpAddr::V4(a) => frame::gratuitous_arps(link.mac, a).into_iter().map(|f| (ETH_P_ARP, f)).collect(),
        IpAddr::V6(a) => vec![(ETH_P_IPV6, frame::unsolicited_advertisement(link.mac, a))],
    }
}
