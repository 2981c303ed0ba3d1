//! What of a host outlives its daemon, and the sequences that change it.

use super::*;

/// Empty after the host's reboot.
#[derive(Default)]
pub(super) struct Kernel {
    pub lease: (LeaseEpoch, BootTime),
    /// No gate of a lease epoch below opens.
    pub fence: LeaseEpoch,
    /// A daemon has told it whose probes it answers; it goes on when that daemon is gone.
    pub reflects: bool,
    pub vips: BTreeMap<Tag, Vip>,
}

/// What is left of one resource.
#[derive(Default)]
pub(super) struct Vip {
    /// (active, lease epoch, epoch), while the addresses are known to the datapath.
    pub gate: Option<(bool, LeaseEpoch, Epoch)>,
    /// The kernel would answer for them if the datapath did not know them.
    pub assigned: Addresses,
}

impl Kernel {
    pub fn answers(&self, tag: &Tag, now: BootTime) -> bool {
        let Some(vip) = self.vips.get(tag) else { return false };
        match vip.gate {
            Some((active, epoch, _)) => {
                active && epoch >= self.fence && epoch == self.lease.0 && now < self.lease.1
            }
            None => !vip.assigned.is_empty(),
        }
    }

    pub fn assigned(&self, tag: &Tag) -> Addresses {
        self.vips.get(tag).map(|v| v.assigned.clone()).unwrap_or_default()
    }

    pub fn opened(&mut self, run: &Run, tag: &Tag) {
        let vip = self.vips.entry(tag.clone()).or_default();
        vip.assigned = Addresses::clone(&run.target.addresses);
        vip.gate = Some((true, run.lease_epoch, run.epoch));
    }

    pub fn shut(&mut self, tag: &Tag) {
        let gate = &mut self.vips.entry(tag.clone()).or_default().gate;
        let (_, lease_epoch, epoch) = gate.unwrap_or_default();
        *gate = Some((false, lease_epoch, epoch));
    }

    /// A sequence succeeded.
    pub fn ended(&mut self, tag: &Tag, operation: Operation, target: &Here) {
        match operation {
            Operation::Remove => drop(self.vips.remove(tag)),
            Operation::Amend => {
                self.vips.entry(tag.clone()).or_default().assigned = Addresses::clone(&target.addresses);
            }
            Operation::Restore | Operation::Quickcheck | Operation::Recover | Operation::Switch => {}
        }
    }

    /// As a daemon of a new version with other maps would: what the datapath no longer knows is removed
    /// before anything else, or at least made known to it as nobody's.
    pub fn forget(&mut self, removed: bool) {
        self.lease = (0, BootTime::ZERO);
        self.fence = 0;
        if removed {
            self.vips.clear();
        }
        for vip in self.vips.values_mut() {
            vip.gate = (!vip.assigned.is_empty()).then_some((false, 0, 0));
        }
    }
}

/// A sequence under way: at `opens` it opens the gate, at `ends` it is over.
pub(super) struct Run {
    pub operation: Operation,
    pub epoch: Epoch,
    pub lease_epoch: LeaseEpoch,
    pub opens: Option<Millis>,
    pub ends: Millis,
    pub target: Here,
    pub result: Result<(), Failure>,
}
