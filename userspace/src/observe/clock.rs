//! CLOCK_BOOTTIME.

use nix::time::{ClockId, clock_gettime};

use crate::core::time::BootTime;

/// Now, on the clock that BPF reads as `bpf_ktime_get_boot_ns`.
pub fn now() -> BootTime {
    let t = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("CLOCK_BOOTTIME exists since Linux 2.6.39");
    BootTime(t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}
