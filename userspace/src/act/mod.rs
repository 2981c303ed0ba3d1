//! Effects: addresses, announcements, the datapath.

pub mod accept;
pub mod address;
pub mod announce;
pub mod bounce;
pub mod cloud;
pub mod datapath;
pub mod executor;
mod flush;
pub mod gatekeeper;
pub mod link;
pub mod network_manager;
pub mod pages;
mod sharing;
