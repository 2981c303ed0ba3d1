//! Two hosts on one segment: ours, where the library runs, and a peer with ordinary tools.

use std::{
    net::IpAddr,
    os::fd::IntoRawFd,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use nix::sys::socket::{setsockopt, sockopt};
use pnet::datalink::{self, Channel, Config, DataLinkReceiver};
use socket2::{Domain, Protocol, Socket, Type};
use vipd::observe::network::{Assigned, Link, Network};
use vipd_tests::netns::{NetNs, run, veth};

/// Longest wait for something that must happen.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Ours is 192.0.2.1 and 2001:db8::1, the peer's end in .2 and ::2; both call the interface eth0.
pub struct Pair {
    pub us: NetNs,
    pub peer: NetNs,
}

pub const PEER_V4: &str = "192.0.2.2";
pub const PEER_V6: &str = "2001:db8::2";

impl Pair {
    pub fn new() -> Result<Self> {
        let pair = Self { us: NetNs::new("vipd-us")?, peer: NetNs::new("vipd-peer")? };
        // Without duplicate address detection, which takes seconds.
        for host in [&pair.us, &pair.peer] {
            host.sysctl("ipv6/conf/default/accept_dad", "0")?;
        }
        veth(&pair.us, "eth0", &pair.peer, "eth0")?;
        for (host, last) in [(&pair.us, 1), (&pair.peer, 2)] {
            host.ip(&format!("addr add 192.0.2.{last}/24 brd + dev eth0"))?;
            host.ip(&format!("addr add 2001:db8::{last}/64 dev eth0 nodad"))?;
        }
        // The kernel notices carrier a moment after the links are up, and only then speaks IPv6.
        for host in [&pair.us, &pair.peer] {
            until("IPv6 to be ready", || {
                let shown = host.ip("-6 addr show dev eth0")?;
                Ok(shown.contains("fe80:") && !shown.contains("tentative"))
            })?;
        }
        Ok(pair)
    }

    /// Runs the closure with a network handle in our host's namespace, on a runtime of one thread.
    pub fn with_network<T: Send>(&self, closure: impl AsyncFnOnce(Network) -> Result<T> + Send) -> Result<T> {
        on(&self.us, closure)
    }

    /// As [`Self::with_network`], with our end of the pair.
    pub fn with_link<T: Send>(
        &self,
        closure: impl AsyncFnOnce(Network, Link) -> Result<T> + Send,
    ) -> Result<T> {
        self.with_network(async |network| {
            let link = network.link("eth0").await?;
            closure(network, link).await
        })
    }

    /// What arrives at the peer's end from now on.
    pub fn capture(&self) -> Result<Capture> {
        self.peer.enter(|| Capture::open("eth0"))
    }

    pub fn peer_mac(&self) -> Result<[u8; 6]> {
        mac_of(&self.peer, "eth0")
    }

    pub fn our_mac(&self) -> Result<[u8; 6]> {
        mac_of(&self.us, "eth0")
    }
}

/// Runs the closure with a network handle on that host.
pub fn on<T: Send>(host: &NetNs, closure: impl AsyncFnOnce(Network) -> Result<T> + Send) -> Result<T> {
    host.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { closure(Network::open()?).await })
    })
}

fn mac_of(host: &NetNs, name: &str) -> Result<[u8; 6]> {
    host.enter(|| {
        let found = datalink::interfaces().into_iter().find(|i| i.name == name);
        Ok(found.and_then(|i| i.mac).context("an interface with a MAC")?.octets())
    })
}

/// How often the carrier of the host's eth0 came or went so far: when it is set down and up, it is both.
pub fn carrier_changes(host: &NetNs) -> Result<u32> {
    // Which namespace's interfaces /sys shows is decided by who mounts it, which this does anew.
    let mut read = Command::new("ip");
    read.args(["netns", "exec", host.name(), "cat", "/sys/class/net/eth0/carrier_changes"]);
    Ok(output(&mut read)?.trim().parse()?)
}

/// Frames as they arrive on an interface, sent ones as well.
pub struct Capture(Box<dyn DataLinkReceiver>);

impl Capture {
    /// In the namespace of the calling thread.
    fn open(name: &str) -> Result<Self> {
        let interface = datalink::interfaces().into_iter().find(|i| i.name == name);
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        // Far more than any test sends.
        setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20))?;
        let config = Config {
            read_timeout: Some(Duration::from_millis(20)),
            // The channel closes it.
            socket_fd: Some(socket.into_raw_fd()),
            ..Config::default()
        };
        match datalink::channel(&interface.context("the interface")?, config)? {
            Channel::Ethernet(_, receiver) => Ok(Self(receiver)),
            _ => bail!("no Ethernet channel"),
        }
    }

    /// Collects the frames that pass `filter` until there are `count`, or an error after the deadline.
    pub fn collect(&mut self, count: usize, filter: impl Fn(&[u8]) -> bool) -> Result<Vec<Vec<u8>>> {
        let start = Instant::now();
        let mut found = Vec::new();
        while found.len() < count {
            if start.elapsed() > DEADLINE {
                bail!("only {} of {count} frames came: {found:02x?}", found.len());
            }
            found.extend(self.next(&filter));
        }
        Ok(found)
    }

    /// The frames that pass `filter` and have arrived already, and all until nothing comes for a while.
    pub fn rest(&mut self, filter: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut quiet = Instant::now();
        while quiet.elapsed() < Duration::from_millis(100) {
            if let Some(frame) = self.next(&filter) {
                found.push(frame);
                quiet = Instant::now();
            }
        }
        found
    }

    fn next(&mut self, filter: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let frame = self.0.next().ok()?;
        filter(frame).then(|| frame.to_vec())
    }
}

/// An echo request, by EtherType, protocol and type.
pub fn is_echo_request(frame: &[u8]) -> bool {
    match frame {
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x08, 0x00, ..] => frame[23] == 1 && frame[34] == 8,
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x86, 0xdd, ..] => frame[20] == 58 && frame[54] == 128,
        _ => false,
    }
}

pub fn is_from(frame: &[u8], mac: [u8; 6]) -> bool {
    frame.get(6..12) == Some(&mac[..])
}

/// Polls until the condition holds; an error that names it when it does not in time.
pub fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > DEADLINE {
            bail!("{what}: not within {DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

pub fn net(text: &str) -> IpNet {
    text.parse().expect("an address with a prefix length")
}

pub fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub async fn find(network: &Network, address: &str) -> Result<Vec<Assigned>> {
    let all = network.addresses().await?;
    Ok(all.into_iter().filter(|a| a.address.addr() == addr(address)).collect())
}

/// The output of a command that must succeed.
pub fn output(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&run(command)?.stdout).into_owned())
}
