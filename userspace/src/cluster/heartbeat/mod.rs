//! Heartbeats: liveness and lease renewal in one datagram, on a thread of their own so that nothing
//! else the daemon does can make them late.

mod ears;
mod keys;
mod prober;
mod promises;
mod pulse;
mod solitude;
mod wire;

pub use ears::{Ears, Peer};
pub use keys::LiveKeys;
pub use prober::{Fences, KernelPath, Prober, ProberConfig, ProbingKernel};
pub use promises::{Promises, Remember};
pub use pulse::{LeaseSlot, Pulse, PulseConfig};
pub(crate) use pulse::{lock, membership_settles_after};
pub use solitude::Solitude;
pub use wire::PATHS_TOLD;
pub(crate) use wire::derive;
