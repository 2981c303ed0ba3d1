//! Agreement between nodes: the store, peer requests, heartbeats.

mod departure;
mod durable;
mod error;
#[cfg(feature = "etcd")]
mod etcd;
pub mod heartbeat;
pub mod identity;
mod inspections;
pub mod keyring;
mod member;
mod promise;
pub mod raft;
mod rekey;
mod rest;
mod store;
mod threads;
mod token;
pub mod transport;

pub use departure::{departed, forget};
pub use durable::DiskError;
pub use error::ClusterError;
pub use inspections::*;
pub use member::{admitted, enroll, init, readdress, resume};
pub use promise::*;
pub use rekey::{Rotated, follow_key, rotate_key};
pub use store::*;
pub use token::*;
