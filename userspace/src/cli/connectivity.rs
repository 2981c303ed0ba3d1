//! `vipctl connectivity`.

use std::{net::IpAddr, time::Duration};

use clap::{Args, Subcommand};

use super::{Session, output, parse, session::unexpected, table::Table};
use crate::api::{Answer, ApiError, ConnectivityChange, ConnectivityOf, Request};

/// Show or change the hosts that every node pings
///
/// A node that reaches fewer of them than another gives its hierarchies away to that one. A resource for which that
/// shall not count: 'vipctl set TAG connectivity=ignore'.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl connectivity add 198.51.100.1 203.0.113.1 --interval 1
  vipctl connectivity show
  vipctl connectivity remove 203.0.113.1")]
pub struct Connectivity {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the hosts, and which of them each node reaches
    Show,
    /// Add hosts, or change how all are pinged
    Add {
        #[arg(value_name = "HOST")]
        hosts: Vec<IpAddr>,
        /// From one poll to the next [default: 2]
        #[arg(long, value_name = "SECONDS", value_parser = parse::seconds)]
        interval: Option<Duration>,
        /// Polls without an answer before a host is lost [default: 3]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
        fall: Option<u16>,
        /// Answered polls before it is reached again [default: 2]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
        rise: Option<u16>,
    },
    /// Remove hosts
    Remove {
        #[arg(required = true, value_name = "HOST")]
        hosts: Vec<IpAddr>,
    },
}

impl Connectivity {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        match self.action {
            Action::Show => match session.ask(&Request::ConnectivityShow)? {
                Answer::Connectivity(shown) if session.json => output::json(&shown),
                Answer::Connectivity(shown) => {
                    output::print(&text(&shown));
                    Ok(())
                }
                other => Err(unexpected(&other)),
            },
            Action::Add { hosts, interval, fall, rise } => {
                session.order(&Request::ConnectivityAdd(ConnectivityChange { hosts, interval, fall, rise }))
            }
            Action::Remove { hosts } => session.order(&Request::ConnectivityRemove { hosts }),
        }
    }
}

fn text(shown: &ConnectivityOf) -> String {
    if shown.hosts.is_empty() {
        return "no host is pinged: 'vipctl connectivity add HOST' begins\n".to_owned();
    }
    let listed = |all: &[IpAddr]| all.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ");
    let mut table = Table::new(["NODE", "REACHED", "LOST"]).right([1]);
    for node in &shown.nodes {
        table.row([node.node.clone(), format!("{}/{}", node.reached, shown.hosts.len()), listed(&node.lost)]);
    }
    format!(
        "{} every {}.{} s, lost after {}, reached after {}\n\n{}",
        listed(&shown.hosts),
        shown.interval_ms / 1000,
        shown.interval_ms % 1000 / 100,
        shown.fall,
        shown.rise,
        table.render()
    )
}
