//! The running daemon: wires observe -> core -> act together. No decisions here.

pub mod agent;
pub mod conflicts;
pub mod events;
pub mod in_use;
pub mod interfaces;
pub mod leader;
pub mod leftovers;
pub mod member;
pub mod owners;
pub mod run;
pub mod runner;
pub mod watcher;
