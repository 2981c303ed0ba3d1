//! The one place that opens and closes gates and moves the lease's deadline.
//!
//! Invariant: a gate opens only under the lease epoch that it was granted under, and only while that
//! is this node's epoch. A sequence that was started under an older one can't open anything any more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::datapath::{Datapath, DatapathError};
use crate::{
    core::{lease::Held, time::BootTime},
    model::{Epoch, LeaseEpoch, ResourceId},
    observe::clock,
};

pub struct Gatekeeper {
    datapath: Arc<dyn Datapath>,
    lease: Mutex<Held>,
}

#[derive(Debug, thiserror::Error)]
pub enum GateError {
    #[error("the grant belongs to lease epoch {granted}, this node is at {now}: it was deposed meanwhile")]
    Deposed { granted: LeaseEpoch, now: LeaseEpoch },
    #[error(transparent)]
    Datapath(#[from] DatapathError),
}

impl Gatekeeper {
    /// Takes over the lease found in the kernel: an earlier life of this daemon may still be serving.
    pub fn new(datapath: Arc<dyn Datapath>) -> Result<Self, DatapathError> {
        let lease = datapath.lease()?;
        let held = Held { epoch: lease.epoch, deadline: BootTime(lease.deadline_ns) };
        Ok(Self { datapath, lease: Mutex::new(held) })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // A panic elsewhere leaves the two words as they were written: still the truth.
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lease as last written to the kernel.
    pub fn held(&self) -> Held {
        *self.lock()
    }

    /// Whether what was granted under this lease epoch may still be used for something that no gate holds back: the
    /// lease has not run out, and nobody has fenced this node's kernel off. Whoever takes over from a fenced node does
    /// not wait for the end of its lease.
    ///
    /// # Errors
    /// Why not.
    pub fn confirm(&self, granted: LeaseEpoch) -> Result<(), String> {
        let held = self.held();
        if held.epoch != granted {
            return Err(format!("this node was deposed: its lease epoch is {} now", held.epoch));
        }
        if held.deadline <= clock::now() {
            return Err("the lease of this node has run out".to_owned());
        }
        match self.datapath.probes().map(|probes| probes.fence()) {
            Some(Ok(fence)) if fence > granted => {
                Err("this node was fenced off: others have what it had".to_owned())
            }
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Moves the deadline forward. Ignored for another epoch than the present one.
    pub fn extend(&self, epoch: LeaseEpoch, deadline: BootTime) -> Result<(), DatapathError> {
        let mut held = self.lock();
        if epoch == held.epoch && deadline > held.deadline {
            self.datapath.set_lease(epoch, deadline)?;
            held.deadline = deadline;
        }
        Ok(())
    }

    /// Goes over to another lease epoch. All gates are shut in the kernel when this returns.
    pub fn adopt(&self, epoch: LeaseEpoch) -> Result<(), DatapathError> {
        let mut held = self.lock();
        if epoch > held.epoch {
            self.datapath.set_lease(epoch, BootTime::ZERO)?;
            *held = Held { epoch, deadline: BootTime::ZERO };
        }
        Ok(())
    }

    /// No lease: every gate is shut at once.
    pub fn shut_all(&self) -> Result<(), DatapathError> {
        let mut held = self.lock();
        self.datapath.set_lease(0, BootTime::ZERO)?;
        *held = Held { epoch: 0, deadline: BootTime::ZERO };
        Ok(())
    }

    /// Forgets an earlier membership: no lease, nothing programmed.
    pub fn reset(&self) -> Result<(), DatapathError> {
        self.shut_all()?;
        let _held = self.lock();
        for programmed in self.datapath.programmed()? {
            self.datapath.unprogram(programmed.group, &programmed.addresses)?;
        }
        // Last: until nothing is programmed any more, what a peer was told must hold.
        if let Some(probes) = self.datapath.probes() {
            probes.forget()?;
        }
        Ok(())
    }

    pub fn open(&self, group: ResourceId, granted: LeaseEpoch, epoch: Epoch) -> Result<(), GateError> {
        let held = self.lock();
        if granted != held.epoch {
            return Err(GateError::Deposed { granted, now: held.epoch });
        }
        Ok(self.datapath.open_gate(group, granted, epoch)?)
    }

    pub fn close(&self, group: ResourceId) -> Result<(), DatapathError> {
        let _held = self.lock();
        self.datapath.close_gate(group)
    }
}
