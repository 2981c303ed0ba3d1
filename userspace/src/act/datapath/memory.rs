//! A datapath without BPF: it remembers what it is told, so that the rest of the daemon works the same.
//! Addresses are then the kernel's alone, and only the daemon itself enforces the lease.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use datapath_common::{InterfaceActivity, Lease, Verdict, VipActivity};

use tracing::{info, warn};

use super::{Attachment, Datapath, DatapathError, InterfaceFacts, Programmed, bpffs, probes};
use crate::{
    core::time::BootTime,
    model::{Epoch, LeaseEpoch, Ranges, ResourceId},
};

pub struct MemoryDatapath {
    reason: String,
    max_vips: u32,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Pins that an earlier process may have left, whose programs would drop what this one answers.
    stale: Option<PathBuf>,
    interfaces: Vec<u32>,
    groups: BTreeMap<ResourceId, Programmed>,
    lease: Lease,
}

impl MemoryDatapath {
    /// `reason`: why there is no BPF, for an operator to read.
    pub fn new(max_vips: u32, reason: String) -> Self {
        Self { reason, max_vips, inner: Mutex::default() }
    }

    /// What an earlier process has pinned there goes on keeping the node silent until this one is first
    /// entitled to speak: leftover addresses must not answer before the daemon has looked at them.
    pub fn replacing(self, pin_dir: PathBuf) -> Self {
        if let Err(error) = probes::reflect_no_more(&pin_dir) {
            warn!(%error, "programs of an earlier process may go on answering probes");
        }
        self.inner().stale = Some(pin_dir);
        self
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every operation leaves the state whole, so a panic elsewhere does not spoil it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attachment(&self) -> Attachment {
        Attachment::None { reason: self.reason.clone() }
    }
}

impl Datapath for MemoryDatapath {
    fn unguarded(&self) -> Option<String> {
        Some(self.reason.clone())
    }

    fn attach(&self, interface: &InterfaceFacts) -> Result<Attachment, DatapathError> {
        let mut inner = self.inner();
        if !inner.interfaces.contains(&interface.index) {
            inner.interfaces.push(interface.index);
        }
        Ok(self.attachment())
    }

    fn guard_egress(&self, _: &InterfaceFacts) -> Result<(), DatapathError> {
        Ok(())
    }

    fn detach(&self, ifindex: u32) -> Result<(), DatapathError> {
        self.inner().interfaces.retain(|index| *index != ifindex);
        Ok(())
    }

    fn attached(&self) -> Vec<(u32, Attachment)> {
        self.inner().interfaces.iter().map(|index| (*index, self.attachment())).collect()
    }

    fn program(&self, group: ResourceId, ifindex: u32, addresses: &Ranges) -> Result<(), DatapathError> {
        let mut inner = self.inner();
        let others = inner.groups.values().filter(|g| g.group != group);
        for other in others {
            if let Some(taken) = other.addresses.intersection(addresses).first() {
                return Err(DatapathError::Taken(taken, other.group));
            }
        }
        let held: u64 = inner.groups.values().map(|g| g.addresses.count()).sum();
        let known = inner.groups.get(&group).map(|g| g.addresses.clone()).unwrap_or_default();
        if held + addresses.difference(&known).count() > u64::from(self.max_vips) {
            return Err(DatapathError::Full(self.max_vips));
        }
        let closed = Programmed {
            group,
            addresses: Ranges::default(),
            ifindex,
            gate_active: false,
            lease_epoch: 0,
            epoch: 0,
        };
        let entry = inner.groups.entry(group).or_insert_with(|| closed.clone());
        if entry.ifindex != ifindex {
            *entry = closed;
        }
        entry.addresses = known.union(addresses);
        Ok(())
    }

    fn unprogram(&self, group: ResourceId, addresses: &Ranges) -> Result<(), DatapathError> {
        let mut inner = self.inner();
        if let Some(known) = inner.groups.get_mut(&group) {
            known.addresses = known.addresses.difference(addresses);
            if known.addresses.is_empty() {
                inner.groups.remove(&group);
            }
        }
        Ok(())
    }

    fn open_gate(
        &self,
        group: ResourceId,
        lease_epoch: LeaseEpoch,
        epoch: Epoch,
    ) -> Result<(), DatapathError> {
        let mut inner = self.inner();
        if !inner.groups.contains_key(&group) {
            return Err(DatapathError::NotProgrammed(group));
        }
        if let Some(pins) = inner.stale.as_deref().filter(|pins| pins.exists()) {
            let _lock = bpffs::lock(pins)?;
            info!(pins = %pins.display(), "removing the programs of an earlier process");
            bpffs::remove_all(pins)?;
        }
        inner.stale = None;
        let known = inner.groups.get_mut(&group).ok_or(DatapathError::NotProgrammed(group))?;
        (known.gate_active, known.lease_epoch, known.epoch) = (true, lease_epoch, epoch);
        Ok(())
    }

