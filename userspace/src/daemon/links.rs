//! Follows this host's interfaces: netlink's word at once, silence at each tick (rows NM-1, NM-2).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
};

use ipnet::IpNet;
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        watch,
    },
    task::JoinHandle,
    time::{Duration, Instant, MissedTickBehavior},
};

use super::events::{About, EventLog};
use crate::{
    act::{
        address,
        datapath::{Attachment, Datapath},
    },
    cluster::{
        View,
        heartbeat::{Ears, PATHS_TOLD, lock},
    },
    config::{NodeConfig, Timing},
    core::{
        links::{
            LinkHealth, LinkTable, LinkTiming, LinkWatch, PeerPaths, Received, Sight, Signal, Turn,
            transmitting,
        },
        time::BootTime,
    },
    model::{ClusterState, NodeId, Resource},
    observe::{
        clock,
        network::{Assigned, Link, Network, NetworkError, NetworkEvent},
    },
};

/// Between two readings of all addresses: with very many of them each costs a while.
const ADDRESS_PACE: Duration = Duration::from_secs(1);

/// More changed interfaces than these are read all at once.
const ONE_BY_ONE: usize = 8;

/// Why no polling target is reached through an interface, by its name.
pub type Unreachable = BTreeMap<String, String>;

pub struct LinkMonitor {
    pub me: NodeId,
    pub config: Arc<NodeConfig>,
    pub view: watch::Receiver<View>,
    pub network: Network,
    pub datapath: Arc<dyn Datapath>,
    pub ears: Arc<Mutex<Ears>>,
    pub timing: Timing,
    pub events: EventLog,
    pub unreachable: watch::Receiver<Unreachable>,
    /// Told to the peers: a bit for each path whose interface has a carrier.
    pub transmits: Arc<AtomicU8>,
    pub table: watch::Sender<LinkTable>,
}

/// What was read of this host.
#[derive(Default)]
struct Host {
    links: BTreeMap<String, Link>,
    /// None until they were first read.
    addresses: Option<Vec<Assigned>>,
    /// To be read again.
    stale: Stale,
    known: Known,
    watches: BTreeMap<String, LinkWatch>,
}

/// What follows from the cluster's state and this host's addresses, kept while neither changes.
#[derive(Default)]
struct Known {
    state: Option<Arc<ClusterState>>,
    /// Of this node's resources.
    devices: BTreeSet<String>,
    /// This node's own addresses on each interface, by its index.
    stationary: BTreeMap<u32, Vec<IpNet>>,
}

#[derive(Default)]
struct Stale {
    all_links: bool,
    links: BTreeSet<String>,
    addresses: bool,
}

impl LinkMonitor {
    /// Runs until the daemon ends.
    pub async fn run(self) {
        // Subscribed before the first reading: nothing falls between the two.
        let mut events = self.network.events();
        let mut host = Host::default();
        (host.stale.all_links, host.stale.addresses) = (true, true);
        let mut ticks = tokio::time::interval(self.timing.heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut reading, mut addresses_due) = (None, Instant::now());
        let mut worth_a_look = true;
        loop {
            self.read_links(&mut host).await;
            if host.stale.addresses && reading.is_none() && Instant::now() >= addresses_due {
                host.stale.addresses = false;
                addresses_due = Instant::now() + ADDRESS_PACE;
                // Beside this loop: very many addresses must not make a carrier's loss late.
                let network = self.network.clone();
                reading = Some(tokio::spawn(async move { network.addresses().await }));
            }
            // A half of the picture would be a wrong one.
            if worth_a_look && host.addresses.is_some() && !host.links.is_empty() {
                self.look(&mut host, clock::now());
            }
            tokio::select! {
                event = events.recv() => {
                    if matches!(event, Err(RecvError::Closed)) {
                        return;
                    }
                    host.stale.note(event);
                    drain(&mut events, &mut host.stale);
                    // Addresses come by the thousand, and alone change no verdict.
                    worth_a_look = host.stale.all_links || !host.stale.links.is_empty();
                }
                read = finished(&mut reading) => {
                    reading = None;
                    host.take_addresses(read);
                    worth_a_look = true;
                }
                _ = ticks.tick() => worth_a_look = true,
            }
        }
    }

