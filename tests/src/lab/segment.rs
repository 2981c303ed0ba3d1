//! The network between the hosts and the client, and its faults.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Mutex, PoisonError},
};

use anyhow::Result;

use crate::{
    frames::{Asker, Mac},
    netns::{NetNs, veth},
};

pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100);
/// Standby interfaces have stationary addresses above this.
const STANDBY_FROM: u8 = 20;
const CLIENT_MAC: Mac = Mac([2, 0, 0, 0x77, 0, 100]);

/// Bridges, their ports, and the namespaces at the ports' other ends.
pub struct Segment {
    hosts: Vec<NetNs>,
    client: NetNs,
    bridge: NetNs,
    paths: usize,
    /// What the bridge drops.
    blocked: Mutex<BTreeSet<Blocked>>,
}

/// Frames that the bridge drops; all links keep their carriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Blocked {
    /// From one host to another, on every path.
    Between(usize, usize),
    /// From one host to another, on one path.
    On { from: usize, to: usize, path: usize },
    /// All to a host, from anybody, on one path.
    To { host: usize, path: usize },
    /// Heartbeats, kernel probes and consensus from one host to another; ARP and neighbour discovery pass.
    Talk(usize, usize),
    /// Both ways between a host and one that is none of the hosts.
    Other { host: usize, other: u8 },
}

impl Segment {
    pub(super) fn new(hosts: usize, paths: usize) -> Result<Self> {
        let bridge = NetNs::new("vipd-bridge")?;
        for path in 0..paths {
            bridge
                .ip(&format!("link add br{path} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"))?;
            bridge.sysctl(&format!("ipv6/conf/br{path}/disable_ipv6"), "1")?;
            bridge.ip(&format!("link set br{path} up"))?;
        }
        let client = NetNs::new("vipd-client")?;
        plug(&bridge, &client, 0, "c", CLIENT_MAC, &[CLIENT_V4.into(), CLIENT_V6.into()])?;
        let hosts = (0..hosts)
            .map(|index| {
                let ns = NetNs::new(&format!("vipd-host{}", index + 1))?;
                for path in 0..paths {
                    let addresses = [v4(index, path).into(), v6(index, path).into()];
                    plug(&bridge, &ns, path, &port(index, path), mac(index, path), &addresses)?;
                }
                Ok(ns)
            })
            .collect::<Result<_>>()?;
        Ok(Self { hosts, client, bridge, paths, blocked: Mutex::default() })
    }

    pub fn host(&self, index: usize) -> &NetNs {
        &self.hosts[index]
    }

    pub fn client(&self) -> &NetNs {
        &self.client
    }

    pub fn bridge(&self) -> &NetNs {
        &self.bridge
    }

    pub fn client_mac(&self) -> Mac {
        CLIENT_MAC
    }

    pub fn host_mac(&self, index: usize) -> Mac {
        mac(index, 0)
    }

    /// The stationary address of a host on a path.
    pub fn address(&self, index: usize, path: usize) -> Ipv4Addr {
        v4(index, path)
    }

    /// The client as a sender of questions.
    pub fn asker(&self) -> Asker {
        Asker { mac: CLIENT_MAC, v4: CLIENT_V4, v6: CLIENT_V6 }
    }

    /// Another namespace on the clients' network, with the stationary address 10.77.0.NUMBER.
    pub fn plug_other(&self, name: &str, number: u8) -> Result<NetNs> {
        let ns = NetNs::new(name)?;
        let addresses = [IpAddr::from(Ipv4Addr::new(10, 77, 0, number))];
        plug(&self.bridge, &ns, 0, &format!("o{number}"), Mac([2, 0, 0, 0x77, 1, number]), &addresses)?;
        Ok(ns)
    }

    /// From now on nothing gets from the host to those that were plugged with these numbers, or back; undone
    /// with the rest.
    pub fn part_from(&self, host: usize, others: &[u8]) -> Result<()> {
        self.change_blocked(|blocked| {
            blocked.extend(others.iter().map(|&other| Blocked::Other { host, other }));
        })
    }

