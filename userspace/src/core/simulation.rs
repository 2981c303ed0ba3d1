//! Whole nodes on one virtual clock: leases, suspicion, planner, changes, agents and gates together,
//! against lost, late and repeated messages, partitions in one direction or both, pauses, restarts of
//! daemons and hosts, clocks that run apart, and leaders that come, go and overlap.
//!
//! The log is an oracle: whoever believes to lead may propose, each proposal takes effect in some order
//! at some time or never, and nodes learn of it late. That is worse than what Raft allows.
//!
//! A seed that fails is printed; `VIPD_SIM_SEED=N cargo test simulation` replays it with its story.

mod kernel;
mod node;
mod upset;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use self::kernel::{Kernel, Run};
use super::{
    agent::{Action, Agent, DeviceHealth, Devices, Here, Operation, Situation, Start},
    alone::{self, Permission, Step},
    change::{Applied, Change, DefaultSetting, Duty, NewNode, apply},
    lease::{Granter, Holder, Proof, Refused},
    planner::{NodeHealth, Observed, plan},
    quorum::Quorum,
    sequence::{Cause, Failure},
    suspicion::{Hearing, Testimony, is_suspected},
    time::BootTime,
};
use crate::model::{
    Addresses, Alone, ClusterState, Epoch, LeaseEpoch, NodeId, NodeSettings, Resource, Standing, Tag,
    TwoNodes,
};

const LEASE: Duration = Duration::from_millis(300);
const BEAT: u64 = 40;
const SUSPICION: Duration = Duration::from_millis(200);
const GRACE: Duration = Duration::from_millis(1000);

/// Milliseconds of true time.
type Millis = u64;

struct Random(u64);

impl Random {
    /// splitmix64
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Debug)]
enum Packet {
    Ask {
        life: u64,
        asked: BootTime,
        epoch: LeaseEpoch,
        lease_valid: bool,
        silences: BTreeMap<NodeId, Duration>,
    },
    Ack {
        life: u64,
        asked: BootTime,
        epoch: LeaseEpoch,
        refused: Option<Refused>,
    },
    Query {
        life: u64,
        node: NodeId,
        below: LeaseEpoch,
    },
    Answer {
        life: u64,
        node: NodeId,
        below: LeaseEpoch,
        remaining: Duration,
    },
    /// To a kernel: shut all lease epochs below.
    Fence {
        life: u64,
        below: LeaseEpoch,
    },
    /// From a kernel: what it has shut.
    Fenced {
        life: u64,
        fence: LeaseEpoch,
    },
}

enum Flying {
    Packet { from: NodeId, to: NodeId, packet: Packet },
    Proposal { from: NodeId, life: u64, change: Change },
}

#[derive(Default)]
struct Said {
    lease_valid: bool,
    had_lease: bool,
    lost: Option<BootTime>,
    silences: BTreeMap<NodeId, Testimony>,
}

struct Daemon {
    holder: Holder,
    granter: Granter,
    permission: Permission,
    turn: u64,
    ask_again: Millis,
    hearing: Hearing,
    said: BTreeMap<NodeId, Said>,
    /// None until caught up.
    agent: Option<Agent>,
    barrier: Option<usize>,
    applied: usize,
    runs: BTreeMap<Tag, Run>,
    report_again: Millis,
    next_beat: Millis,
    proofs: BTreeMap<NodeId, Proof>,
    own_lost: Option<BootTime>,
}

struct Host {
    id: NodeId,
    devices: Devices,
    born: Millis,
    ppm: i64,
    kernel: Kernel,
    longest: Duration,
    life: u64,
    asleep_until: Millis,
    /// Learns nothing new of the log until then.
    lags_until: Millis,
    daemon: Option<Daemon>,
}

impl Host {
    fn clock(&self, now: Millis) -> BootTime {
        let ns = i128::from(now - self.born) * (1_000_000 + i128::from(self.ppm));
        BootTime(u64::try_from(ns).expect("the clock runs forwards") + 1_000_000)
    }
}

struct World {
    random: Random,
    now: Millis,
    hosts: BTreeMap<NodeId, Host>,
    leaders: BTreeSet<NodeId>,
    /// (from, to)
    cut: BTreeSet<(NodeId, NodeId)>,
    flying: Vec<(Millis, Flying)>,
    /// The state after each entry.
    log: Vec<Arc<ClusterState>>,
    /// So many entries of the log were checked.
    checked: usize,
    calm: bool,
    story: Option<Vec<String>>,
}