    async fn read_links(&self, host: &mut Host) {
        let names = std::mem::take(&mut host.stale.links);
        if host.stale.all_links || names.len() > ONE_BY_ONE {
            match self.network.links().await {
                Ok(links) => {
                    host.stale.all_links = false;
                    host.links = links.into_iter().map(|l| (l.name.clone(), l)).collect();
                }
                Err(error) => {
                    host.stale.all_links = true;
                    tracing::warn!(%error, "cannot read this host's interfaces: looking again");
                }
            }
            return;
        }
        for name in names {
            match self.network.link(&name).await {
                Ok(link) => {
                    // Under its former name it is no more.
                    host.links.retain(|_, known| known.index != link.index);
                    host.links.insert(name, link);
                }
                Err(NetworkError::NoDevice(_)) => {
                    host.links.remove(&name);
                }
                Err(error) => {
                    host.stale.all_links = true;
                    tracing::warn!(%error, interface = %name, "cannot read this interface: looking again");
                }
            }
        }
    }

    /// Judges every interface and publishes what has changed.
    fn look(&self, host: &mut Host, now: BootTime) {
        let state = self.view.borrow().state.clone();
        host.follow(state, self.me);
        let carriers: Vec<Option<String>> =
            self.config.paths.iter().map(|path| host.carrier(path).map(|l| l.name.clone())).collect();
        self.tell_transmits(host, &carriers);
        let wanted = self.wanted(&host.known.devices, &carriers);
        let peers = self.peers();
        let unreachable = self.unreachable.borrow().clone();
        let counted = self.counted();
        let names: BTreeSet<String> = host
            .links
            .values()
            .filter(|l| !l.loopback)
            .map(|l| l.name.clone())
            .chain(wanted.iter().cloned())
            .collect();
        host.watches.retain(|name, _| names.contains(name));
        let timing = LinkTiming { deaf_after: self.timing.deaf_after, hold: self.timing.link_hold };
        let mut reports = BTreeMap::new();
        for name in names {
            let link = host.links.get(&name);
            let sight = Sight {
                link: link.map(|l| Signal { admin_up: l.admin_up, carrier: l.carrier }),
                received: link
                    .filter(|l| counted.contains(&l.index))
                    .map(|l| self.received(l, &carriers, &peers)),
                transmitting: transmitting(&name, &carriers, &peers, now, self.timing.suspicion),
                unreachable: unreachable.get(&name).cloned(),
            };
            let stationary = link.and_then(|l| host.known.stationary.get(&l.index)).cloned();
            let is_wanted = wanted.contains(&name) || sight.unreachable.is_some();
            let turn = match host.watches.get_mut(&name) {
                Some(watch) => watch.see(now, &sight, &timing),
                None => {
                    let watch = LinkWatch::new(now, &sight);
                    let to = watch.health();
                    host.watches.insert(name.clone(), watch);
                    // Found in a state that is worth a word.
                    (to != LinkHealth::Up).then_some(Turn { from: LinkHealth::Up, to })
                }
            };
            let Some(watch) = host.watches.get(&name) else { continue };
            let mut report = watch.report();
            report.stationary = stationary.unwrap_or_default();
            if let Some(turn) = turn.filter(|_| is_wanted) {
                self.tell(&name, turn, &report.why);
            }
            reports.insert(name, report);
        }
        let table = LinkTable::new(reports);
        self.table.send_if_modified(|known| {
            let changed = *known != table;
            *known = table;
            changed
        });
    }

    /// Interfaces that matter here: of this node's resources, of its paths, and those the configuration
    /// names. What becomes of them is an event, and they are in the table also while they do not exist.
    fn wanted(&self, devices: &BTreeSet<String>, carriers: &[Option<String>]) -> BTreeSet<String> {
        let mut wanted: BTreeSet<String> = self.config.interface.keys().cloned().collect();
        wanted.extend(devices.iter().cloned());
        wanted.extend(carriers.iter().flatten().cloned());
        wanted
    }

    fn peers(&self) -> Vec<PeerPaths> {
        let ears = lock(&self.ears);
        let peers = ears.peers().map(|(node, peer)| PeerPaths {
            node,
            heard: peer.paths.clone(),
            transmits: (0..PATHS_TOLD).map(|i| peer.transmits_on(i)).collect(),
        });
        peers.collect()
    }

    /// Interfaces whose frames the datapath counts.
    fn counted(&self) -> BTreeSet<u32> {
        let attached = self.datapath.attached().into_iter();
        attached.filter(|(_, a)| !matches!(a, Attachment::None { .. })).map(|(index, _)| index).collect()
    }

    /// The newest frame by the datapath's count, or the newest heartbeat where that is newer.
    fn received(&self, link: &Link, carriers: &[Option<String>], peers: &[PeerPaths]) -> Received {
        let counted = self.datapath.interface_activity(link.index).unwrap_or_default().last_receive_ns;
        let counted = (counted != 0).then_some(BootTime(counted));
        let here = |(i, heard): (usize, &Option<BootTime>)| {
            heard.filter(|_| carriers.get(i).is_some_and(|c| c.as_ref() == Some(&link.name)))
        };
        let beats = peers.iter().flat_map(|p| p.heard.iter().enumerate().filter_map(here));
        Received { last: beats.chain(counted).max() }
    }

