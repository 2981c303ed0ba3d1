//! Does anybody else use this address? ARP probe (RFC 5227 section 2.1.1) or neighbour solicitation
//! for duplicate address detection (RFC 4862 section 5.4.2), from a raw socket.
//!
//! Another host's simultaneous probe for the address counts as a claim, as the RFCs ask; so two hosts
//! must not check the same address at the same time unless at least one of them is to be refused, or they
//! tell probes from claims ([`uses_of`]).

mod sweep;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

pub use self::sweep::{claims_of, uses_of};
pub use super::frame::Heard;
use super::{
    frame::{self, Mac},
    network::{self, Link, NetworkError, netlink::Netlink},
    packet_socket::{ETH_P_ARP, ETH_P_IPV6, Groups, Listener, Outgoing},
};

/// PROBE_NUM of RFC 5227 section 1.1.
const PROBES: u32 = 3;

/// How long others are waited for, to be served by the same socket.
const GATHER: Duration = Duration::from_millis(2);

/// Addresses of one socket: its filter must fit into `net.core.optmem_max`, 20 KiB on older kernels.
pub(crate) const ADDRESSES_PER_SOCKET: usize = 128;

/// Longest frame that is looked at: neighbour advertisements have at most a few options.
const FRAME_BYTES: usize = 1514;

/// Sends probes on the link, spread over `wait`, and answers the distinct link-layer addresses, not
/// this host's own, that claim `address` until then. Returns early once one was heard, and at once where
/// there is no Ethernet, hence nobody to claim it.
pub async fn claims(link: &Link, address: IpAddr, wait: Duration) -> Result<Vec<[u8; 6]>, NetworkError> {
    if !link.is_ethernet() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let heard = |heard: Heard| {
        found.push(heard.mac);
        false
    };
    match listen(link, &[address], wait, heard).await {
        Ok(unsent) if unsent.is_empty() => Ok(found),
        Ok(_) => Err(failed(link, address, DROPPED.to_owned())),
        Err(error) => Err(failed(link, address, error.to_string())),
    }
}

/// Probes for many addresses at once, as after a takeover, with few sockets and system calls. Cheap to
/// clone; clones share their work.
#[derive(Clone, Default)]
pub(crate) struct Prober {
    waiting: Arc<Mutex<HashMap<Batch, Vec<Asker>>>>,
}

/// What can be probed for together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Batch {
    ifindex: u32,
    ipv6: bool,
    wait: Duration,
}

struct Asker {
    address: IpAddr,
    answer: oneshot::Sender<Result<Vec<Heard>, String>>,
}

const DROPPED: &str = "all probes were dropped on their way out (is the transmit queue full?)";

impl Prober {
    /// As [`claims`], but who only probes does not end it early.
    pub(crate) async fn uses(
        &self,
        link: &Link,
        address: IpAddr,
        wait: Duration,
    ) -> Result<Vec<Heard>, NetworkError> {
        if !link.is_ethernet() {
            return Ok(Vec::new());
        }
        let batch = Batch { ifindex: link.index, ipv6: address.is_ipv6(), wait };
        let (answer, answered) = oneshot::channel();
        let asker = Asker { address, answer };
        let is_first = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let askers = waiting.entry(batch).or_default();
            askers.push(asker);
            askers.len() == 1
        };
        if is_first {
            // A task of its own: the others are served also when the first one gives up.
            tokio::spawn(self.clone().serve(batch, link.clone()));
        }
        let answer = answered.await.unwrap_or_else(|_| Err("the probe was broken off".to_owned()));
        answer.map_err(|reason| failed(link, address, reason))
    }

    async fn serve(self, batch: Batch, link: Link) {
        tokio::time::sleep(GATHER).await;
        let askers = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&batch);
        let mut askers = askers.unwrap_or_default();
        let mut chunks = Vec::new();
        while !askers.is_empty() {
            let rest = askers.split_off(askers.len().min(ADDRESSES_PER_SOCKET));
            chunks.push(serve_some(&link, std::mem::replace(&mut askers, rest), batch.wait));
        }
        join_all(chunks).await;
    }
}

