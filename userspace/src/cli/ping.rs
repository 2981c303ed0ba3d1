//! `vipctl ping`: works without the daemon (row IP-15).

use std::{
    collections::BTreeMap,
    net::{IpAddr, ToSocketAddrs},
    time::Duration,
};

use clap::Args;
use ipnet::IpNet;
use serde::Serialize;

use super::{
    Session, output, parse,
    table::{Table, plural},
};
use crate::{
    api::ApiError,
    observe::{
        network::{Assigned, Network, NetworkError},
        ping::{self, Reply},
    },
};

const DEFAULT_TRIES: u32 = 3;

/// Ping an address, or everybody on a subnet
///
/// Needs no daemon, but root. It ends at the first answer unless -c or -b is given; the exit code is 1 when nobody
/// answered. Answers from this host's own addresses do not count with -b.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl ping 192.0.2.254
  vipctl ping 192.0.2.254 -I 192.0.2.10 -c 5
  vipctl ping -b 192.0.2.10/24 -w 2 -z 192.0.2.7,192.0.2.8
  vipctl ping -b 2001:db8::10/64")]
pub struct Ping {
    /// An address or a name; with -b one of the subnet, /LEN unless this host has an address in it
    #[arg(value_name = "ADDRESS[/LEN]")]
    address: String,
    /// Broadcast ping: everybody on the subnet is asked (IPv6: all nodes of the link)
    #[arg(short)]
    broadcast: bool,
    /// Tries; all are made and all answers shown
    #[arg(short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: Option<u32>,
    /// Time for all tries together, in seconds [default: one for each try]
    #[arg(short, value_name = "SECONDS", value_parser = parse::seconds)]
    wait: Option<Duration>,
    /// Address to ping from
    #[arg(short = 'I', value_name = "SOURCE")]
    source: Option<IpAddr>,
    /// Interface to ping on; link-local addresses need it [default: the routing table's]
    #[arg(long = "dev", value_name = "IF")]
    device: Option<String>,
    /// Answers from these do not count
    #[arg(short = 'z', value_name = "EXCLUDE", value_delimiter = ',')]
    exclude: Vec<IpAddr>,
}

#[derive(Serialize)]
struct Answered {
    from: IpAddr,
    sequence: u16,
    round_trip_us: u128,
}

impl Ping {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| ApiError::failed(format!("cannot start: {e}")))?;
        let replies = runtime.block_on(self.ping())?;
        if session.json {
            let replies: Vec<Answered> = replies.iter().map(answered).collect();
            output::json(&serde_json::json!({ "answered": !replies.is_empty(), "replies": replies }))?;
        } else {
            output::print(&text(&replies));
        }
        if replies.is_empty() {
            return Err(ApiError::failed(format!("nobody answered for {}", self.address)));
        }
        Ok(())
    }

    async fn ping(&self) -> Result<Vec<Reply>, ApiError> {
        let tries = self.count.unwrap_or(if self.broadcast { 1 } else { DEFAULT_TRIES });
        let mut ping = ping::Ping {
            source: self.source,
            device: self.device.clone(),
            tries,
            wait: self.wait.map_or(Duration::from_secs(1), |w| w / tries),
            exclude: self.exclude.clone(),
            first_only: self.count.is_none() && !self.broadcast,
        };
        if !self.broadcast {
            return ping.targets(&[target(&self.address)?]).await.map_err(failed);
        }
        let network = Network::open().map_err(failed)?;
        let assigned = network.addresses().await.map_err(failed)?;
        let (subnet, index) = subnet(&self.address, self.source, &assigned)?;
        if let (Some(index), None) = (index, &ping.device) {
            let links = network.links().await.map_err(failed)?;
            ping.device = links.into_iter().find(|l| l.index == index).map(|l| l.name);
        }
        ping.broadcast(subnet).await.map_err(failed)
    }
}

fn failed(e: NetworkError) -> ApiError {
    ApiError::failed(format!("{e} (raw sockets need root)"))
}

