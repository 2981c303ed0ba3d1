//! Effects: addresses, announcements, the datapath.

pub mod address;
pub mod announce;
pub mod datapath;
pub mod gatekeeper;
pub mod executor;
