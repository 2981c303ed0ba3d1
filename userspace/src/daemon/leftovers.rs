//! What an earlier life of vipd left on this host, before anything else is done at start.
//!
//! An address of ours that the datapath does not hold is one that the kernel answers for by itself:
//! there is no BPF, the maps were made anew, or this host has left its cluster meanwhile. Another node may
//! have taken it over, and it may take long until this one knows (or for ever, without a quorum).

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;

use super::events::{About, EventLog};
use crate::{
    act::{accept::Placed, datapath::Datapath},
    model::{Ranges, ResourceId},
    observe::network::{Link, Network},
};

/// No resource has this number: the gate that keeps leftovers silent until they are gone.
const NOBODY: ResourceId = 0;

/// Which of our addresses have to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that the kernel does not guard. The others are served until their lease runs out.
    Unguarded,
    /// All of them: this host is in no cluster.
    All,
}

/// # Errors
/// When it cannot be read what this host accepts packets for: then nobody knows what it answers for.
pub async fn remove(
    which: Which,
    network: &Network,
    datapath: &Arc<dyn Datapath>,
    events: &EventLog,
) -> anyhow::Result<()> {
    let mut programmed = BTreeMap::<u32, Ranges>::new();
    for one in datapath.programmed()? {
        let on = programmed.entry(one.ifindex).or_default();
        *on = on.union(&one.addresses);
    }
    let guarded = which == Which::Unguarded && datapath.unguarded().is_none();
    let ours = network.ours().await.context("cannot tell what was left on this host")?;
    let links = network.links().await.context("cannot tell what was left on this host")?;
    let mut left = BTreeMap::<u32, Ranges>::new();
    for Placed { index, addresses, .. } in ours {
        let here = left.entry(index).or_default();
        *here = here.union(&addresses);
    }
    for (index, addresses) in left {
        let programmed = programmed.remove(&index).unwrap_or_default();
        let addresses = if guarded { addresses.difference(&programmed) } else { addresses };
        let Some(link) = links.iter().find(|l| l.index == index) else { continue };
        if !addresses.is_empty() {
            let done = remove_from(link, &addresses, &programmed, network, datapath, events).await;
            // Whoever is in no cluster forgets its gates next: what is still there the kernel would answer for.
            if let Err(error) = done
                && which == Which::All
            {
                return Err(error);
            }
        }
    }
    // Also where a crash left nothing but a route to a subnet.
    network.remove_idle_routes().await.context("cannot remove the routes that were left on this host")
}

async fn remove_from(
    link: &Link,
    addresses: &Ranges,
    programmed: &Ranges,
    network: &Network,
    datapath: &Arc<dyn Datapath>,
    events: &EventLog,
) -> anyhow::Result<()> {
    let about = About { address: addresses.first(), ..About::default() };
    // Silent at once, and still so if it cannot be deleted.
    let unknown = addresses.difference(programmed);
    if !unknown.is_empty()
        && let Err(error) = datapath.program(NOBODY, link.index, &unknown)
    {
        tracing::warn!(%error, %addresses, "leftovers could not be shut before they are deleted");
    }
    match network.remove_ours(link, addresses).await {
        Ok(()) => {
            datapath.unprogram(NOBODY, &unknown)?;
            let what = format!("{addresses} on {} was left by an earlier life of vipd: removed", link.name);
            events.record(about, "leftover.removed", what);
            Ok(())
        }
        Err(error) => {
            events.warn(about, "leftover.failed", error.to_string());
            Err(error.into())
        }
    }
}
