//! Agreement between nodes: the store, peer requests, heartbeats.

mod departure;
mod durable;
mod error;
#[cfg(feature = "etcd")]
mod etcd;
pub mod heartbeat;
pub mod identity;
mod member;
mod promise;
pub mod raft;
mod rest;
mod store;
mod token;
pub mod transport;

pub use departure::{departed, forget};
pub use durable::DiskError;
pub use error::ClusterError;
pub use member::{admitted, enroll, init, readdress, resume};
pub use promise::*;
pub use store::*;
pub use token::*;
