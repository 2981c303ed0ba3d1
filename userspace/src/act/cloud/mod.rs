//! Effects on Amazon EC2.

mod connect;
mod perform;

pub use self::{connect::connect, perform::Cloud};
