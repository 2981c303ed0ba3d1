//! Embedded Raft (openraft): the log and the state on this host's disk, the protocol with the peers.

mod forced;
mod frame;
mod leader;
mod leadership;
mod log;
mod machine;
mod network;
mod segments;
mod serve;
mod store;
#[cfg(test)]
pub(crate) mod testing;
mod types;

pub use store::{OpenOptions, RaftStore};
pub use types::*;
