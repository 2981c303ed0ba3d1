//! Agreement between nodes: the store, peer requests, heartbeats.

mod store;

pub use store::*;
