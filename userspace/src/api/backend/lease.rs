//! This node's lease as its kernel has it at the moment of asking: what is published now and then would still call
//! a lease valid that was given up meanwhile.

use std::time::Duration;

use super::Context;
use crate::{api::LeaseStatus, core::time::BootTime};

impl Context {
    pub(super) fn lease(&self, now: BootTime) -> LeaseStatus {
        // What cannot be read opens no gate that anybody could count on.
        let lease = self.datapath.lease().unwrap_or_default();
        let fence = self.datapath.probes().and_then(|p| p.fence().ok()).unwrap_or_default();
        let deadline = if lease.epoch < fence { BootTime::ZERO } else { BootTime(lease.deadline_ns) };
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        LeaseStatus {
            valid: deadline > now,
            remaining_ms: ms(deadline.since(now)),
            duration_ms: ms(self.config.profile.timing().lease),
            epoch: lease.epoch,
        }
    }
}