async fn serve_some(link: &Link, mut askers: Vec<Asker>, wait: Duration) {
    let addresses: Vec<_> = askers.iter().map(|asker| asker.address).collect();
    let mut probing: Vec<Heard> = Vec::new();
    let outcome = listen(link, &addresses, wait, |heard| {
        if heard.probing {
            if !probing.contains(&heard) {
                probing.push(heard);
            }
            return true;
        }
        for asker in askers.extract_if(.., |asker| asker.address == heard.address) {
            // Whoever has given up needs no answer.
            let _ = asker.answer.send(Ok(vec![heard]));
        }
        !askers.is_empty()
    });
    let outcome = outcome.await.map_err(|error| error.to_string());
    for asker in askers {
        let answer = match &outcome {
            Ok(unsent) if unsent.contains(&asker.address) => Err(DROPPED.to_owned()),
            Ok(_) => Ok(probing.iter().copied().filter(|h| h.address == asker.address).collect()),
            Err(reason) => Err(reason.clone()),
        };
        let _ = asker.answer.send(answer);
    }
}

fn failed(link: &Link, address: IpAddr, reason: String) -> NetworkError {
    let action = format!("probe for duplicates of {address} on {}", link.name);
    NetworkError::trying(action)(io::Error::other(reason))
}

/// Probes for addresses of one family. `heard` is told of each claim of another host, and whether to go
/// on is its answer. Returns those addresses of which not one probe left this host.
async fn listen(
    link: &Link,
    addresses: &[IpAddr],
    wait: Duration,
    mut heard: impl FnMut(Heard) -> bool,
) -> io::Result<Vec<IpAddr>> {
    // Listening begins before anything is sent, so that no answer can be too early.
    let listener = listener(link, addresses)?;
    let probes: Vec<Outgoing> = addresses.iter().map(|&address| probe(link, address)).collect();
    let mut dropped = vec![0; addresses.len()];
    let mut own = Own::new(link.mac);
    let mut buffer = [0; FRAME_BYTES];
    let start = Instant::now();
    for n in 0..PROBES {
        for i in listener.send_all(link.index, &probes)? {
            dropped[i] += 1;
        }
        let until = start + wait * (n + 1) / PROBES;
        while let Ok(length) = timeout_at(until, listener.receive(&mut buffer)).await {
            let Some(met) = frame::heard(&buffer[..length?]) else { continue };
            let matters = addresses.contains(&met.address) && !own.is(met.mac).await?;
            if matters && !heard(met) {
                return Ok(Vec::new());
            }
        }
    }
    let unsent = dropped.iter().zip(addresses).filter(|(count, _)| **count == PROBES);
    Ok(unsent.map(|(_, &address)| address).collect())
}

fn listener(link: &Link, addresses: &[IpAddr]) -> io::Result<Listener> {
    let (mut v4, mut v6) = (Vec::<Ipv4Addr>::new(), Vec::<Ipv6Addr>::new());
    for address in addresses {
        match address {
            IpAddr::V4(a) => v4.push(*a),
            IpAddr::V6(a) => v6.push(*a),
        }
    }
    if v6.is_empty() {
        return Listener::open(link.index, ETH_P_ARP, &frame::arp_filter(&v4), Groups::These(&[]));
    }
    // Other hosts' detections go to the solicited-node group.
    let mut groups: Vec<_> = v6.iter().map(|a| frame::multicast_mac(frame::solicited_node(*a))).collect();
    groups.sort_unstable();
    groups.dedup();
    Listener::open(link.index, ETH_P_IPV6, &frame::nd_filter(&v6), Groups::These(&groups))
}

fn probe(link: &Link, address: IpAddr) -> Outgoing {
    match address {
        IpAddr::V4(a) => (ETH_P_ARP, frame::arp_probe(link.mac, a)),
        IpAddr::V6(a) => (ETH_P_IPV6, frame::duplicate_address_solicitation(link.mac, a)),
    }
}

/// This host's link-layer addresses: another of its interfaces on the same segment may answer too.
struct Own {
    macs: Vec<Mac>,
    asked: bool,
}

impl Own {
    fn new(mac: Mac) -> Self {
        Self { macs: vec![mac], asked: false }
    }

    /// The host's links are read when another address is first met: normally none is.
    async fn is(&mut self, claimant: Mac) -> io::Result<bool> {
        if !self.macs.contains(&claimant) && !self.asked {
            let links = network::links(&Netlink::open()?).await.map_err(io::Error::other)?;
            self.macs.extend(links.into_iter().map(|link| link.mac));
            self.asked = true;
        }
        Ok(self.macs.contains(&claimant))
    }
}
