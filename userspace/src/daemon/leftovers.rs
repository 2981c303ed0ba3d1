//! What an earlier life of vipd left on this host, before anything else is done at start.
//!
//! An address of ours that the datapath does not hold is one that the kernel answers for by itself:
//! there is no BPF, the maps were made anew, or this host has left its cluster meanwhile. Another node may
//! have taken it over, and it may take long until this one knows (or for ever, without a quorum).

use std::sync::Arc;

use anyhow::Context as _;

use super::events::{About, EventLog};
use crate::{
    act::{address, datapath::Datapath},
    model::{Ranges, ResourceId},
    observe::network::Network,
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
/// When this host's addresses cannot be read: then nobody knows what it answers for.
pub async fn remove(
    which: Which,
    network: &Network,
    datapath: &Arc<dyn Datapath>,
    events: &EventLog,
) -> anyhow::Result<()> {
    let held = match (which, datapath.unguarded()) {
        (Which::Unguarded, None) => datapath.programmed()?,
        (Which::Unguarded, Some(_)) | (Which::All, _) => Vec::new(),
    };
    let assigned = network.addresses().await.context("cannot tell what was left on this host")?;
    let links = network.links().await.context("cannot tell what was left on this host")?;
    for left in assigned.iter().filter(|a| a.protocol == Some(address::PROTOCOL)) {
        let ip = left.address.addr();
        if held.iter().any(|p| p.ifindex == left.index && p.addresses.contains(ip)) {
            continue;
        }
        let Some(link) = links.iter().find(|l| l.index == left.index) else { continue };
        let about = About { address: Some(ip), ..About::default() };
        // Silent at once, and still so if it cannot be deleted.
        let alone: Ranges = [ip].into_iter().collect();
        if let Err(error) = datapath.program(NOBODY, left.index, &alone) {
            tracing::warn!(%error, address = %ip, "a leftover could not be shut before it is deleted");
        }
        match network.delete_address(link, left.address).await {
            Ok(()) => {
                datapath.unprogram(NOBODY, &alone)?;
                let what = format!(
                    "{} on {} was left unguarded by an earlier life of vipd: removed",
                    left.address, link.name
                );
                events.record(about, "leftover.removed", what);
            }
            Err(error) => events.warn(about, "leftover.failed", error.to_string()),
        }
    }
    Ok(())
}
