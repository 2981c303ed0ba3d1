//! Are addresses in use on the network already? (row IP-4)

use std::{collections::BTreeSet, net::IpAddr};

use super::{Context, Out, Result, progress};
use crate::{
    api::{ApiError, thousands},
    core::inspection::{Claim, Claimant, Conflict, Mac, Who},
    model::{ClusterState, NodeId, Ranges},
    observe::network::Link,
};

/// Addresses that are probed for at once.
pub(super) const AT_ONCE: usize = 1024;

/// Larger sets are probed for and not pinged, so that the pings that a host may send (see [`super::host`]) are left for
/// single addresses. A ping finds only those hosts in addition that do not answer ARP or neighbour solicitations
/// on the link.
const PINGED: u64 = 64;

/// Conflicts that are named; the rest are counted.
const NAMED: usize = 16;

impl Context {
    /// Whom this host meets on the link who uses some of the addresses, or answers a ping for them.
    pub(super) async fn look_for_duplicates(
        &self,
        link: &Link,
        hosts: &Ranges,
        out: &Out,
    ) -> Result<Vec<Claim>> {
        if self.tunables.read().no_unique_check {
            progress(out, "NOIPUNIQUE=1: not checked whether addresses are in use on the network").await;
            return Ok(Vec::new());
        }
        let total = hosts.count();
        match hosts.first() {
            Some(only) if total == 1 => {
                progress(out, format!("looking whether {only} is in use on {}", link.name)).await;
            }
            Some(_) | None => {
                let total = thousands(total);
                progress(out, format!("looking whether {total} addresses are in use on {}", link.name)).await;
            }
        }
        let mut found = Vec::new();
        let mut looked_at = 0;
        let mut all = hosts.iter();
        loop {
            let some: Vec<IpAddr> = all.by_ref().take(AT_ONCE).collect();
            if some.is_empty() {
                return Ok(found);
            }
            found.extend(self.look_for(link, &some, total <= PINGED).await?);
            looked_at += some.len() as u64;
            if looked_at < total {
                progress(out, format!("{} of {}", thousands(looked_at), thousands(total))).await;
            }
        }
    }

    async fn look_for(&self, link: &Link, some: &[IpAddr], ping: bool) -> Result<Vec<Claim>> {
        let wait = self.config.profile.timing().duplicate_wait;
        let pings = async {
            // A network that cannot be reached yet (an address of a new subnet) is no answer.
            if ping {
                self.host.answer_pings(link, some, wait).await.unwrap_or_default()
            } else {
                BTreeSet::new()
            }
        };
        let (heard, pinged) = tokio::join!(self.host.uses_of(link, some, wait), pings);
        let heard = heard.map_err(|e| {
            ApiError::failed(format!(
                "cannot find out whether {} is in use on {}: {e} (NOIPUNIQUE=1 in {} skips this check)",
                some.first().map(IpAddr::to_string).unwrap_or_default(),
                link.name,
                self.tunables.path().display()
            ))
        })?;
        let claim = |address, by| Claim { address, device: link.name.clone(), by };
        let heard = heard.into_iter().map(|h| {
            claim(h.address, if h.probing { Claimant::Prober(h.mac) } else { Claimant::Holder(h.mac) })
        });
        Ok(heard.chain(pinged.into_iter().map(|address| claim(address, Claimant::Pinged))).collect())
    }

    /// What is told of addresses in use: a text for each interface on which they were met.
    pub(super) fn told(&self, state: &ClusterState, me: NodeId, conflicts: &[Conflict]) -> Vec<String> {
        let places: BTreeSet<(NodeId, &str)> =
            conflicts.iter().map(|c| (c.seen_by, c.device.as_str())).collect();
        let there = |(node, device): (NodeId, &str)| {
            let some: Vec<&Conflict> =
                conflicts.iter().filter(|c| c.seen_by == node && c.device == device).collect();
            let place =
                if node == me { device.to_owned() } else { format!("{device} of {}", state.node_name(node)) };
            self.text(state, &place, &some)
        };
        places.into_iter().map(there).collect()
    }

    fn text(&self, state: &ClusterState, place: &str, conflicts: &[&Conflict]) -> String {
        let skip = format!("NOIPUNIQUE=1 in {} skips this check", self.tunables.path().display());
        if let [one] = conflicts {
            let address = one.address;
            let used = match who(state, one.who) {
                Some(name) => format!("{name} claims it on {place}"),
                None => format!("it answers a ping through {place}"),
            };
            return format!(
                "{address} is in use on the network: {used}; choose another address, or take it off that host ({skip})"
            );
        }
        let named = conflicts.iter().take(NAMED).map(|c| {
            let how = who(state, c.who).unwrap_or_else(|| "answers a ping".to_owned());
            format!("{} ({how})", c.address)
        });
        let mut named: Vec<String> = named.collect();
        let n = conflicts.len();
        if n > NAMED {
            named.push(format!("and {} more", thousands((n - NAMED) as u64)));
        }
        format!(
            "{} addresses are in use on the network, on {place}: {}; leave them out with --except, or take them off those \
             hosts ({skip})",
            thousands(n as u64),
            named.join(", ")
        )
    }
}

fn who(state: &ClusterState, who: Who) -> Option<String> {
    match who {
        Who::Member(node, mac) => Some(format!("node '{}' ({})", state.node_name(node), mac_text(&mac))),
        Who::Stranger(mac) => Some(mac_text(&mac)),
        Who::Pinged => None,
    }
}

fn mac_text(octets: &Mac) -> String {
    octets.map(|o| format!("{o:02x}")).join(":")
}
