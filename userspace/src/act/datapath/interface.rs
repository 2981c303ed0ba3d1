//! What the rest of the daemon needs of a datapath, and nothing of how it is done.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

pub use datapath_common::ANNOUNCE_CHUNK;
use datapath_common::{InterfaceActivity, Lease, Verdict, VipActivity};

use super::{ConflictReader, Probes};
use crate::{
    core::time::BootTime,
    model::{Epoch, LeaseEpoch, Ranges, ResourceId},
};

#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    #[error("datapath: cannot {action}: {reason}")]
    Failed { action: String, reason: String },
    #[error("datapath: resource number {0} is not programmed")]
    NotProgrammed(ResourceId),
    #[error("datapath: {0} is programmed for resource number {1} already")]
    Taken(IpAddr, ResourceId),
    #[error("datapath: full: {0} addresses are the limit (max-vips in node.toml)")]
    Full(u32),
}

/// How the programs run on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    Native,
    Generic { reason: String },
    None { reason: String },
}

/// An interface as the datapath needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceFacts {
    pub index: u32,
    pub name: String,
    pub mac: [u8; 6],
    /// IFLA_INFO_KIND.
    pub kind: Option<String>,
    /// 0: broadcast pings are left to the kernel.
    pub broadcast_pings_per_second: u32,
    /// (stationary address, its subnet's broadcast address); the first is the primary one.
    pub stationary_v4: Vec<(Ipv4Addr, Ipv4Addr)>,
    pub link_local: Option<Ipv6Addr>,
    pub global_v6: Option<Ipv6Addr>,
    /// IPv6 is forwarded: advertisements say so (RFC 4861 section 4.4), or hosts would give up their routes
    /// through this one (section 7.2.5).
    pub router: bool,
}

/// What is programmed for one resource, as found in the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programmed {
    pub group: ResourceId,
    pub addresses: Ranges,
    pub ifindex: u32,
    pub gate_active: bool,
    pub lease_epoch: LeaseEpoch,
    pub epoch: Epoch,
}

/// What became of frames that the kernel was asked to make, one for each address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Generated {
    Sent,
    /// The address is not held on that interface, or its gate is closed.
    Shut,
    /// The interface, its queue or tc egress did not take the frame.
    Dropped,
}

/// All methods are quick map operations: callable from any thread, never awaiting. Implementations:
/// the kernel's (`KernelDatapath`) and, where BPF cannot be used, one that only remembers.
pub trait Datapath: Send + Sync {
    /// None when the kernel enforces the lease; otherwise why it does not.
    fn unguarded(&self) -> Option<String>;

    /// Attaches (XDP ingress and tc egress) or adopts what is attached, and updates the facts.
    /// Idempotent. An interface that cannot take XDP is `Attachment::None` with the reason, not an error.
    fn attach(&self, interface: &InterfaceFacts) -> Result<Attachment, DatapathError>;

    /// Attaches only the egress guard, to an interface that carries no address of ours: the kernel would
    /// answer ARP for an address of one interface on any other. Idempotent.
    fn guard_egress(&self, interface: &InterfaceFacts) -> Result<(), DatapathError>;

    /// Forgets an interface; detaches what is ours.
    fn detach(&self, ifindex: u32) -> Result<(), DatapathError>;

    /// Interfaces attached now.
    fn attached(&self) -> Vec<(u32, Attachment)>;

    /// Makes the addresses known, beside those that the resource has already; a new resource's gate is
    /// closed, that of a known one stays as it is, unless it moves to another interface: then it is closed.
    ///
    /// # Errors
    /// `Taken` when another resource has one of them, `Full`: nothing is changed then.
    fn program(&self, group: ResourceId, ifindex: u32, addresses: &Ranges) -> Result<(), DatapathError>;

    /// Forgets addresses of the resource. With the last one its gate is closed and freed. No error when
    /// they are unknown.
    fn unprogram(&self, group: ResourceId, addresses: &Ranges) -> Result<(), DatapathError>;

    /// Two writes, whatever the number of addresses; one for a gate that is open under this lease already.
    fn open_gate(
        &self,
        group: ResourceId,
        lease_epoch: LeaseEpoch,
        epoch: Epoch,
    ) -> Result<(), DatapathError>;

    /// One write, whatever the number of addresses. No error when it is unknown.
    fn close_gate(&self, group: ResourceId) -> Result<(), DatapathError>;

    /// Sends a copy of `frame`, an announcement of `0.0.0.0` or `::`, for each of the addresses, all of
    /// that family and at most [`ANNOUNCE_CHUNK`], by the interface of the calling thread's network
    /// namespace, and answers what became of each. None where the kernel cannot make them: then they are
    /// to be sent in another way.
    fn announce(
        &self,
        ifindex: u32,
        frame: &[u8],
        addresses: &[IpAddr],
    ) -> Result<Option<Vec<Generated>>, DatapathError> {
        let _ = (ifindex, frame, addresses);
        Ok(None)
    }

    /// In the order of their numbers.
    fn programmed(&self) -> Result<Vec<Programmed>, DatapathError>;

    fn lease(&self) -> Result<Lease, DatapathError>;

    /// Safe against torn reads by the programs: an epoch only ever changes together with deadline 0.
    fn set_lease(&self, epoch: LeaseEpoch, deadline: BootTime) -> Result<(), DatapathError>;

    fn interface_activity(&self, ifindex: u32) -> Result<InterfaceActivity, DatapathError>;

    /// Zero for an address that is not programmed.
    fn vip_activity(&self, address: IpAddr) -> Result<VipActivity, DatapathError>;

    /// All addresses of the resource together. Zero when it is not programmed.
    fn group_activity(&self, group: ResourceId) -> Result<VipActivity, DatapathError>;

    /// At most so many addresses of the resource with the packets received for each, the busiest first. None
    /// where nothing is counted or the resource is not programmed.
    fn busiest(&self, _group: ResourceId, _limit: usize) -> Result<Vec<(IpAddr, u64)>, DatapathError> {
        Ok(Vec::new())
    }

    /// What the programs tell of foreign claims; once, and only where there are programs.
    fn conflicts(&self) -> Option<ConflictReader> {
        None
    }

    /// The kernel's part in probing peers; None without programs.
    fn probes(&self) -> Option<Arc<Probes>> {
        None
    }

    /// Frames by verdict, all CPUs summed, since load.
    fn verdicts(&self) -> Result<Vec<(Verdict, u64)>, DatapathError>;
}