const DEVICES: [&str; 2] = ["eth0", "eth1"];

/// A hierarchy of four, `web` on top, and one that stands alone.
const RESOURCES: [&str; 5] = ["web", "ip-1", "ip-2", "base", "alone"];
const DEPENDENCIES: [(&str, &str); 4] =
    [("web", "ip-1"), ("web", "ip-2"), ("ip-1", "base"), ("ip-2", "base")];

fn failure(reason: &str, silent: bool) -> Failure {
    Failure { reason: reason.into(), silent, cause: Cause::Other, in_service: Addresses::default() }
}

fn tag(name: &str) -> Tag {
    name.parse().expect("a valid tag")
}

fn tags() -> Vec<Tag> {
    RESOURCES.into_iter().map(tag).collect()
}

/// The `number`th address that the resource may have.
fn address(resource: usize, number: usize) -> ipnet::IpNet {
    format!("10.0.{resource}.{}/24", 9 + number).parse().expect("an address")
}

/// Two nodes begin with their leases held alone.
fn founded(count: u64) -> ClusterState {
    let mut state = ClusterState::default();
    state.defaults.two_nodes = TwoNodes::Freeze;
    let mut done = |change| {
        let applied = apply(&mut state, &change);
        assert!(!matches!(applied, Applied::Refused(_)), "{change:?}: {applied:?}");
    };
    for id in 1..=count {
        let at = ([10, 0, 0, id as u8], 7000).into();
        let node = NewNode { name: format!("n{id}"), rpc: at, paths: vec![at], witness: false };
        if id == 1 {
            done(Change::Found { name: "sim".into(), node });
        } else {
            done(Change::Reserve { node });
            done(Change::Admit { node: id });
        }
    }
    let settings = |id: u64| NodeSettings::new(id as u16, DEVICES.map(String::from).to_vec());
    for (i, tag) in tags().into_iter().enumerate() {
        let resource = Resource::new(tag, address(i, 0), (1..=count).map(|id| (id, settings(id))));
        done(Change::Create { resource, on: 1 });
    }
    for (parent, child) in DEPENDENCIES {
        done(Change::Depend { parent: tag(parent), child: tag(child) });
    }
    state
}

