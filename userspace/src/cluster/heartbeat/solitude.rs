//! Whether this node holds its lease by its own agreement alone: shared by the heartbeat thread, which extends the
//! lease, and the daemon, which asks the cluster for the permission and gives it back.

use std::sync::{Arc, Mutex};

use super::pulse::lock;
use crate::{
    core::time::BootTime,
    model::{Alone, Node},
};

/// Shared, cheap to clone.
#[derive(Clone)]
pub struct Solitude(Arc<Mutex<Inner>>);

struct Inner {
    /// The permission that this life of the daemon asked for and has not given up.
    asked: Option<Alone>,
    /// No lease that this node held alone is valid after that.
    until: BootTime,
}

impl Solitude {
    /// `until`: the deadline that was found in the kernel. An earlier life may have held it alone.
    pub fn new(until: BootTime) -> Self {
        Self(Arc::new(Mutex::new(Inner { asked: None, until })))
    }

    pub fn asked(&self) -> Option<Alone> {
        lock(&self.0).asked
    }

    /// Counts from when the cluster has granted it.
    pub fn ask(&self, alone: Alone) {
        lock(&self.0).asked = Some(alone);
    }

    /// Extends the lease under no permission from now on. Answers until when the last such lease runs.
    pub fn give_up(&self) -> BootTime {
        let mut inner = lock(&self.0);
        inner.asked = None;
        inner.until
    }

    /// `node` is this one, as the cluster's state has it. The extension, told whether it is by this node alone,
    /// answers the new deadline; nobody gives up the permission meanwhile.
    pub(super) fn extend(&self, node: Option<&Node>, extension: impl FnOnce(bool) -> Option<BootTime>) {
        let mut inner = lock(&self.0);
        let alone = inner.asked.is_some() && node.is_some_and(|n| n.alone == inner.asked);
        if let Some(deadline) = extension(alone).filter(|_| alone) {
            inner.until = inner.until.max(deadline);
        }
    }
}
