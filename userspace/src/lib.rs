//! vipd: failover of virtual IP addresses, enforced in the kernel.
//!
//! Data flows one way: [`observe`] -> [`core`] (pure) -> [`act`]. ARCHITECTURE.md is the code map.

pub mod act;
pub mod api;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod core;
pub mod daemon;
pub mod model;
pub mod observe;
