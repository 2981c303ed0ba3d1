//! `vipctl in-service`.

use clap::Args;

use super::{Session, parse};
use crate::{
    api::{ApiError, Request},
    model::Tag,
};

/// Bring a resource in service, or move it to a node
///
/// With all that it depends on; with --on its whole hierarchy goes there and stays until 'vipctl clear', unless that
/// node fails. Failures that stand in its way are forgotten. A resource in service elsewhere is removed there first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl in-service ip-192.0.2.10
  vipctl in-service ip-192.0.2.10 --on node-b
  vipctl in-service ip-192.0.2.10 --on node-b --for 3600")]
pub struct InService {
    tag: Tag,
    /// The node [default: the best that is fit]
    #[arg(long, value_name = "NODE")]
    on: Option<String>,
    /// After so many seconds the node is no longer your choice: automatic switchback may move it then
    #[arg(long = "for", value_name = "SECONDS", value_parser = parse::seconds, requires = "on")]
    hold: Option<std::time::Duration>,
    /// Return at once, not when it is in service
    #[arg(long)]
    no_wait: bool,
}

impl InService {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        session.order(&Request::InService {
            tag: self.tag,
            on: self.on,
            hold: self.hold,
            wait: !self.no_wait,
        })
    }
}
