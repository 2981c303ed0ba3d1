//! A datapath without BPF: it remembers what it is told, so that the rest of the daemon works the same.
//! Addresses are then the kernel's alone, and only the daemon itself enforces the lease.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use datapath_common::{InterfaceActivity, Lease, Verdict, VipActivity};

use tracing::info;

use super::{Attachment, Datapath, DatapathError, InterfaceFacts, Programmed, bpffs};
use crate::{
    core::time::BootTime,
    model::{Epoch, LeaseEpoch},
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
    vips: BTreeMap<IpAddr, Programmed>,
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

    fn program(&self, address: IpAddr, ifindex: u32) -> Result<(), DatapathError> {
        let mut inner = self.inner();
        match inner.vips.get(&address) {
            Some(vip) if vip.ifindex == ifindex => return Ok(()),
            None if inner.vips.len() >= self.max_vips as usize => {
                return Err(DatapathError::Full(self.max_vips));
            }
            _ => {}
        }
        let closed = Programmed { address, ifindex, gate_active: false, lease_epoch: 0, epoch: 0 };
        inner.vips.insert(address, closed);
        Ok(())
    }

    fn unprogram(&self, address: IpAddr) -> Result<(), DatapathError> {
        self.inner().vips.remove(&address);
        Ok(())
    }

    fn open_gate(&self, address: IpAddr, lease_epoch: LeaseEpoch, epoch: Epoch) -> Result<(), DatapathError> {
        let mut inner = self.inner();
        if !inner.vips.contains_key(&address) {
            return Err(DatapathError::NotProgrammed(address));
        }
        if let Some(pins) = inner.stale.as_deref().filter(|pins| pins.exists()) {
            let _lock = bpffs::lock(pins)?;
            info!(pins = %pins.display(), "removing the programs of an earlier process");
            bpffs::remove_all(pins)?;
        }
        inner.stale = None;
        let vip = inner.vips.get_mut(&address).ok_or(DatapathError::NotProgrammed(address))?;
        (vip.gate_active, vip.lease_epoch, vip.epoch) = (true, lease_epoch, epoch);
        Ok(())
    }

    fn close_gate(&self, address: IpAddr) -> Result<(), DatapathError> {
        if let Some(vip) = self.inner().vips.get_mut(&address) {
            vip.gate_active = false;
        }
        Ok(())
    }

    fn programmed(&self) -> Result<Vec<Programmed>, DatapathError> {
        Ok(self.inner().vips.values().cloned().collect())
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

    fn vip_activity(&self, address: IpAddr) -> Result<VipActivity, DatapathError> {
        if self.inner().vips.contains_key(&address) {
            Ok(VipActivity::default())
        } else {
            Err(DatapathError::NotProgrammed(address))
        }
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
        let [a, b, c] = ["10.0.0.1", "fd00::1", "10.0.0.3"].map(|text| text.parse().unwrap());
        assert!(matches!(datapath.open_gate(a, 1, 1), Err(DatapathError::NotProgrammed(_))));
        datapath.close_gate(a).unwrap();
        datapath.unprogram(a).unwrap();
        datapath.program(a, 3).unwrap();
        datapath.open_gate(a, 7, 9).unwrap();
        // Again on the same interface changes nothing, on another it is shut.
        datapath.program(a, 3).unwrap();
        let open = Programmed { address: a, ifindex: 3, gate_active: true, lease_epoch: 7, epoch: 9 };
        assert_eq!(datapath.programmed().unwrap(), [open]);
        datapath.program(a, 4).unwrap();
        let shut = Programmed { address: a, ifindex: 4, gate_active: false, lease_epoch: 0, epoch: 0 };
        assert_eq!(datapath.programmed().unwrap(), [shut]);
        datapath.program(b, 3).unwrap();
        assert!(matches!(datapath.program(c, 3), Err(DatapathError::Full(2))));
        datapath.set_lease(7, BootTime(5)).unwrap();
        assert_eq!(datapath.lease().unwrap(), Lease { deadline_ns: 5, epoch: 7 });
    }
}
