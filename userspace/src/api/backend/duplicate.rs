//! Are addresses in use on the network already? (row IP-4)

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Context, Out, Result, progress};
use crate::{
    api::{ApiError, thousands},
    model::Ranges,
    observe::network::Link,
};

/// Addresses that are probed for at once.
const AT_ONCE: usize = 1024;

/// Larger sets are probed for and not pinged: each address that nobody has would cost this host's kernel a
/// neighbour entry for seconds, of which it holds 1,024 by default. A ping finds only those hosts in addition
/// that do not answer ARP or neighbour solicitations on the link.
const PINGED: u64 = 256;

/// Conflicts that are named; the rest are counted.
const NAMED: usize = 16;

/// Who has an address: its link-layer address, or None for whoever answered a ping.
type Conflicts = BTreeMap<IpAddr, Option<[u8; 6]>>;

impl Context {
    /// Refuses addresses that somebody else claims or that answer a ping; all of them at once.
    pub(super) async fn refuse_duplicates(&self, link: &Link, hosts: &Ranges, out: &Out) -> Result<()> {
        if self.tunables.read().no_unique_check {
            progress(out, "NOIPUNIQUE=1: not checked whether addresses are in use on the network").await;
            return Ok(());
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
        let mut conflicts = Conflicts::new();
        let mut looked_at = 0;
        let mut all = hosts.iter();
        loop {
            let some: Vec<IpAddr> = all.by_ref().take(AT_ONCE).collect();
            if some.is_empty() {
                break;
            }
            self.look_for(link, &some, total <= PINGED, &mut conflicts).await?;
            looked_at += some.len() as u64;
            if looked_at < total {
                progress(out, format!("{} of {}", thousands(looked_at), thousands(total))).await;
            }
        }
        self.judge(link, &conflicts)
    }

    async fn look_for(&self, link: &Link, some: &[IpAddr], ping: bool, found: &mut Conflicts) -> Result<()> {
        let wait = self.config.profile.timing().duplicate_wait;
        let pings = async {
            // A network that cannot be reached yet (an address of a new subnet) is no answer.
            if ping {
                self.host.answer_pings(link, some, wait).await.unwrap_or_default()
            } else {
                BTreeSet::new()
            }
        };
        let (claims, pinged) = tokio::join!(self.host.claims_of(link, some, wait), pings);
        let claims = claims.map_err(|e| {
            ApiError::failed(format!(
                "cannot find out whether {} is in use on {}: {e} (NOIPUNIQUE=1 in {} skips this check)",
                some.first().map(IpAddr::to_string).unwrap_or_default(),
                link.name,
                self.tunables.path().display()
            ))
        })?;
        for address in pinged {
            found.entry(address).or_insert(None);
        }
        for (address, mac) in claims {
            found.insert(address, Some(mac));
        }
        Ok(())
    }

    fn judge(&self, link: &Link, conflicts: &Conflicts) -> Result<()> {
        let device = &link.name;
        let skip = format!("NOIPUNIQUE=1 in {} skips this check", self.tunables.path().display());
        let mut all = conflicts.iter();
        let message = match (all.next(), conflicts.len()) {
            (None, _) => return Ok(()),
            (Some((address, Some(mac))), 1) => format!(
                "{address} is in use on the network: {} claims it on {device}; choose another address, or take it off \
                 that host ({skip})",
                mac_text(mac)
            ),
            (Some((address, None)), 1) => format!(
                "{address} is in use on the network: it answers a ping through {device}; choose another address, or \
                 take it off that host ({skip})"
            ),
            (Some(_), n) => {
                let mut named: Vec<String> = conflicts
                    .iter()
                    .take(NAMED)
                    .map(|(address, mac)| match mac {
                        Some(mac) => format!("{address} ({})", mac_text(mac)),
                        None => format!("{address} (answers a ping)"),
                    })
                    .collect();
                if n > NAMED {
                    named.push(format!("and {} more", thousands((n - NAMED) as u64)));
                }
                format!(
                    "{} addresses are in use on the network, on {device}: {}; leave them out with --except, or take \
                     them off those hosts ({skip})",
                    thousands(n as u64),
                    named.join(", ")
                )
            }
        };
        Err(ApiError::refused(message))
    }
}

fn mac_text(octets: &[u8; 6]) -> String {
    octets.map(|o| format!("{o:02x}")).join(":")
}