impl World {
    fn new(seed: u64, story: bool) -> Self {
        let mut random = Random(seed);
        let count = 2 + random.below(6);
        let host = |id: NodeId, random: &mut Random| Host {
            id,
            devices: DEVICES.map(|d| (d.to_owned(), DeviceHealth::Healthy)).into(),
            born: 0,
            ppm: random.below(8000) as i64 - 4000,
            kernel: Kernel::default(),
            longest: Duration::ZERO,
            life: 0,
            asleep_until: 0,
            lags_until: 0,
            daemon: None,
        };
        let hosts = (1..=count).map(|id| (id, host(id, &mut random))).collect();
        let mut world = Self {
            random,
            now: 1000,
            hosts,
            leaders: BTreeSet::from([1]),
            cut: BTreeSet::new(),
            flying: Vec::new(),
            log: vec![Arc::new(founded(count))],
            checked: 0,
            calm: true,
            story: story.then(Vec::new),
        };
        (1..=count).for_each(|id| world.start(id));
        world
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{:>6} {}", self.now, what()));
        }
    }

    fn voters(&self) -> BTreeSet<NodeId> {
        self.hosts.keys().copied().collect()
    }

    fn start(&mut self, id: NodeId) {
        self.tell(|| format!("n{id} starts"));
        let now = self.now;
        let host = self.hosts.get_mut(&id).expect("a host");
        host.life += 1;
        host.kernel.reflects = true;
        let clock = host.clock(now);
        host.daemon = Some(Daemon {
            holder: Holder::new(LEASE, host.kernel.lease.0),
            granter: Granter::new(clock, host.longest),
            permission: Permission::new(host.kernel.lease.1),
            turn: 0,
            ask_again: 0,
            hearing: Hearing::new(clock),
            said: BTreeMap::new(),
            agent: None,
            barrier: None,
            applied: 0,
            runs: BTreeMap::new(),
            report_again: 0,
            next_beat: now,
            proofs: BTreeMap::new(),
            own_lost: None,
        });
    }

    fn send(&mut self, from: NodeId, to: NodeId, packet: &Packet) {
        if self.cut.contains(&(from, to)) || (!self.calm && self.random.chance(10)) {
            return;
        }
        let copies = if !self.calm && self.random.chance(5) { 2 } else { 1 };
        for _ in 0..copies {
            let late = !self.calm && self.random.chance(5);
            let delay = if late { self.random.below(800) } else { self.random.below(10) };
            self.flying.push((self.now + delay, Flying::Packet { from, to, packet: packet.clone() }));
        }
    }

    fn propose(&mut self, from: NodeId, life: u64, change: Change) {
        if !self.calm && self.random.chance(10) {
            return;
        }
        let copies = if !self.calm && self.random.chance(10) { 2 } else { 1 };
        for _ in 0..copies {
            let late = !self.calm && self.random.chance(20);
            let delay = if late { self.random.below(1500) } else { self.random.below(30) };
            let change = change.clone();
            self.flying.push((self.now + delay, Flying::Proposal { from, life, change }));
        }
    }

    fn step(&mut self) {
        self.now += 5 + self.random.below(15);
        if !self.calm && self.random.chance(6) {
            self.upset();
        }
        self.deliver();
        let ids: Vec<NodeId> = self.hosts.keys().copied().collect();
        for id in ids {
            let Some(mut host) = self.hosts.remove(&id) else { continue };
            if let Some(mut daemon) = host.daemon.take() {
                if host.asleep_until <= self.now {
                    self.live(&mut host, &mut daemon);
                }
                host.daemon = Some(daemon);
            }
            self.hosts.insert(id, host);
        }
        self.check();
    }

    fn check(&mut self) {
        let tags = tags();
        for tag in &tags {
            let answering = self.answering(tag);
            assert!(answering.len() <= 1, "nodes {answering:?} answer for '{tag}' at {} ms", self.now);
        }
        // The rest changes with the log alone.
        for entry in &self.log[self.checked..] {
            for members in entry.hierarchies() {
                let owner = |t: &Tag| entry.placements[t].grant.map(|g| g.owner);
                let owners: BTreeSet<NodeId> = members.iter().filter_map(owner).collect();
                assert!(owners.len() <= 1, "{members:?} are on nodes {owners:?} at {} ms", self.now);
            }
        }
        self.checked = self.log.len();
    }

    fn deliver(&mut self) {
        let now = self.now;
        // A process that sleeps finds its messages when it wakes; its kernel does not sleep.
        let asleep = |f: &Flying| match f {
            Flying::Packet { packet: Packet::Fence { .. }, .. } => false,
            Flying::Packet { to, .. } => self.hosts[to].asleep_until > now,
            Flying::Proposal { .. } => false,
        };
        let (due, later) =
            std::mem::take(&mut self.flying).into_iter().partition(|(at, f)| *at <= now && !asleep(f));
        self.flying = later;
        let due: Vec<(Millis, Flying)> = due;
        for (_, f) in due {
            match f {
                Flying::Packet { from, to, packet } => self.packet(from, to, packet),
                Flying::Proposal { from, life, change } => self.commit(from, life, &change),
            }
        }
    }

    /// A proposal takes effect, whether or not its proposer still lives or leads.
    fn commit(&mut self, from: NodeId, life: u64, change: &Change) {
        let mut state = ClusterState::clone(&self.log[self.log.len() - 1]);
        let applied = apply(&mut state, change);
        self.tell(|| format!("n{from} proposed {change:?}: {applied:?}"));
        if !matches!(applied, Applied::Refused(_)) {
            self.log.push(Arc::new(state));
        }
        let now = self.now;
        let host = self.hosts.get_mut(&from).expect("a host");
        if let Some(daemon) = host
            .daemon
            .as_mut()
            .filter(|_| host.life == life && matches!(change, Change::Report { .. } | Change::Rejoin { .. }))
        {
            daemon.report_again = now;
        }
    }
}

impl World {
    fn run(&mut self, until: Millis) {
        while self.now < until {
            self.step();
        }
    }

    fn answering(&self, tag: &Tag) -> Vec<NodeId> {
        self.hosts.values().filter(|h| h.kernel.answers(tag, h.clock(self.now))).map(|h| h.id).collect()
    }

    fn all_answer(&self) -> bool {
        tags().iter().all(|tag| self.answering(tag).len() == 1)
    }

    /// Who answers does so for what is wanted, and all others have cleaned up.
    fn is_tidy(&self) -> bool {
        let newest = &self.log[self.log.len() - 1];
        tags().iter().all(|tag| {
            let wanted = newest.resources[tag].addresses();
            let [one] = self.answering(tag)[..] else { return false };
            self.hosts.values().all(|h| {
                let assigned = h.kernel.assigned(tag);
                if h.id == one { assigned == *wanted } else { assigned.is_empty() }
            })
        })
    }

