//! Effects on Amazon EC2.

mod book;
mod connect;
mod perform;

pub use self::{book::EipBook, connect::connect, perform::Cloud};
