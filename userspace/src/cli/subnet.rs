//! `vipctl subnet`.

use std::{net::IpAddr, time::Duration};

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::{Session, output, parse, session::unexpected, table::Table};
use crate::api::{Answer, ApiError, MonitorSubnet, Request, SubnetOf, SubnetStatus};

/// Show or change the monitored subnets
///
/// Every node polls a monitored subnet from its own address there. A resource that needs a subnet
/// (vipctl set TAG subnets=...) starts only on nodes where it is up, and is moved away where it is lost if another
/// node has all that it needs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl subnet monitor 198.51.100.0/24 --target 198.51.100.1 --interval 1 --fall 3
  vipctl set ip-192.0.2.10 subnets=198.51.100.0/24
  vipctl subnet list
  vipctl subnet unmonitor 198.51.100.0/24")]
pub struct Subnet {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the monitored subnets and their state on each node
    List,
    /// Monitor a subnet, or change how; what is not given stays as it is
    Monitor(Monitor),
    /// Stop monitoring a subnet
    Unmonitor {
        #[arg(value_parser = parse::subnet)]
        subnet: IpNet,
    },
}

#[derive(Debug, Args)]
struct Monitor {
    #[arg(value_parser = parse::subnet)]
    subnet: IpNet,
    /// An address to ping, one answer from any suffices; 'peers' for the other nodes [default: peers]
    #[arg(long = "target", value_name = "ADDRESS", value_parser = target)]
    targets: Vec<Target>,
    /// From one poll to the next [default: 2]
    #[arg(long, value_name = "SECONDS", value_parser = parse::seconds)]
    interval: Option<Duration>,
    /// Polls without an answer before it is down [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    fall: Option<u16>,
    /// Answered polls before it is up again [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rise: Option<u16>,
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Address(IpAddr),
    Peers,
}

fn target(text: &str) -> Result<Target, String> {
    if text == "peers" {
        return Ok(Target::Peers);
    }
    text.parse().map(Target::Address).map_err(|_| "give an address, or 'peers'".to_owned())
}

impl Subnet {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        match self.action {
            Action::List => match session.ask(&Request::SubnetList)? {
                Answer::Subnets(subnets) if session.json => output::json(&subnets),
                Answer::Subnets(subnets) => {
                    output::print(&text(&subnets));
                    Ok(())
                }
                other => Err(unexpected(&other)),
            },
            Action::Monitor(Monitor { subnet, targets, interval, fall, rise }) => {
                let targets = (!targets.is_empty()).then(|| addresses(&targets));
                session.order(&Request::SubnetMonitor(MonitorSubnet {
                    subnet,
                    targets,
                    interval,
                    fall,
                    rise,
                }))
            }
            Action::Unmonitor { subnet } => session.order(&Request::SubnetUnmonitor { subnet }),
        }
    }
}

fn addresses(targets: &[Target]) -> Vec<IpAddr> {
    let address = |t: &Target| match t {
        Target::Address(address) => Some(*address),
        Target::Peers => None,
    };
    targets.iter().filter_map(address).collect()
}

fn targets(targets: &[IpAddr]) -> String {
    if targets.is_empty() {
        return "peers".to_owned();
    }
    targets.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
}

fn text(subnets: &[SubnetOf]) -> String {
    if subnets.is_empty() {
        return "no subnet is monitored: 'vipctl subnet monitor SUBNET' begins\n".to_owned();
    }
    let mut table =
        Table::new(["SUBNET", "TARGETS", "INTERVAL", "FALL", "RISE", "NEEDED BY"]).right([2, 3, 4]);
    for s in subnets {
        let tags: Vec<String> = s.needed_by.iter().map(ToString::to_string).collect();
        table.row([
            s.subnet.to_string(),
            targets(&s.targets),
            format!("{}.{} s", s.interval_ms / 1000, s.interval_ms % 1000 / 100),
            s.fall.to_string(),
            s.rise.to_string(),
            tags.join(" "),
        ]);
    }
    let nodes: Vec<SubnetStatus> = subnets.iter().flat_map(|s| s.nodes.iter().cloned()).collect();
    format!("{}\n{}", table.render(), by_node(&nodes))
}

/// One line for each subnet and node.
pub fn by_node(all: &[SubnetStatus]) -> String {
    let mut table = Table::new(["SUBNET", "NODE", "STATE", "TARGETS", "REASON"]);
    for s in all {
        let state = if s.state == "down" { "DOWN".to_owned() } else { s.state.clone() };
        table.row([
            s.subnet.to_string(),
            s.node.clone(),
            state,
            targets(&s.targets),
            s.reason.clone().unwrap_or_default(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables() {
        let status = |node: &str, reason: Option<&str>| SubnetStatus {
            subnet: "10.1.0.0/24".parse().unwrap(),
            node: node.into(),
            state: if reason.is_some() { "down".into() } else { "up".into() },
            reason: reason.map(Into::into),
            targets: vec!["10.1.0.9".parse().unwrap()],
        };
        let all = [SubnetOf {
            subnet: "10.1.0.0/24".parse().unwrap(),
            targets: vec!["10.1.0.9".parse().unwrap()],
            interval_ms: 1500,
            fall: 3,
            rise: 2,
            needed_by: vec!["web".parse().unwrap()],
            nodes: vec![status("a", None), status("b", Some("eth1: it has no carrier"))],
        }];
        let expected = "\
SUBNET       TARGETS   INTERVAL  FALL  RISE  NEEDED BY
10.1.0.0/24  10.1.0.9     1.5 s     3     2  web

SUBNET       NODE  STATE  TARGETS   REASON
10.1.0.0/24  a     up     10.1.0.9  -
10.1.0.0/24  b     DOWN   10.1.0.9  eth1: it has no carrier
";
        assert_eq!(text(&all), expected);
        assert!(text(&[]).contains("no subnet is monitored"));
        assert_eq!(targets(&[]), "peers");
    }
}
