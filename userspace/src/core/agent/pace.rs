//! When what is in service is checked, and what failed is tried again.

use std::time::Duration;

use crate::model::Tag;

/// The first pause after a change of addresses failed, or a removal that is known to be silent; doubled
/// with each further one.
const PATIENT_RETRY: Duration = Duration::from_secs(2);

/// How often it is doubled.
const DOUBLINGS: u32 = 3;

/// The pause after what nobody waits for failed that often before.
pub fn patience(failures: u32) -> Duration {
    PATIENT_RETRY * (1 << failures.min(DOUBLINGS))
}

/// From the bring-up of what is in EC2 to its first check; doubled with each further one, up to the interval.
const FIRST_WATCH: Duration = Duration::from_secs(1);

/// How often it is doubled at most.
const DOUBLINGS_OF_WATCH: u32 = 16;

/// Until the next check of what is in EC2, after so many of them: what a former owner sent and what comes late is to be
/// found soon.
pub(super) fn watch(checks: u32, interval: Duration) -> Duration {
    FIRST_WATCH.saturating_mul(1 << checks.min(DOUBLINGS_OF_WATCH)).min(interval)
}

/// Where in the interval a resource is first checked, above 0 and at most 1: those that came in service
/// together are not checked together ever after.
pub(super) fn phase(tag: &Tag) -> f64 {
    // FNV-1a
    let hash = |h: u32, byte: &u8| (h ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash = tag.as_str().as_bytes().iter().fold(0x811c_9dc5, hash);
    f64::from(hash % 1000 + 1) / 1000.0
}
