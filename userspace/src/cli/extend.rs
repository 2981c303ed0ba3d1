//! `vipctl extend`.

use clap::Args;

use super::Session;
use crate::{
    api::{ApiError, Request},
    model::Tag,
};

/// Let another node have a resource
///
/// That node checks it on itself first: that it has the interfaces, and that they can carry the addresses. With an
/// objection nothing is changed (exit code 4). The ping list of the resource's subnet is copied to that node.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl extend ip-192.0.2.10 --to node-b
  vipctl extend ip-192.0.2.10 --to node-c --priority 30 --dev eth1")]
pub struct Extend {
    tag: Tag,
    /// The node, or 'all'
    #[arg(long, value_name = "NODE")]
    to: String,
    /// 1 (best) to 999 [default: the next multiple of ten]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=999))]
    priority: Option<u16>,
    /// Interface on that node [default: the same names as on the preferred node]
    #[arg(long = "dev", value_name = "IF")]
    devices: Vec<String>,
    /// Go on although a node that has to check it is down or does not answer
    #[arg(long)]
    force: bool,
}

impl Extend {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        let Self { tag, to, priority, devices, force } = self;
        session.order(&Request::Extend { tag, to, priority, devices, force })
    }
}
