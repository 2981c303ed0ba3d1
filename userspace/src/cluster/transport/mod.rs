//! How nodes talk: encrypted TCP connections, requests and answers.

mod frame;
mod keys;
mod lane;
mod message;
mod noise;
mod peers;
mod quiet;
mod server;
mod strangers;

pub use lane::PeerError;
pub use message::*;
pub use noise::LinkError;
pub use peers::Peers;
pub(crate) use {noise::Credentials, peers::wrong_answer, server::*};

#[cfg(test)]
mod tests;