    /// Everything works again, and one node leads.
    fn heal(&mut self) {
        self.calm = true;
        self.cut.clear();
        self.leaders = BTreeSet::from([1 + self.random.below(self.hosts.len() as u64)]);
        for host in self.hosts.values_mut() {
            host.devices.values_mut().for_each(|health| *health = DeviceHealth::Healthy);
        }
        let dead: Vec<NodeId> = self.hosts.values().filter(|h| h.daemon.is_none()).map(|h| h.id).collect();
        dead.into_iter().for_each(|id| self.start(id));
        for node in self.hosts.keys().copied().collect::<Vec<_>>() {
            self.propose(node, 0, Change::SetNode { node, duty: Duty::Online });
        }
        // Proposals of the trouble may still be under way: the last word is said after them.
        self.run(self.now + 2000);
        for tag in tags() {
            self.propose(1, 0, Change::InService { tag, on: None, until: None });
        }
    }
}

/// Trouble for a while, then peace, in which somebody must answer.
fn live_through(world: &mut World) {
    world.run(3000);
    assert!(world.all_answer(), "in service to begin with");
    world.calm = false;
    world.run(9000);
    world.heal();
    // What failed in the trouble is tried again, at ever longer intervals.
    let patience = world.now + 60_000;
    while !(world.all_answer() && world.is_tidy()) && world.now < patience {
        world.run(world.now + 500);
    }
    for tag in tags() {
        let answering = world.answering(&tag);
        let placement = &world.log[world.log.len() - 1].placements[&tag];
        assert_eq!(answering.len(), 1, "nobody answers for '{tag}' though all is well: {placement:?}");
        let kernels: Vec<_> = world.hosts.values().map(|h| (h.id, h.kernel.assigned(&tag))).collect();
        assert!(
            world.is_tidy(),
            "'{tag}' is not what is wanted, or not only there: {kernels:?} {placement:?}"
        );
    }
}

fn fails(seed: u64, story: bool) -> Option<World> {
    let mut world = World::new(seed, story);
    let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| live_through(&mut world)));
    lived.is_err().then_some(world)
}

/// Read when this is compiled, like everything in `core` that is no argument.
const REPLAY: Option<&str> = option_env!("VIPD_SIM_SEED");
const SEEDS: Option<&str> = option_env!("VIPD_SIM_SEEDS");

/// A quarter of the seeds each, so that all cores have their share. A failure prints its seed; a seed to be
/// replayed is told as it goes.
fn at_most_one_node_answers_and_in_the_end_one_does(quarter: u64) {
    if let Some(seed) = REPLAY.and_then(|s| s.parse().ok()) {
        if seed % 4 == quarter {
            let world = fails(seed, true);
            world.iter().flat_map(|w| w.story.iter().flatten()).for_each(|line| println!("{line}"));
            assert!(world.is_none(), "seed {seed} fails");
        }
        return;
    }
    let seeds = SEEDS.and_then(|s| s.parse().ok()).unwrap_or(2000);
    for seed in (quarter..seeds).step_by(4) {
        assert!(fails(seed, false).is_none(), "replay with VIPD_SIM_SEED={seed}");
    }
}

#[test]
fn two_thousand_lives_first_quarter() {
    at_most_one_node_answers_and_in_the_end_one_does(0);
}

#[test]
fn two_thousand_lives_second_quarter() {
    at_most_one_node_answers_and_in_the_end_one_does(1);
}

#[test]
fn two_thousand_lives_third_quarter() {
    at_most_one_node_answers_and_in_the_end_one_does(2);
}

#[test]
fn two_thousand_lives_fourth_quarter() {
    at_most_one_node_answers_and_in_the_end_one_does(3);
}

/// Daemons that restart within their leases, all at once, move nothing.
#[test]
fn a_restart_of_all_daemons_is_no_failover() {
    for seed in 0..50 {
        let mut world = World::new(seed, false);
        world.run(3000);
        let before: Vec<_> = tags().iter().map(|tag| world.answering(tag)).collect();
        let ids: Vec<NodeId> = world.hosts.keys().copied().collect();
        ids.into_iter().for_each(|id| world.start(id));
        world.run(6000);
        let after: Vec<_> = tags().iter().map(|tag| world.answering(tag)).collect();
        assert_eq!(after, before, "seed {seed}");
        for tag in tags() {
            assert_eq!(world.log[world.log.len() - 1].placements[&tag].epoch, 1, "'{tag}', seed {seed}");
        }
    }
}
