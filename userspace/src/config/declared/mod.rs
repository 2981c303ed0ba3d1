//! `cluster.toml`: the configuration of a cluster as a file (row CL-12). `docs/cluster.toml.md` explains it.

mod parse;
mod read;
mod resource;
#[cfg(test)]
mod tests;
mod write;

pub use parse::{DeclaredFile, PendingAddress, parse};
pub use write::write;