    fn tell_transmits(&self, host: &Host, carriers: &[Option<String>]) {
        let transmits = |name: &Option<String>| {
            let link = name.as_ref().and_then(|n| host.links.get(n));
            link.is_some_and(|l| l.admin_up && l.carrier)
        };
        let told = carriers.iter().take(PATHS_TOLD).enumerate();
        let bits = told.map(|(i, name)| u8::from(transmits(name)) << i).fold(0, |all, bit| all | bit);
        self.transmits.store(bits, Ordering::Relaxed);
    }

    fn tell(&self, name: &str, turn: Turn, why: &str) {
        let about = About::default();
        match turn.to {
            LinkHealth::Missing | LinkHealth::AdminDown | LinkHealth::NoCarrier | LinkHealth::Unreachable => {
                self.events.warn(about, "link.down", format!("{name} is down: {why}"));
            }
            LinkHealth::Deaf => {
                self.events.warn(about, "link.deaf", format!("{name} is deaf: {why}"));
            }
            LinkHealth::Up if turn.from == LinkHealth::Deaf => {
                let message = format!("{name} is no longer deaf: frames arrive, or nobody transmits to it");
                self.events.record(about, "link.heard", message);
            }
            LinkHealth::Up => self.events.record(about, "link.up", format!("{name} is up again")),
        }
    }
}

type Reading = JoinHandle<Result<Vec<Assigned>, NetworkError>>;

/// Never, while nothing is being read.
async fn finished(reading: &mut Option<Reading>) -> Result<Vec<Assigned>, String> {
    match reading {
        Some(task) => match task.await {
            Ok(read) => read.map_err(|e| e.to_string()),
            Err(broken) => Err(broken.to_string()),
        },
        None => std::future::pending().await,
    }
}

impl Host {
    fn take_addresses(&mut self, read: Result<Vec<Assigned>, String>) {
        match read {
            Ok(mut addresses) => {
                addresses.retain(|a| a.protocol != Some(address::PROTOCOL));
                self.addresses = Some(addresses);
                self.known = Known::default();
            }
            Err(error) => {
                self.stale.addresses = true;
                tracing::warn!(%error, "cannot read this host's addresses: looking again");
            }
        }
    }

    /// The interface that has the address of one of this node's paths.
    fn carrier(&self, path: &SocketAddr) -> Option<&Link> {
        let assigned = self.addresses.iter().flatten().find(|a| a.address.addr() == path.ip())?;
        self.links.values().find(|l| l.index == assigned.index)
    }

    fn follow(&mut self, state: Arc<ClusterState>, me: NodeId) {
        if self.known.state.as_ref().is_some_and(|known| Arc::ptr_eq(known, &state)) {
            return;
        }
        // A protected physical address is this node's own, too.
        let moves = |r: &&Resource| r.nodes.get(&me).is_none_or(|s| !s.physical);
        let is_virtual =
            |address: IpAddr| state.resources.values().filter(moves).any(|r| r.addresses().contains(address));
        let mut stationary: BTreeMap<u32, Vec<IpNet>> = BTreeMap::new();
        for a in self.addresses.iter().flatten().filter(|a| !a.tentative && !is_virtual(a.address.addr())) {
            stationary.entry(a.index).or_default().push(a.address);
        }
        let here = state.resources.values().filter_map(|r| r.nodes.get(&me));
        let devices = here.flat_map(|settings| settings.devices.iter().cloned()).collect();
        self.known = Known { state: Some(state), devices, stationary };
    }
}

impl Stale {
    fn note(&mut self, event: Result<NetworkEvent, RecvError>) {
        match event {
            Ok(NetworkEvent::Link { name, .. }) if !name.is_empty() => {
                self.links.insert(name);
            }
            Ok(NetworkEvent::Address { .. }) => self.addresses = true,
            Ok(NetworkEvent::Link { .. } | NetworkEvent::Resync) | Err(_) => {
                (self.all_links, self.addresses) = (true, true);
            }
        }
    }
}

/// Many events come together: one look at all of them.
fn drain(events: &mut broadcast::Receiver<NetworkEvent>, stale: &mut Stale) {
    loop {
        match events.try_recv() {
            Ok(event) => stale.note(Ok(event)),
            Err(broadcast::error::TryRecvError::Lagged(n)) => stale.note(Err(RecvError::Lagged(n))),
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => return,
        }
    }
}
