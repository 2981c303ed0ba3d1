//! Keeps the datapath attached to the interfaces that matter, with up-to-date facts about them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    sync::{
        Mutex,
        broadcast::{
            self,
            error::{RecvError, TryRecvError},
        },
        watch,
    },
    time::{Duration, Instant},
};

use super::{
    events::{About, EventLog},
    owners::Owners,
};
use crate::{
    act::{
        address,
        datapath::{self, Attachment, Datapath, InterfaceFacts},
    },
    cluster::View,
    config::NodeConfig,
    model::{ClusterState, NodeId, Resource},
    observe::network::{Assigned, Link, Network, NetworkError, NetworkEvent},
};

/// Between two readings of this host's interfaces; more where a reading takes long.
const PACE: Duration = Duration::from_millis(20);
const LONGEST_PACE: Duration = Duration::from_secs(2);

/// How soon an interface that could not take XDP is tried again.
const RETRY: Duration = Duration::from_secs(2);

pub struct Interfaces {
    config: NodeConfig,
    network: Network,
    datapath: Arc<dyn Datapath>,
    events: EventLog,
    /// How each wanted device is attached; the lock also makes attaching one at a time.
    attached: Mutex<BTreeMap<String, (u32, Attachment)>>,
    all_guarded: watch::Sender<bool>,
    /// Those without an egress guard, so that each is told once.
    unguarded_links: std::sync::Mutex<BTreeSet<String>>,
    /// All interfaces were gone over once.
    looked: AtomicBool,
}

impl Interfaces {
    pub fn new(config: NodeConfig, network: Network, datapath: Arc<dyn Datapath>, events: EventLog) -> Self {
        let all_guarded = watch::Sender::new(datapath.unguarded().is_none());
        let (attached, unguarded_links) = Default::default();
        let looked = AtomicBool::new(false);
        Self { config, network, datapath, events, attached, all_guarded, unguarded_links, looked }
    }

    /// The kernel enforces the lease on every interface that may carry an address here.
    pub fn all_guarded(&self) -> bool {
        *self.all_guarded.borrow()
    }

    /// Also nothing else may speak for an address: every Ethernet interface has its egress guard, as far as
    /// they were looked at. What peers may rely upon when this node's kernel tells of its fence.
    pub fn fence_holds(&self) -> bool {
        let unguarded = self.unguarded_links.lock().unwrap_or_else(PoisonError::into_inner);
        self.looked.load(Ordering::Relaxed) && self.all_guarded() && unguarded.is_empty()
    }

    /// Follows links, addresses and the cluster's resources until the view ends.
    pub async fn run(self: Arc<Self>, me: NodeId, mut view: watch::Receiver<View>) {
        let mut events = self.network.events();
        loop {
            let state = view.borrow_and_update().state.clone();
            let owners = Owners::of(&state);
            let begun = Instant::now();
            self.refresh(&state, &owners, me).await;
            let unguarded = self.datapath.unguarded().is_none() && !self.all_guarded();
            let retry = Instant::now() + RETRY;
            // Many things change together: one look at all of them, and time for others in between.
            tokio::time::sleep((begun.elapsed() * 4).clamp(PACE, LONGEST_PACE)).await;
            let mut changed = drain(&mut events, &owners);
            while !changed {
                tokio::select! {
                    next = view.changed() => match next {
                        // Who owns what changes nothing here.
                        Ok(()) => changed = !view.borrow_and_update().state.resources.is_same(&state.resources),
                        Err(_) => return,
                    },
                    event = events.recv() => {
                        changed = matters(&event, &owners) || drain(&mut events, &owners);
                        if matches!(event, Err(RecvError::Closed)) {
                            return;
                        }
                    }
                    // The kernel does not tell when another tool's program leaves an interface.
                    () = tokio::time::sleep_until(retry), if unguarded => changed = true,
                }
            }
        }
    }

