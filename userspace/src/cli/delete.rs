//! `vipctl delete`.

use clap::Args;

use super::{Session, given};
use crate::{
    api::{ApiError, Request},
    model::Tag,
};

/// Take a resource out of service and forget it, or take addresses out of a set
///
/// What it depends on stays in service. Refused while another resource depends on it, unless with --hierarchy. The
/// ping lists of its subnet stay. With --address the set stays in service with the others.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl delete ip-192.0.2.10
  vipctl delete shop --address 192.0.2.10,192.0.2.20-192.0.2.29")]
pub struct Delete {
    tag: Tag,
    /// All that depends on it, and on which it depends, as well
    #[arg(long, conflicts_with = "addresses")]
    hierarchy: bool,
    /// Go on although something of it is left on a node, or a node does not answer
    #[arg(long, conflicts_with = "addresses")]
    force: bool,
    /// Only these of its addresses: ADDRESS, FIRST-LAST or @FILE
    #[arg(long = "address", value_name = "ADDR|RANGE,...", value_delimiter = ',')]
    addresses: Vec<String>,
    /// Return at once, not when it, or the addresses, are gone
    #[arg(long)]
    no_wait: bool,
}

impl Delete {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        if !self.addresses.is_empty() {
            let addresses = given::read(&self.addresses)?;
            return session.order(&Request::RemoveAddresses {
                tag: self.tag,
                addresses,
                wait: !self.no_wait,
            });
        }
        let Self { tag, hierarchy, force, no_wait, .. } = self;
        session.order(&Request::Delete { tag, hierarchy, force, wait: !no_wait })
    }
}
