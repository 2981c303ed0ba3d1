//! ICMP and ICMPv6 echo from a given source address through a raw socket.

mod echo;
mod socket;

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;
use tokio::time::{Instant, timeout_at};

use self::{echo::Identity, socket::Sockets};
use super::network::{NetworkError, Snapshot, netlink::Netlink, routes};

/// An answer that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub from: IpAddr,
    /// Which try it answers, from 1.
    pub sequence: u16,
    pub round_trip: Duration,
}

/// How to ping.
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
    /// Pings all targets at once; answers that count, from anyone pinged, each answer once. Returns
    /// early when everybody has answered the last try.
    ///
    /// An error when nothing could be sent at all. A target that cannot be reached has not answered.
    pub async fn targets(&self, targets: &[IpAddr]) -> Result<Vec<Reply>, NetworkError> {
        let pinged: HashSet<IpAddr> = targets.iter().copied().filter(|t| !self.exclude.contains(t)).collect();
        let targets: Vec<_> = pinged.iter().copied().collect();
        let what = match targets.as_slice() {
            [] => return Ok(Vec::new()),
            [one] => one.to_string(),
            many => format!("{} addresses", many.len()),
        };
        let mut judge = Judge { exclude: &self.exclude, pinged: Some(pinged), own: None };
        self.run(&targets, &mut judge).await.map_err(|e| self.failed(&what, e))
    }

    /// Pings the subnet's broadcast address and 255.255.255.255 (IPv4), or ff02::1 (IPv6); answers from
    /// any host that is not this one (its own addresses are excluded by itself). Needs a device.
    pub async fn broadcast(&self, subnet: IpNet) -> Result<Vec<Reply>, NetworkError> {
        let targets = match subnet {
            // A prefix of 31 bits or a single host has no broadcast address (RFC 3021).
            IpNet::V4(net) if net.prefix_len() < 31 => {
                vec![IpAddr::V4(net.broadcast()), IpAddr::V4(Ipv4Addr::BROADCAST)]
            }
            IpNet::V4(_) => vec![IpAddr::V4(Ipv4Addr::BROADCAST)],
            IpNet::V6(_) => vec![IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1))],
        };
        let what = format!("everybody in {}", subnet.trunc());
        if self.device.is_none() {
            let reason = io::Error::new(io::ErrorKind::InvalidInput, "name the interface to send on");
            return Err(self.failed(&what, reason));
        }
        let mut judge = Judge { exclude: &self.exclude, pinged: None, own: None };
        self.run(&targets, &mut judge).await.map_err(|e| self.failed(&what, e))
    }

    fn failed(&self, what: &str, reason: io::Error) -> NetworkError {
        let from = self.source.map(|s| format!(" from {s}")).unwrap_or_default();
        let on = self.device.as_ref().map(|d| format!(" on {d}")).unwrap_or_default();
        NetworkError::trying(format!("ping {what}{from}{on}"))(reason)
    }

    /// An IPv6 address by which this host is reached without its being assigned needs another way to bind.
    async fn sockets(&self, targets: &[IpAddr]) -> io::Result<Sockets> {
        let open = |freely| Sockets::open(self.source, self.device.as_deref(), targets, freely);
        match (open(false), self.source) {
            (Err(e), Some(source @ IpAddr::V6(_))) if e.kind() == io::ErrorKind::AddrNotAvailable => {
                let netlink = Netlink::open()?;
                let route = routes::matching(&netlink, source).await.map_err(io::Error::other)?;
                if route.as_ref().is_some_and(routes::is_local) { open(true) } else { Err(e) }
            }
            (result, _) => result,
        }
    }

    async fn run(&self, targets: &[IpAddr], judge: &mut Judge<'_>) -> io::Result<Vec<Reply>> {
        let sockets = self.sockets(targets).await?;
        let identity = Identity::new()?;
        let tries = u16::try_from(self.tries).unwrap_or(u16::MAX);
        let mut replies = Vec::<Reply>::new();
        let mut sent_at = Vec::with_capacity(tries.into());
        let mut sent_any = false;
        let start = Instant::now();
        for sequence in 1..=tries {
            sent_at.push(Instant::now());
            let result = sockets.send_all(targets, &identity, sequence);
            sent_any |= result.is_ok();
            if let Err(error) = result
                && sequence == tries
                && !sent_any
            {
                return Err(error);
            }
            let until = start + self.wait * sequence.into();
            while let Ok(heard) = timeout_at(until, sockets.receive(&identity)).await {
                let (from, sequence) = heard?;
                // A sequence number that was not used yet is nobody's answer.
                let Some(sent) = usize::from(sequence).checked_sub(1).and_then(|i| sent_at.get(i)) else {
                    continue;
                };
                let round_trip = sent.elapsed();
                let twice = replies.iter().any(|r| (r.from, r.sequence) == (from, sequence));
                if twice || !judge.counts(from).await? {
                    continue;
                }
                replies.push(Reply { from, sequence, round_trip });
                let complete = sequence == tries && judge.all_answered(&replies, tries);
                if self.first_only || complete {
                    return Ok(replies);
                }
            }
        }
        Ok(replies)
    }
}

/// Decides whose answers count.
struct Judge<'a> {
    exclude: &'a [IpAddr],
    /// Answers of others do not count; None: everybody was pinged but this host itself.
    pinged: Option<HashSet<IpAddr>>,
    /// What this host accepts packets for, read at the first answer.
    own: Option<Snapshot>,
}

impl Judge<'_> {
    async fn counts(&mut self, from: IpAddr) -> io::Result<bool> {
        if self.exclude.contains(&from) {
            return Ok(false);
        }
        if let Some(pinged) = &self.pinged {
            return Ok(pinged.contains(&from));
        }
        let own = match &mut self.own {
            Some(own) => own,
            none => none.insert(own_addresses().await?),
        };
        Ok(!own.contains(from))
    }

    fn all_answered(&self, replies: &[Reply], sequence: u16) -> bool {
        self.pinged
            .as_ref()
            .is_some_and(|pinged| replies.iter().filter(|r| r.sequence == sequence).count() == pinged.len())
    }
}

async fn own_addresses() -> io::Result<Snapshot> {
    let netlink = Netlink::open()?;
    Snapshot::read(&netlink).await.map_err(io::Error::other)
}