    /// A second interface, `eth2`, of the host on the client's network, in addition to `eth0`.
    pub fn plug_standby(&self, index: usize) -> Result<()> {
        let number = STANDBY_FROM + index as u8 + 1;
        let addresses = [
            IpAddr::from(Ipv4Addr::new(10, 77, 0, number)),
            IpAddr::from(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into())),
        ];
        let port = standby_port(index);
        plug_as("eth2", &self.bridge, &self.hosts[index], 0, &port, self.standby_mac(index), &addresses)
    }

    pub fn standby_mac(&self, index: usize) -> Mac {
        mac(index, 2)
    }

    /// Takes the far end of the cable of the host's `eth0` or standby interface down, or up again.
    pub fn set_carrier(&self, index: usize, standby: bool, carrier: bool) -> Result<()> {
        let port = if standby { standby_port(index) } else { port(index, 0) };
        let state = if carrier { "up" } else { "down" };
        self.bridge.ip(&format!("link set {port} {state}")).map(drop)
    }

    /// Takes the far ends of all the host's cables down: it loses its carrier.
    pub fn cut(&self, index: usize) -> Result<()> {
        self.set_ports(index, false)
    }

    /// Takes the far end of one of the host's cables down, or up again.
    pub fn set_cable(&self, host: usize, path: usize, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        self.bridge.ip(&format!("link set {} {state}", port(host, path))).map(drop)
    }

    /// Undoes [`Segment::cut`].
    pub fn mend(&self, index: usize) -> Result<()> {
        self.set_ports(index, true)
    }

    fn set_ports(&self, index: usize, up: bool) -> Result<()> {
        (0..self.paths).try_for_each(|path| self.set_cable(index, path, up))
    }

    /// From now on nothing gets from one host to another; the other way is untouched.
    pub fn block(&self, from: usize, to: usize) -> Result<()> {
        self.change_blocked(|blocked| {
            blocked.insert(Blocked::Between(from, to));
        })
    }

    /// As [`Segment::block`], on one path alone.
    pub fn block_on(&self, path: usize, from: usize, to: usize) -> Result<()> {
        self.change_blocked(|blocked| {
            blocked.insert(Blocked::On { from, to, path });
        })
    }

    /// From now on nothing gets from either to the other.
    pub fn partition(&self, a: usize, b: usize) -> Result<()> {
        self.change_blocked(|blocked| {
            blocked.extend([Blocked::Between(a, b), Blocked::Between(b, a)]);
        })
    }

    /// From now on neither hears the other's daemon or kernel; who asks on the network whose an address is gets his
    /// answer.
    pub fn silence(&self, a: usize, b: usize) -> Result<()> {
        self.change_blocked(|blocked| {
            blocked.extend([Blocked::Talk(a, b), Blocked::Talk(b, a)]);
        })
    }

    /// Cuts a host off from all other hosts, not from the client.
    pub fn isolate(&self, index: usize) -> Result<()> {
        let others = (0..self.hosts.len()).filter(|other| *other != index);
        self.change_blocked(|blocked| {
            let both = |other| [Blocked::Between(index, other), Blocked::Between(other, index)];
            blocked.extend(others.flat_map(both));
        })
    }

    /// From now on nothing reaches the host's interface of this path, whose carrier stays; what the host
    /// sends there gets through.
    pub fn deafen(&self, host: usize, path: usize) -> Result<()> {
        self.change_blocked(|blocked| {
            blocked.insert(Blocked::To { host, path });
        })
    }

    /// Undoes every block, partition and isolation.
    pub fn heal(&self) -> Result<()> {
        self.change_blocked(BTreeSet::clear)
    }

    fn change_blocked(&self, change: impl FnOnce(&mut BTreeSet<Blocked>)) -> Result<()> {
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut blocked);
        // The whole table at once: nft applies a file as one transaction.
        let mut rules = String::from("table bridge lab\ndelete table bridge lab\n");
        rules.push_str("table bridge lab {\nchain forward {\ntype filter hook forward priority 0;\n");
        for block in blocked.iter() {
            match *block {
                Blocked::Between(from, to) => {
                    for path in 0..self.paths {
                        let (from, to) = (port(from, path), port(to, path));
                        rules.push_str(&format!("iifname \"{from}\" oifname \"{to}\" drop\n"));
                    }
                }
                Blocked::On { from, to, path } => {
                    let (from, to) = (port(from, path), port(to, path));
                    rules.push_str(&format!("iifname \"{from}\" oifname \"{to}\" drop\n"));
                }
                Blocked::Talk(from, to) => {
                    for path in 0..self.paths {
                        let (from, to) = (port(from, path), port(to, path));
                        rules.push_str(&format!(
                            "iifname \"{from}\" oifname \"{to}\" meta l4proto {{ tcp, udp }} drop\n"
                        ));
                    }
                }
                Blocked::Other { host, other } => {
                    let host = port(host, 0);
                    rules.push_str(&format!("iifname \"{host}\" oifname \"o{other}\" drop\n"));
                    rules.push_str(&format!("iifname \"o{other}\" oifname \"{host}\" drop\n"));
                }
                Blocked::To { host, path } => {
                    rules.push_str(&format!("oifname \"{}\" drop\n", port(host, path)));
                }
            }
        }
        rules.push_str("}\n}\n");
        self.bridge.nft(&rules)
    }
}

/// A cable from a port of bridge `path` to the interface of the same number in the namespace.
fn plug(bridge: &NetNs, ns: &NetNs, path: usize, port: &str, mac: Mac, addresses: &[IpAddr]) -> Result<()> {
    plug_as(&format!("eth{path}"), bridge, ns, path, port, mac, addresses)
}

fn plug_as(
    interface: &str,
    bridge: &NetNs,
    ns: &NetNs,
    path: usize,
    port: &str,
    mac: Mac,
    addresses: &[IpAddr],
) -> Result<()> {
    veth(bridge, port, ns, interface)?;
    // Neither a duplicate check nor a router's advice delays or changes what the lab says.
    ns.sysctl(&format!("ipv6/conf/{interface}/accept_dad"), "0")?;
    ns.sysctl(&format!("ipv6/conf/{interface}/accept_ra"), "0")?;
    ns.ip(&format!("link set {interface} down"))?;
    ns.ip(&format!("link set {interface} address {mac}"))?;
    ns.ip(&format!("link set {interface} up"))?;
    for address in addresses {
        match address {
            IpAddr::V4(a) => ns.ip(&format!("addr add {a}/24 broadcast + dev {interface}"))?,
            IpAddr::V6(a) => ns.ip(&format!("addr add {a}/64 dev {interface} nodad"))?,
        };
    }
    bridge.sysctl(&format!("ipv6/conf/{port}/disable_ipv6"), "1")?;
    bridge.ip(&format!("link set {port} master br{path}"))?;
    Ok(())
}

/// The bridge's port of a host.
fn port(index: usize, path: usize) -> String {
    format!("h{}p{path}", index + 1)
}

/// The bridge's port of a host's standby interface.
fn standby_port(index: usize) -> String {
    format!("h{}s", index + 1)
}

fn mac(index: usize, path: usize) -> Mac {
    Mac([2, 0, 0, 0x77, path as u8, index as u8 + 1])
}

fn v4(index: usize, path: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77 + path as u8, 0, index as u8 + 1)
}

fn v6(index: usize, path: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77 + path as u16, 0, 0, 0, 0, 0, 0, index as u16 + 1)
}
