//! What requests look at on this host and its networks, as a trait: tests have no network.

use std::{io, net::IpAddr, time::Duration};

use async_trait::async_trait;

use crate::observe::{
    network::{Assigned, Link, Network, NetworkError},
    ping::Ping,
    probe,
};

#[async_trait]
pub trait Host: Send + Sync {
    async fn links(&self) -> Result<Vec<Link>, NetworkError>;

    async fn addresses(&self) -> Result<Vec<Assigned>, NetworkError>;

    /// Link-layer addresses of others that claim the address on the link.
    async fn claims(
        &self,
        link: &Link,
        address: IpAddr,
        wait: Duration,
    ) -> Result<Vec<[u8; 6]>, NetworkError>;

    /// Whether the address answers a ping through the link, within `wait`.
    async fn answers_ping(&self, link: &Link, address: IpAddr, wait: Duration) -> Result<bool, NetworkError>;

    /// Addresses of a name, from /etc/hosts and DNS.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The real one.
pub struct NetworkHost {
    network: Network,
}

impl NetworkHost {
    pub fn new(network: Network) -> Self {
        Self { network }
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

    async fn claims(
        &self,
        link: &Link,
        address: IpAddr,
        wait: Duration,
    ) -> Result<Vec<[u8; 6]>, NetworkError> {
        probe::claims(link, address, wait).await
    }

    async fn answers_ping(&self, link: &Link, address: IpAddr, wait: Duration) -> Result<bool, NetworkError> {
        const TRIES: u32 = 2;
        let ping = Ping {
            source: None,
            device: Some(link.name.clone()),
            tries: TRIES,
            wait: wait / TRIES,
            exclude: vec![],
            first_only: true,
        };
        Ok(!ping.targets(&[address]).await?.is_empty())
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

    #[tokio::test]
    async fn etc_hosts_is_asked() {
        let found = look_up("localhost").await.unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty(), "{found:?}");
        assert!(look_up("no-such-host.invalid").await.is_err());
    }
}
