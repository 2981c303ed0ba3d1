//! The running daemon: wires observe -> core -> act together. No decisions here.

pub mod agent;
mod alone;
pub mod conflicts;
pub mod connectivity;
pub mod events;
pub mod interfaces;
pub mod leader;
pub mod leftovers;
pub mod links;
pub mod member;
mod owed;
pub mod owners;
mod poll;
mod rekey;
pub mod run;
pub mod runner;
pub mod subnets;
mod tell;
mod tie_breaker;
pub mod watcher;
