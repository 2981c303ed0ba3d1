//! Whether this node holds its lease alone: shared by the heartbeat thread, which extends the lease, and the daemon,
//! which asks the cluster for the permission and gives it back.

use std::sync::{Arc, Mutex};

use super::pulse::lock;
use crate::{
    core::{alone::Permission, time::BootTime},
    model::{Alone, Node},
};

/// Shared, cheap to clone.
#[derive(Clone)]
pub struct Solitude(Arc<Mutex<Permission>>);

impl Solitude {
    /// See [`Permission::new`].
    pub fn new(until: BootTime) -> Self {
        Self(Arc::new(Mutex::new(Permission::new(until))))
    }

    pub fn asked(&self) -> Option<Alone> {
        lock(&self.0).asked()
    }

    /// See [`Permission::ask`].
    pub fn ask(&self, alone: Alone) {
        lock(&self.0).ask(alone);
    }

    /// See [`Permission::give_up`].
    pub fn give_up(&self) -> BootTime {
        lock(&self.0).give_up()
    }

    /// `node` is this one, as the cluster's state has it. The extension, told whether it is by this node alone,
    /// answers the new deadline; nobody gives up the permission meanwhile.
    pub(super) fn extend(&self, node: Option<&Node>, extension: impl FnOnce(bool) -> Option<BootTime>) {
        let mut permission = lock(&self.0);
        let alone = permission.is_granted(node);
        if let Some(deadline) = extension(alone).filter(|_| alone) {
            permission.extended(deadline);
        }
    }
}
