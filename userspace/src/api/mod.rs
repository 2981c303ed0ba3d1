//! Requests and answers of the local socket: one JSON document a line each way.

pub mod backend;
pub mod client;
mod cloud;
pub mod facts;
pub mod in_cloud;
pub mod in_use;
mod request;
pub mod server;
mod status;
mod text;

pub use crate::core::declare::{Action, Difference};
pub use cloud::*;
pub use request::*;
pub use status::*;
pub use text::{accept_name, counted, counted_span, thousands};
