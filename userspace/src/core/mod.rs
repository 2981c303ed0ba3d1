//! Decisions. PURE: no tokio, sockets, files, clocks or randomness; time is an argument.

pub mod change;
pub mod command;
pub mod planner;
pub mod sequence;
pub mod time;