    async fn refresh(&self, state: &ClusterState, owners: &Owners, me: NodeId) {
        if let Err(error) = self.try_refresh(state, owners, me).await {
            tracing::warn!(%error, "cannot read this host's interfaces: the datapath keeps what it knows");
        }
    }

    async fn try_refresh(
        &self,
        state: &ClusterState,
        owners: &Owners,
        me: NodeId,
    ) -> Result<(), NetworkError> {
        let links = self.network.links().await?;
        let addresses = self.network.addresses().await?;
        let wanted = self.wanted(state, me, &links, &addresses);
        let mut attached = self.attached.lock().await;
        for link in links.iter().filter(|l| wanted.contains(&l.name)) {
            self.attach(&mut attached, link, &self.facts(link, &addresses, state, owners, me));
        }
        if self.holds_any(state, me) {
            let others = links.iter().filter(|l| !wanted.contains(&l.name) && may_answer(l));
            for link in others {
                self.guard_egress(link, &self.facts(link, &addresses, state, owners, me));
            }
        }
        attached.retain(|name, _| wanted.contains(name) && links.iter().any(|l| l.name == *name));
        self.publish(&attached);
        self.looked.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn holds_any(&self, state: &ClusterState, me: NodeId) -> bool {
        state.resources.values().any(|r| r.nodes.contains_key(&me))
    }

    /// An interface that carries no virtual address, but on which the kernel may speak for one.
    fn guard_egress(&self, link: &Link, facts: &InterfaceFacts) {
        let mut told = self.unguarded_links.lock().unwrap_or_else(PoisonError::into_inner);
        match self.datapath.guard_egress(facts) {
            Ok(()) => drop(told.remove(&link.name)),
            Err(error) if told.insert(link.name.clone()) => {
                let message = format!(
                    "{}: no egress guard ({error}): if the lease ends while the daemon is dead, the kernel may \
                     answer there for this node's addresses",
                    link.name
                );
                self.events.warn(About::default(), "interface.unguarded", message);
            }
            Err(_) => {}
        }
    }

    /// Makes sure that the device is attached, before an address is put on it.
    ///
    /// # Errors
    /// When there is no such device or the host's interfaces can't be read.
    pub async fn ensure(&self, device: &str, state: &ClusterState, me: NodeId) -> Result<(), NetworkError> {
        let mut attached = self.attached.lock().await;
        let link = self.network.link(device).await?;
        if attached.get(device).is_some_and(|(index, _)| *index == link.index) {
            return Ok(());
        }
        let addresses = self.network.addresses().await?;
        let facts = self.facts(&link, &addresses, state, &Owners::of(state), me);
        self.attach(&mut attached, &link, &facts);
        self.publish(&attached);
        Ok(())
    }

    fn publish(&self, attached: &BTreeMap<String, (u32, Attachment)>) {
        let guarded = self.datapath.unguarded().is_none()
            && attached.values().all(|(_, a)| !matches!(a, Attachment::None { .. }));
        self.all_guarded.send_replace(guarded);
    }

    fn attach(
        &self,
        attached: &mut BTreeMap<String, (u32, Attachment)>,
        link: &Link,
        facts: &InterfaceFacts,
    ) {
        let result =
            self.datapath.attach(facts).unwrap_or_else(|e| Attachment::None { reason: e.to_string() });
        let known = attached.insert(link.name.clone(), (link.index, result.clone()));
        if known.is_none_or(|(index, a)| index != link.index || a != result) {
            let message = match &result {
                Attachment::Native => format!("{}: XDP attached in native mode", link.name),
                Attachment::Generic { reason } => {
                    format!("{}: XDP attached in generic mode: {reason}", link.name)
                }
                Attachment::None { reason } => format!("{}: no XDP: {reason}", link.name),
            };
            self.events.record(About::default(), "interface.attached", message);
        }
    }

    /// Devices of this node's resources, those that carry its heartbeats and peer requests (they
    /// answer the peers' broadcast pings), and those that the configuration names.
    fn wanted(
        &self,
        state: &ClusterState,
        me: NodeId,
        links: &[Link],
        addresses: &[Assigned],
    ) -> BTreeSet<String> {
        let mut wanted: BTreeSet<String> = self.config.interface.keys().cloned().collect();
        let here = state.resources.values().filter_map(|r| r.nodes.get(&me));
        wanted.extend(here.flat_map(|settings| settings.devices.iter().cloned()));
        let own: Vec<IpAddr> =
            self.config.paths.iter().chain([&self.config.rpc]).map(std::net::SocketAddr::ip).collect();
        let carrying = |l: &&Link| {
            !l.loopback && addresses.iter().any(|a| a.index == l.index && own.contains(&a.address.addr()))
        };
        wanted.extend(links.iter().filter(carrying).map(|l| l.name.clone()));
        wanted
    }

    fn facts(
        &self,
        link: &Link,
        addresses: &[Assigned],
        state: &ClusterState,
        owners: &Owners,
        me: NodeId,
    ) -> InterfaceFacts {
        // A protected physical address is still this node's own.
        let moves = |r: &Resource| r.nodes.get(&me).is_none_or(|s| !s.physical);
        let is_protected = |address: IpAddr| {
            owners.find(address).and_then(|tag| state.resources.get(tag)).is_some_and(moves)
        };
        let stationary: Vec<&Assigned> = addresses
            .iter()
            .filter(|a| a.index == link.index && a.protocol != Some(address::PROTOCOL))
            .filter(|a| !is_protected(a.address.addr()))
            .collect();
        let v4 = |a: &&Assigned| match (a.address.addr(), a.broadcast) {
            (IpAddr::V4(address), Some(IpAddr::V4(broadcast))) => Some((address, broadcast)),
            (IpAddr::V4(address), _) => broadcast_of(a).map(|b| (address, b)),
            (IpAddr::V6(_), _) => None,
        };
        let v6 = |local: bool| {
            stationary.iter().find_map(|a| match a.address.addr() {
                IpAddr::V6(address) if address.is_unicast_link_local() == local => Some(address),
                IpAddr::V6(_) | IpAddr::V4(_) => None::<Ipv6Addr>,
            })
        };
        let settings = self.config.interface.get(&link.name).cloned().unwrap_or_default();
        InterfaceFacts {
            index: link.index,
            name: link.name.clone(),
            mac: link.mac,
            kind: link.kind.clone(),
            broadcast_pings_per_second: if settings.broadcast_ping {
                settings.broadcast_ping_rate
            } else {
                0
            },
            stationary_v4: stationary.iter().filter_map(v4).collect(),
            link_local: v6(true),
            global_v6: v6(false),
            router: datapath::router(&link.name),
        }
    }
}

/// Protected addresses come and go by the thousand and change no facts. Lagging behind only means that
/// something has changed.
fn matters(event: &Result<NetworkEvent, RecvError>, owners: &Owners) -> bool {
    !matches!(event, Ok(NetworkEvent::Address { address, .. }) if owners.find(*address).is_some())
}

/// Whether any event that waits matters; afterwards none waits.
fn drain(events: &mut broadcast::Receiver<NetworkEvent>, owners: &Owners) -> bool {
    let mut changed = false;
    loop {
        match events.try_recv() {
            Ok(event) => changed |= matters(&Ok(event), owners),
            Err(TryRecvError::Lagged(_)) => changed = true,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return changed,
        }
    }
}

/// An Ethernet interface that is up: there the kernel answers ARP for any of this host's addresses, also when
/// the interface has none of its own.
fn may_answer(link: &Link) -> bool {
    link.admin_up && !link.loopback && link.mac != [0; 6]
}

/// The subnet's broadcast address where the kernel has none on record; /31 and /32 have none.
fn broadcast_of(a: &Assigned) -> Option<Ipv4Addr> {
    match a.address {
        ipnet::IpNet::V4(net) if net.prefix_len() < 31 => Some(net.broadcast()),
        ipnet::IpNet::V4(_) | ipnet::IpNet::V6(_) => None,
    }
}
