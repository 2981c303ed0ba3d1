//! Decisions. PURE: no tokio, sockets, files, clocks or randomness; time is an argument.

pub mod accept;
pub mod agent;
pub mod alone;
pub mod change;
pub mod cloud;
pub mod command;
pub mod conflict;
pub mod declare;
pub mod detection;
#[cfg(test)]
mod failures;
pub mod inspection;
pub mod lease;
pub mod links;
pub mod maintenance;
pub mod planner;
pub mod quorum;
pub mod sequence;
#[cfg(test)]
mod simulation;
pub mod subnets;
pub mod suspicion;
pub mod tie_breaker;
pub mod time;
