//! Agreement between nodes: the store, peer requests, heartbeats.

pub mod heartbeat;
mod store;

pub use store::*;
