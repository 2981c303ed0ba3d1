//! Requests and answers of the local socket: one JSON document a line each way.

mod request;
mod status;

pub use request::*;
pub use status::*;
