//! Effects: addresses, announcements, the datapath.

mod accept;
pub mod address;
pub mod announce;
pub mod datapath;
pub mod executor;
pub mod gatekeeper;
pub mod link;