fn target(text: &str) -> Result<IpAddr, ApiError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let found = (text, 0).to_socket_addrs().ok().and_then(|mut all| all.next());
    found
        .map(|a| a.ip())
        .ok_or_else(|| ApiError::usage(format!("'{text}' is neither an address nor a known name")))
}

/// The subnet to ask and the interface to ask on: this host's own address tells both, the source's before
/// that of the wanted address.
fn subnet(
    text: &str,
    source: Option<IpAddr>,
    assigned: &[Assigned],
) -> Result<(IpNet, Option<u32>), ApiError> {
    let given = text.parse::<IpNet>().ok();
    let address = match given {
        Some(net) => net.addr(),
        None => target(text)?,
    };
    let own = |ip: IpAddr| {
        assigned.iter().filter(move |a| a.address.contains(&ip)).max_by_key(|a| a.address.prefix_len())
    };
    let of_source = source.and_then(|s| assigned.iter().find(|a| a.address.addr() == s));
    let near = of_source.or_else(|| own(address)).or_else(|| {
        let limited = address == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
        assigned.iter().find(|a| limited && a.address.addr().is_ipv4() && !a.address.addr().is_loopback())
    });
    let net = given.or_else(|| near.map(|a| a.address)).ok_or_else(|| {
        ApiError::usage(format!("this host has no address in a subnet of {address}: give {address}/LEN"))
    })?;
    Ok((net, near.map(|a| a.index)))
}

fn answered(reply: &Reply) -> Answered {
    Answered { from: reply.from, sequence: reply.sequence, round_trip_us: reply.round_trip.as_micros() }
}

fn text(replies: &[Reply]) -> String {
    if replies.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["FROM", "SEQUENCE", "MILLISECONDS"]).right([1, 2]);
    let mut hosts: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for reply in replies {
        *hosts.entry(reply.from).or_default() += 1;
        let us = reply.round_trip.as_micros();
        let ms = format!("{}.{:03}", us / 1000, us % 1000);
        table.row([reply.from.to_string(), reply.sequence.to_string(), ms]);
    }
    let (answers, hosts) = (plural(replies.len(), "answer"), plural(hosts.len(), "host"));
    format!("{}{answers} from {hosts}\n", table.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(index: u32, address: &str) -> Assigned {
        Assigned {
            index,
            address: address.parse().unwrap(),
            broadcast: None,
            secondary: false,
            protocol: None,
            tentative: false,
        }
    }

    #[test]
    fn the_subnet_comes_from_the_argument_the_source_or_this_hosts_addresses() {
        let all = [
            assigned(1, "127.0.0.1/8"),
            assigned(2, "10.0.0.1/24"),
            assigned(3, "10.1.0.1/16"),
            assigned(2, "fd00::1/64"),
        ];
        let find = |text: &str, source: Option<&str>| {
            subnet(text, source.map(|s| s.parse().unwrap()), &all).map(|(n, i)| (n.trunc().to_string(), i))
        };
        assert_eq!(find("10.0.0.255", None).unwrap(), ("10.0.0.0/24".into(), Some(2)));
        assert_eq!(find("10.0.0.9/25", None).unwrap(), ("10.0.0.0/25".into(), Some(2)));
        assert_eq!(find("192.0.2.0/24", None).unwrap(), ("192.0.2.0/24".into(), None));
        assert_eq!(find("255.255.255.255", None).unwrap(), ("10.0.0.0/24".into(), Some(2)));
        assert_eq!(find("255.255.255.255", Some("10.1.0.1")).unwrap(), ("10.1.0.0/16".into(), Some(3)));
        assert_eq!(find("fd00::9", None).unwrap(), ("fd00::/64".into(), Some(2)));
        assert!(find("192.0.2.9", None).is_err());
    }

    #[test]
    fn answers_are_a_table() {
        let reply =
            Reply { from: "10.0.0.2".parse().unwrap(), sequence: 0, round_trip: Duration::from_micros(1234) };
        let text = text(&[reply]);
        assert!(text.contains("10.0.0.2         0         1.234"), "{text}");
        assert!(text.ends_with("1 answer from 1 host\n"));
    }
}
