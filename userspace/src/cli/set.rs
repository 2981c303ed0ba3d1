//! `vipctl set`.

use clap::Args;

use super::{Session, parse};
use crate::{
    api::{ApiError, Request},
    model::Tag,
};

/// Change settings of a resource
///
/// Of the resource as a whole, whatever --node says: switchback=intelligent|automatic,
/// on-conflict=report|defend|yield (when another host claims an address), accept=assign|route|anyip (how the kernel
/// takes packets), subnets=SUBNET/LEN[,SUBNET/LEN]... (monitored subnets that must be up on a node for the resource
/// to be there), stickiness=SCORE (how much it prefers the node it is on), migration-threshold=N|unlimited (so many
/// failures on a node drive it away) or restarts=N|unlimited (so many local recoveries are allowed before), failure-timeout=SECONDS
/// (failures are forgotten after that), service-failfast=on|off and node-failfast=on|off (a failure in service, or any
/// failure, makes the node give up everything), maintenance=on|off (neither checked nor moved), connectivity=use|ignore.
/// 'default' for what 'vipctl cluster set' says.
///
/// Of a node (without --node of every node): priority=1..999, devices=IF[,IF]... (the first carries the addresses,
/// the others stand by), restore-and-recover=enable|disable (disable: in service without putting the address on the
/// network), source=enable|disable (the address is the source of what is sent into its subnet, IPv4 only).
///
/// Switchback, subnets and on-conflict take effect at once, devices at the next check (the address is moved), the
/// others at the next bring-up.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl set ip-192.0.2.10 switchback=automatic
  vipctl set ip-192.0.2.10 priority=5 devices=eth1 --node node-b
  vipctl set ip-192.0.2.10 restore-and-recover=disable --node node-c
  vipctl set ip-192.0.2.10 source=enable on-conflict=yield
  vipctl set ip-192.0.2.10 subnets=198.51.100.0/24")]
pub struct Set {
    tag: Tag,
    #[arg(value_name = "KEY=VALUE", required = true, value_parser = parse::setting)]
    settings: Vec<(String, String)>,
    /// The node on which they hold
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
}

impl Set {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        let Self { tag, settings, node } = self;
        session.order(&Request::Set { tag, node, settings })
    }
}
