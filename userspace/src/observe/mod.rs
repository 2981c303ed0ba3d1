//! What is so: links, addresses, neighbours, answers.

pub mod clock;
pub(crate) mod frame;
pub mod network;
pub(crate) mod packet_socket;
pub mod ping;
pub mod probe;
pub(crate) mod shared;
