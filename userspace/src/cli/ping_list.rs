//! `vipctl ping-list`.

use std::net::IpAddr;

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::{Session, output, parse, session::unexpected, table::Table};
use crate::api::{Answer, ApiError, PingListOf, Request};

/// Show or change the addresses that connectivity checks ping
///
/// A ping list belongs to a node and a subnet and serves all virtual addresses of that subnet there: one answer
/// from any entry suffices. Without a list a broadcast ping takes its place. A list stays when the last resource of its
/// subnet is deleted, is copied when a resource is extended, and can be changed at any time.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl ping-list show
  vipctl ping-list add 192.0.2.0/24 192.0.2.254 192.0.2.253 --node all
  vipctl ping-list remove 192.0.2.0/24 192.0.2.253")]
pub struct PingList {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the lists
    Show {
        /// Of this subnet only
        #[arg(value_parser = parse::subnet)]
        subnet: Option<IpNet>,
        /// Of this node only
        #[arg(long)]
        node: Option<String>,
    },
    /// Add addresses
    Add(Change),
    /// Remove addresses
    Remove(Change),
}

#[derive(Debug, Args)]
struct Change {
    #[arg(value_parser = parse::subnet)]
    subnet: IpNet,
    #[arg(value_name = "ADDRESS", required = true)]
    addresses: Vec<IpAddr>,
    /// The node, or 'all' [default: this one]
    #[arg(long)]
    node: Option<String>,
}

impl PingList {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        let request = match self.action {
            Action::Show { subnet, node } => Request::PingListShow { subnet, node },
            Action::Add(Change { subnet, addresses, node }) => {
                Request::PingListAdd { subnet, addresses, node }
            }
            Action::Remove(Change { subnet, addresses, node }) => {
                Request::PingListRemove { subnet, addresses, node }
            }
        };
        match session.ask(&request)? {
            Answer::PingLists(lists) if session.json => output::json(&lists),
            Answer::PingLists(lists) => {
                output::print(&text(&lists));
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }
}

pub fn text(lists: &[PingListOf]) -> String {
    if lists.is_empty() {
        return "no ping list\n".to_owned();
    }
    let mut table = Table::new(["NODE", "SUBNET", "ADDRESSES"]);
    for list in lists {
        let addresses: Vec<String> = list.addresses.iter().map(IpAddr::to_string).collect();
        table.row([list.node.clone(), list.subnet.to_string(), addresses.join(" ")]);
    }
    let hints = lists.iter().filter_map(|l| Some(format!("hint: {}\n", l.hint.as_ref()?)));
    table.render() + &hints.collect::<String>()
}
