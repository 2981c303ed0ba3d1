//! Does somebody else use the addresses that are about to be brought up?

use std::collections::BTreeSet;

use async_trait::async_trait;
use futures::future::join_all;

use super::{Executor, failed};
use crate::{
    core::command::{Claim, Effect},
    model::Addresses,
    observe::{
        network::{NetworkError, mac_text},
        probe::{ADDRESSES_PER_SOCKET, Heard, uses_of},
    },
};

/// The other nodes of the cluster.
#[async_trait]
pub trait Siblings: Send + Sync {
    /// The link-layer addresses of those that can be asked now. Takes a second at most.
    async fn macs(&self) -> BTreeSet<[u8; 6]>;
}

/// Of a host that belongs to no cluster.
pub struct NoSiblings;

#[async_trait]
impl Siblings for NoSiblings {
    async fn macs(&self) -> BTreeSet<[u8; 6]> {
        BTreeSet::new()
    }
}

impl Executor {
    pub(super) async fn probe(&self, addresses: &Addresses, device: &str) -> Effect {
        let heard = match self.heard(addresses, device).await {
            Ok(heard) => heard,
            Err(error) => return failed(&error),
        };
        // A node that checks an operator's change may look for the same address: it will find that the cluster has
        // given it to this node.
        let siblings =
            if heard.iter().any(|h| h.probing) { self.siblings.macs().await } else { BTreeSet::new() };
        let matters = heard.into_iter().filter(|h| !h.probing || !siblings.contains(&h.mac));
        Effect::Claims(matters.map(|h| Claim { address: h.address, by: mac_text(h.mac) }).collect())
    }

    async fn heard(&self, addresses: &Addresses, device: &str) -> Result<Vec<Heard>, NetworkError> {
        let link = &self.network.link(device).await?;
        if addresses.count() > ADDRESSES_PER_SOCKET as u64 {
            return uses_of(link, addresses.hosts().iter(), self.duplicate_wait).await;
        }
        let probes = addresses.iter().map(|a| self.prober.uses(link, a.addr(), self.duplicate_wait));
        let all: Result<Vec<_>, _> = join_all(probes).await.into_iter().collect();
        Ok(all?.concat())
    }
}
