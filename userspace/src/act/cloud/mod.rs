//! The API of Amazon EC2.

mod connect;

pub use connect::connect;
