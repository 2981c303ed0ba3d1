//! Duplicate checks of whole sets: thousands of addresses probed for from one socket of each family.

use std::{io, net::IpAddr, pin::pin, time::Duration};

use futures::future::select;
use tokio::time::{Instant, timeout_at};

use super::{ADDRESSES_PER_SOCKET, DROPPED, FRAME_BYTES, Own, PROBES, listener, probe};
use crate::observe::{
    frame::{self, Heard},
    network::{Link, NetworkError},
    packet_socket::{ETH_P_ARP, ETH_P_IPV6, Groups, Listener, Outgoing},
};

/// So many claims prove that something is wrong; more are not waited for.
const CLAIMS: usize = 16;

/// From this many addresses on two probes for each have to do, or a takeover would wait for seconds.
const MANY: usize = 1024;
const PROBES_OF_MANY: u32 = 2;

/// Probes in a second, and how many leave without a look at what comes in.
const PACE: u32 = 100_000;
const CHUNK: usize = 32;

/// What a timer can do.
const TICK: Duration = Duration::from_millis(1);

/// Probes for all the addresses, three times (twice when they are more than a thousand), at a pace that a
/// segment can take, and waits for `wait` after the last probe. Answers who else uses which of them, this
/// host's own link-layer addresses left out, and no more than sixteen: then it returns early.
///
/// Nobody claims anything where there is no Ethernet. An error when an address could not be probed for.
pub async fn claims_of(
    link: &Link,
    addresses: impl IntoIterator<Item = IpAddr>,
    wait: Duration,
) -> Result<Vec<(IpAddr, [u8; 6])>, NetworkError> {
    let mut found = uses_of(link, addresses, wait).await?;
    found.truncate(CLAIMS);
    Ok(found.into_iter().map(|h| (h.address, h.mac)).collect())
}

/// As [`claims_of`], with others' probes told from their claims. Of each host's probes one is answered, and they
/// end nothing early: members of the cluster may be probing as well.
pub async fn uses_of(
    link: &Link,
    addresses: impl IntoIterator<Item = IpAddr>,
    wait: Duration,
) -> Result<Vec<Heard>, NetworkError> {
    let (mut v4, mut v6): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv4);
    if !link.is_ethernet() {
        return Ok(Vec::new());
    }
    v4.sort_unstable();
    v6.sort_unstable();
    let action = format!("probe for duplicates of {} addresses on {}", v4.len() + v6.len(), link.name);
    let both = async {
        let (four, six) = (pin!(sweep(link, &v4, wait)), pin!(sweep(link, &v6, wait)));
        let (first, other) = select(four, six).await.factor_first();
        let mut found = first?;
        if !is_enough(&found) {
            found.extend(other.await?);
        }
        Ok(found)
    };
    both.await.map_err(NetworkError::trying(action))
}

fn is_enough(found: &[Heard]) -> bool {
    found.iter().filter(|h| !h.probing).count() >= CLAIMS
}

/// Of one family, sorted.
async fn sweep(link: &Link, addresses: &[IpAddr], wait: Duration) -> io::Result<Vec<Heard>> {
    let Some(first) = addresses.first() else { return Ok(Vec::new()) };
    // Listening begins before anything is sent, so that no answer can be too early.
    let listener = if addresses.len() > ADDRESSES_PER_SOCKET {
        listener_for_all(link, first.is_ipv4())?
    } else {
        listener(link, addresses)?
    };
    let probes = if addresses.len() > MANY { PROBES_OF_MANY } else { PROBES };
    let mut sweep = Sweep {
        link,
        listener,
        addresses,
        own: Own::new(link.mac),
        sent: vec![false; addresses.len()],
        found: Vec::new(),
    };
    let mut next = Instant::now();
    for _ in 0..probes {
        if sweep.listen_until(next).await? {
            return Ok(sweep.found);
        }
        next = Instant::now() + wait / probes;
        if sweep.probe_all().await? {
            return Ok(sweep.found);
        }
    }
    if sweep.listen_until(Instant::now() + wait).await? {
        return Ok(sweep.found);
    }
    match sweep.sent.iter().position(|sent| !sent) {
        None => Ok(sweep.found),
        Some(unsent) => Err(io::Error::other(format!("{}: {DROPPED}", addresses[unsent]))),
    }
}

struct Sweep<'a> {
    link: &'a Link,
    listener: Listener,
    addresses: &'a [IpAddr],
    own: Own,
    /// Which of the addresses were probed for at least once.
    sent: Vec<bool>,
    found: Vec<Heard>,
}

impl Sweep<'_> {
    /// One probe for each. True when enough claims were heard.
    async fn probe_all(&mut self) -> io::Result<bool> {
        let start = Instant::now();
        for (n, chunk) in self.addresses.chunks(CHUNK).enumerate() {
            let frames: Vec<Outgoing> = chunk.iter().map(|&address| probe(self.link, address)).collect();
            let dropped = self.listener.send_all(self.link.index, &frames)?;
            let sent = &mut self.sent[n * CHUNK..];
            for (i, sent) in sent.iter_mut().take(chunk.len()).enumerate() {
                *sent |= !dropped.contains(&i);
            }
            let due = start + Duration::from_secs(1) * ((n + 1) * CHUNK) as u32 / PACE;
            if due > Instant::now() + TICK {
                if self.listen_until(due).await? {
                    return Ok(true);
                }
            } else {
                tokio::task::yield_now().await;
            }
        }
        Ok(false)
    }

    /// True when enough claims were heard.
    async fn listen_until(&mut self, until: Instant) -> io::Result<bool> {
        let mut buffer = [0; FRAME_BYTES];
        while let Ok(length) = timeout_at(until, self.listener.receive(&mut buffer)).await {
            let Some(heard) = frame::heard(&buffer[..length?]) else { continue };
            let wanted = self.addresses.binary_search(&heard.address).is_ok() && !self.knows(&heard);
            if wanted && !self.own.is(heard.mac).await? {
                self.found.push(heard);
                if is_enough(&self.found) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn knows(&self, heard: &Heard) -> bool {
        if !heard.probing {
            return self.found.contains(heard);
        }
        let probers = || self.found.iter().filter(|h| h.probing);
        probers().any(|h| h.mac == heard.mac) || probers().count() >= CLAIMS
    }
}

/// Hears every ARP frame, or all of neighbour discovery, of the segment: neither a filter nor a socket's
/// groups have room for thousands of addresses.
fn listener_for_all(link: &Link, ipv4: bool) -> io::Result<Listener> {
    let listener = if ipv4 {
        Listener::open(link.index, ETH_P_ARP, &frame::any_filter(), Groups::These(&[]))?
    } else {
        Listener::open(link.index, ETH_P_IPV6, &frame::any_nd_filter(), Groups::All)?
    };
    listener.enlarge();
    Ok(listener)
}
