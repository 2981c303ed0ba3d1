//! What requests look at on this host and its networks, as a trait: tests have no network.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;

use crate::observe::{
    network::{Assigned, Link, Network, NetworkError},
    ping::Ping,
    probe::{self, Heard},
};

#[async_trait]
pub trait Host: Send + Sync {
    async fn links(&self) -> Result<Vec<Link>, NetworkError>;

    async fn addresses(&self) -> Result<Vec<Assigned>, NetworkError>;

    /// Those of the addresses that others claim on the link, or probe for.
    async fn uses_of(
        &self,
        link: &Link,
        addresses: &[IpAddr],
        wait: Duration,
    ) -> Result<Vec<Heard>, NetworkError>;

    /// Those of the addresses that answer a ping through the link, within `wait`. None are pinged while there were
    /// too many of late.
    async fn answer_pings(
        &self,
        link: &Link,
        addresses: &[IpAddr],
        wait: Duration,
    ) -> Result<BTreeSet<IpAddr>, NetworkError>;

    /// Addresses of a name, from /etc/hosts and DNS.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// How many addresses may be pinged in [`Allowance::PER`]. Each that nobody has costs the kernel a neighbour entry for
/// many seconds, of which it holds 1,024 by default, and for whom there is no entry left nothing is sent: not even
/// heartbeats to the peers.
const PINGED: usize = 256;

/// Pings that are still allowed.
#[derive(Debug)]
struct Allowance {
    since: Instant,
    left: usize,
}

impl Allowance {
    const PER: Duration = Duration::from_secs(60);

    fn take(&mut self, count: usize, now: Instant) -> bool {
        if now.duration_since(self.since) >= Self::PER {
            *self = Self { since: now, left: PINGED };
        }
        let left = self.left.checked_sub(count);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

/// The real one.
pub struct NetworkHost {
    network: Network,
    pings: Mutex<Allowance>,
}

impl NetworkHost {
    pub fn new(network: Network) -> Self {
        Self { network, pings: Mutex::new(Allowance { since: Instant::now(), left: PINGED }) }
    }
}

#[async_trait]
impl Host for NetworkHost {
    async fn links(&self) -> Result<Vec<Link>, NetworkError> {
        self.network.links().await
    }

    async fn addresses(&self) -> Result<Vec<Assigned>, NetworkError> {
        self.network.addresses().await
    }

    async fn uses_of(
        &self,
        link: &Link,
        addresses: &[IpAddr],
        wait: Duration,
    ) -> Result<Vec<Heard>, NetworkError> {
        probe::uses_of(link, addresses.iter().copied(), wait).await
    }

    async fn answer_pings(
        &self,
        link: &Link,
        addresses: &[IpAddr],
        wait: Duration,
    ) -> Result<BTreeSet<IpAddr>, NetworkError> {
        const TRIES: u32 = 2;
        let allowed = {
            let mut pings = self.pings.lock().unwrap_or_else(PoisonError::into_inner);
            pings.take(addresses.len(), Instant::now())
        };
        if !allowed {
            return Ok(BTreeSet::new());
        }
        let ping = Ping {
            source: None,
            device: Some(link.name.clone()),
            tries: TRIES,
            wait: wait / TRIES,
            exclude: vec![],
            first_only: addresses.len() == 1,
        };
        Ok(ping.targets(addresses).await?.into_iter().map(|reply| reply.from).collect())
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        look_up(name).await
    }
}

/// Asks the host's resolver, which asks /etc/hosts and DNS in the order that it is configured for.
async fn look_up(name: &str) -> io::Result<Vec<IpAddr>> {
    let mut found: Vec<IpAddr> = Vec::new();
    for address in tokio::net::lookup_host((name, 0)).await? {
        if !found.contains(&address.ip()) {
            found.push(address.ip());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_pings_are_not_all_sent_and_a_minute_later_some_are() {
        let start = Instant::now();
        let mut pings = Allowance { since: start, left: PINGED };
        assert!(pings.take(200, start) && !pings.take(57, start), "too many");
        assert!(pings.take(56, start) && !pings.take(1, start), "fewer still fit");
        let later = start + Allowance::PER;
        assert!(pings.take(256, later) && !pings.take(1, later));
    }

    #[tokio::test]
    async fn etc_hosts_is_asked() {
        let found = look_up("localhost").await.unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty(), "{found:?}");
        assert!(look_up("no-such-host.invalid").await.is_err());
    }
}
