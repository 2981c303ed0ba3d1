//! Agreement between nodes: the store, peer requests, heartbeats.

mod durable;
mod error;
#[cfg(feature = "etcd")]
mod etcd;
pub mod heartbeat;
pub mod identity;
mod inspections;
mod member;
mod promise;
pub mod raft;
mod store;
mod token;
pub mod transport;

pub use durable::DiskError;
pub use error::ClusterError;
pub use inspections::*;
pub use member::{admitted, enroll, init, resume};
pub use promise::*;
pub use store::*;
pub use token::*;
