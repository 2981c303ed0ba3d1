//! ICMP and ICMPv6 echo from a given source address through a raw socket.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

use super::network::NetworkError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub from: IpAddr,
    pub sequence: u16,
    pub round_trip: Duration,
}

#[derive(Clone, Debug)]
pub struct Ping {
    pub source: Option<IpAddr>,
    /// Interface to send on (SO_BINDTODEVICE); needed for IPv6 link-local and multicast.
    pub device: Option<String>,
    pub tries: u32,
    /// Between tries, and after the last.
    pub wait: Duration,
    /// Answers from these do not count.
    pub exclude: Vec<IpAddr>,
    /// Return at the first answer that counts.
    pub first_only: bool,
}

impl Ping {
    /// Pings all targets at once; answers that count, from anyone pinged.
    pub async fn targets(&self, _targets: &[IpAddr]) -> Result<Vec<Reply>, NetworkError> {
        unimplemented!()
    }

    /// Pings the subnet's broadcast address and 255.255.255.255 (IPv4), or ff02::1 (IPv6); answers from
    /// any host that is not this one (its own addresses are excluded by itself).
    pub async fn broadcast(&self, _subnet: IpNet) -> Result<Vec<Reply>, NetworkError> {
        unimplemented!()
    }
}
