//! Reads what the programs tell of foreign claims (row DP-10).

use std::{io, net::IpAddr};

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use datapath_common::{
    CONFLICT_ARP_ANNOUNCEMENT, CONFLICT_ARP_PROBE, CONFLICT_ARP_REPLY, CONFLICT_ND_ADVERTISEMENT,
    CONFLICT_ND_PROBE, Conflict,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{DatapathError, bpffs::failed, links::text};
use crate::{
    core::{
        conflict::{Claim, ClaimKind},
        time::BootTime,
    },
    model::ResourceId,
};

/// A claim as the kernel saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignClaim {
    pub group: ResourceId,
    pub ifindex: u32,
    pub claim: Claim,
}

/// The ring buffer that the programs of this process write to.
pub struct ConflictReader(RingBuf<MapData>);

impl ConflictReader {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let action = "open the BPF map CONFLICTS";
        let map = ebpf.take_map("CONFLICTS").ok_or_else(|| failed(action, "the object has no such map"))?;
        RingBuf::try_from(map).map(Self).map_err(|error| failed(action, text(error)))
    }

    /// Tells `heard` of every claim from now on.
    ///
    /// # Errors
    /// When the ring buffer can't be waited for; otherwise it never ends.
    pub async fn run(self, mut heard: impl FnMut(ForeignClaim)) -> io::Result<()> {
        // SAFETY: a RingBuf owns its map's descriptor, which stays open and the same until it is dropped.
        let mut ring = unsafe { AsyncFd::register_with_interest(self.0, Interest::READABLE) }?;
        loop {
            let mut ready = ring.readable_mut().await?;
            while let Some(item) = ready.get_inner_mut().next() {
                if let Ok(conflict) = bytemuck::try_pod_read_unaligned::<Conflict>(&item) {
                    heard(foreign(&conflict));
                }
            }
            ready.clear_ready();
        }
    }
}

fn foreign(conflict: &Conflict) -> ForeignClaim {
    let kind = match conflict.kind {
        CONFLICT_ARP_REPLY => ClaimKind::ArpReply,
        CONFLICT_ARP_ANNOUNCEMENT => ClaimKind::ArpAnnouncement,
        CONFLICT_ND_ADVERTISEMENT => ClaimKind::NdAdvertisement,
        CONFLICT_ARP_PROBE | CONFLICT_ND_PROBE => ClaimKind::Probe,
        _ => ClaimKind::Source,
    };
    let address = IpAddr::from(conflict.address).to_canonical();
    let claim = Claim { address, mac: conflict.mac, kind, at: BootTime(conflict.time_ns) };
    ForeignClaim { group: conflict.group, ifindex: conflict.ifindex, claim }
}
