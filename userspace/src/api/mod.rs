//! Requests and answers of the local socket: one JSON document a line each way.

pub mod backend;
pub mod client;
pub mod facts;
mod request;
pub mod server;
mod status;
mod text;

pub use request::*;
pub use status::*;
pub use text::{counted, counted_span, thousands};