    fn close_gate(&self, group: ResourceId) -> Result<(), DatapathError> {
        if let Some(known) = self.inner().groups.get_mut(&group) {
            known.gate_active = false;
        }
        Ok(())
    }

    fn programmed(&self) -> Result<Vec<Programmed>, DatapathError> {
        Ok(self.inner().groups.values().cloned().collect())
    }

    fn lease(&self) -> Result<Lease, DatapathError> {
        Ok(self.inner().lease)
    }

    fn set_lease(&self, epoch: LeaseEpoch, deadline: BootTime) -> Result<(), DatapathError> {
        self.inner().lease = Lease { deadline_ns: deadline.0, epoch };
        Ok(())
    }

    fn interface_activity(&self, _ifindex: u32) -> Result<InterfaceActivity, DatapathError> {
        Ok(InterfaceActivity::default())
    }

    fn vip_activity(&self, _address: IpAddr) -> Result<VipActivity, DatapathError> {
        Ok(VipActivity::default())
    }

    fn group_activity(&self, _group: ResourceId) -> Result<VipActivity, DatapathError> {
        Ok(VipActivity::default())
    }

    fn verdicts(&self) -> Result<Vec<(Verdict, u64)>, DatapathError> {
        Ok(Verdict::ALL.into_iter().map(|verdict| (verdict, 0)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datapath() -> MemoryDatapath {
        MemoryDatapath::new(2, "no BPF here".into())
    }

    #[test]
    fn it_says_why_everywhere() {
        let datapath = datapath();
        assert_eq!(datapath.unguarded().as_deref(), Some("no BPF here"));
        let facts = InterfaceFacts {
            index: 3,
            name: "eth0".into(),
            mac: [2, 0, 0, 0, 0, 1],
            kind: None,
            broadcast_pings_per_second: 0,
            stationary_v4: Vec::new(),
            link_local: None,
            global_v6: None,
            router: false,
        };
        let none = Attachment::None { reason: "no BPF here".into() };
        assert_eq!(datapath.attach(&facts).unwrap(), none);
        assert_eq!(datapath.attach(&facts).unwrap(), none);
        assert_eq!(datapath.attached(), [(3, none)]);
        datapath.detach(3).unwrap();
        assert_eq!(datapath.attached(), []);
    }

    #[test]
    fn it_remembers_as_the_kernel_does() {
        let datapath = datapath();
        let set = |text: &str| [text.parse::<crate::model::Range>().unwrap()].into_iter().collect::<Ranges>();
        let (a, b) = (set("10.0.0.1"), set("fd00::1"));
        assert!(matches!(datapath.open_gate(1, 1, 1), Err(DatapathError::NotProgrammed(1))));
        datapath.close_gate(1).unwrap();
        datapath.unprogram(1, &a).unwrap();
        datapath.program(1, 3, &a).unwrap();
        datapath.open_gate(1, 7, 9).unwrap();
        // Again on the same interface changes nothing, on another it is shut.
        datapath.program(1, 3, &a).unwrap();
        let open = Programmed {
            group: 1,
            addresses: a.clone(),
            ifindex: 3,
            gate_active: true,
            lease_epoch: 7,
            epoch: 9,
        };
        assert_eq!(datapath.programmed().unwrap(), std::slice::from_ref(&open));
        datapath.program(1, 4, &a).unwrap();
        let shut = Programmed { ifindex: 4, gate_active: false, lease_epoch: 0, epoch: 0, ..open };
        assert_eq!(datapath.programmed().unwrap(), [shut]);
        assert!(matches!(datapath.program(2, 3, &a), Err(DatapathError::Taken(_, 1))));
        datapath.program(2, 3, &b).unwrap();
        assert!(matches!(datapath.program(3, 3, &set("10.0.0.3")), Err(DatapathError::Full(2))));
        datapath.unprogram(1, &a).unwrap();
        assert_eq!(datapath.programmed().unwrap().len(), 1);
        datapath.set_lease(7, BootTime(5)).unwrap();
        assert_eq!(datapath.lease().unwrap(), Lease { deadline_ns: 5, epoch: 7 });
    }
}
