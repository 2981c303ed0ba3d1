//! What is so: links, addresses, neighbours, answers.

pub mod clock;
pub mod network;
pub mod ping;
pub mod probe;
