//! `vipctl unextend`.

use clap::Args;

use super::Session;
use crate::{
    api::{ApiError, Request},
    model::Tag,
};

/// Take a resource, with its hierarchy, from a node that does not hold it
///
/// That node looks first whether anything of it is left there, unless it is down.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl in-service ip-192.0.2.10 --on node-a
  vipctl unextend ip-192.0.2.10 --from node-b")]
pub struct Unextend {
    tag: Tag,
    #[arg(long, value_name = "NODE")]
    from: String,
    /// Go on although something of it is left on a node, or a node does not answer
    #[arg(long)]
    force: bool,
}

impl Unextend {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        session.order(&Request::Unextend { tag: self.tag, from: self.from, force: self.force })
    }
}
