//! `vipctl in-service`.

use clap::Args;

use super::Session;
use crate::{
    api::{ApiError, Request},
    model::Tag,
};

/// Bring a resource in service, or move it to a node
///
/// Failures that stand in its way are forgotten. A resource in service elsewhere is removed there first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl in-service ip-192.0.2.10
  vipctl in-service ip-192.0.2.10 --on node-b")]
pub struct InService {
    tag: Tag,
    /// The node [default: the best that is fit]
    #[arg(long, value_name = "NODE")]
    on: Option<String>,
    /// Return at once, not when it is in service
    #[arg(long)]
    no_wait: bool,
}

impl InService {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        session.order(&Request::InService { tag: self.tag, on: self.on, wait: !self.no_wait })
    }
}
