//! Three nodes and the leader, without time between them: agents, changes and the planner, on hosts whose
//! sequences fail as they are told to.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    core::{
        agent::{Action, Agent, DeviceHealth, Here, Operation, Situation, Start},
        change::{
            Applied, Change, Duty, Setting, apply,
            tests::{cluster, done, tag},
        },
        planner::{NodeHealth, Observed, explain, plan},
        sequence::{Cause, Failure},
        time::BootTime,
    },
    model::{Addresses, ClusterState, MonitoredSubnet, NodeId, NodeSettings, Phase, Resource, Standing, Tag},
};

pub const HERE: NodeId = 1;
pub const ELSEWHERE: NodeId = 2;
const HOLDERS: [NodeId; 3] = [1, 2, 3];
const DEVICES: [&str; 2] = ["eth0", "eth1"];
pub const SUBNET: &str = "10.1.0.0/24";

/// `app` depends on `ip`; `other` has nothing to do with them.
pub const CHILD: &str = "ip";
pub const PARENT: &str = "app";
pub const OTHER: &str = "other";

/// More than any of the failures takes.
const ROUNDS: usize = 60;

/// A sequence that fails on [`HERE`].
#[derive(Clone, Copy)]
pub struct Fault {
    pub operation: Operation,
    /// Once; else whenever it is run.
    pub once: bool,
    /// What is left cannot answer.
    pub silent: bool,
}

pub struct World {
    pub state: ClusterState,
    agents: BTreeMap<NodeId, Agent>,
    pub devices: BTreeMap<&'static str, DeviceHealth>,
    /// Of [`CHILD`], on [`HERE`].
    pub faults: Vec<Fault>,
    /// Neither runs nor is heard.
    pub away: BTreeSet<NodeId>,
    /// A majority is there: leases are renewed, and somebody leads.
    pub quorum: bool,
    now: u64,
    /// How much an agent gets done before the cluster hears of it: much, or only a step.
    steps: usize,
    /// What began on [`HERE`] since it was last cleared.
    pub began: Vec<(Operation, Tag)>,
}

impl World {
    /// All in service on [`HERE`], the others are successors.
    pub fn new(steps: usize) -> Self {
        let mut state = cluster();
        let settings = MonitoredSubnet::default();
        done(&mut state, Change::MonitorSubnet { subnet: SUBNET.parse().unwrap(), settings });
        for (name, address) in [(CHILD, "10.0.0.1/24"), (PARENT, "10.0.0.2/24"), (OTHER, "10.0.0.3/24")] {
            let address: ipnet::IpNet = address.parse().unwrap();
            let settings = |id: NodeId| NodeSettings::new(id as u16, DEVICES.map(String::from).to_vec());
            let resource = Resource::new(tag(name), address, HOLDERS.map(|id| (id, settings(id))));
            done(&mut state, Change::Create { resource, on: HERE });
        }
        done(&mut state, Change::Depend { parent: tag(PARENT), child: tag(CHILD) });
        let setting = Setting::Subnets([SUBNET.parse().unwrap()].into());
        done(&mut state, Change::Set { tag: tag(CHILD), node: None, setting });
        let mut world = Self {
            state,
            agents: HOLDERS.map(|id| (id, Agent::new(id))).into(),
            devices: DEVICES.map(|d| (d, DeviceHealth::Healthy)).into(),
            faults: Vec::new(),
            away: BTreeSet::new(),
            quorum: true,
            now: 0,
            steps,
            began: Vec::new(),
        };
        world.settle();
        for name in [CHILD, OTHER] {
            world.order(Change::Clear { tag: tag(name) });
            assert_eq!(world.owner(name), Some((HERE, Phase::InService)), "to begin with");
        }
        world.began.clear();
        world
    }

    pub fn order(&mut self, change: Change) {
        done(&mut self.state, change);
    }

    pub fn is_refused(&self, change: &Change) -> bool {
        matches!(apply(&mut self.state.clone(), change), Applied::Refused(_))
    }

    pub fn duty(&mut self, node: NodeId, duty: Duty) {
        self.order(Change::SetNode { node, duty });
    }

    pub fn owner(&self, name: &str) -> Option<(NodeId, Phase)> {
        self.state.placements[&tag(name)].grant.map(|g| (g.owner, g.phase))
    }

    /// A check of the child is due on [`HERE`].
    pub fn touch(&mut self) {
        let now = self.clock();
        self.agent().touched(&tag(CHILD), now);
    }

    /// The child must not stay on [`HERE`].
    pub fn give_up(&mut self, reason: &str) {
        let id = self.state.resources[&tag(CHILD)].id;
        self.agent().give_up(&tag(CHILD), id, reason.to_owned());
    }

    fn agent(&mut self) -> &mut Agent {
        self.agents.get_mut(&HERE).unwrap()
    }

    /// The daemon starts anew and finds what the kernel has; with `lost`, the host does, and has nothing.
    pub fn restart(&mut self, lost: bool) {
        let mut agent = Agent::new(HERE);
        let now = self.clock();
        let old = self.agents.remove(&HERE).unwrap();
        if !lost {
            for (name, here) in old.in_service() {
                let epoch = self.state.placements[name].epoch;
                let serving =
                    self.owner(name.as_str()).is_some_and(|(owner, _)| owner == HERE).then_some(epoch);
                agent.found(name.clone(), Here::clone(here), serving, now);
            }
        }
        agent.begin(&self.state);
        self.agents.insert(HERE, agent);
    }

    fn clock(&self) -> BootTime {
        BootTime(self.now * 1_000_000)
    }

    /// Until nothing more comes of what happened.
    pub fn settle(&mut self) {
        for _ in 0..ROUNDS {
            for id in HOLDERS {
                if !self.away.contains(&id) {
                    self.live(id);
                }
            }
            if self.quorum {
                for decision in plan(&self.state, &self.observed()) {
                    apply(&mut self.state, &decision.change);
                }
            }
            self.now += 500;
        }
    }

    pub fn observed(&self) -> Observed {
        let health = |id: NodeId| {
            let node = &self.state.nodes[&id];
            let away = self.away.contains(&id);
            let silent = away && node.standing == Standing::Deposed;
            NodeHealth { suspected: away, fit: !away, silent_below: silent.then_some(node.lease_epoch) }
        };
        let nodes = HOLDERS.map(|id| (id, health(id))).into();
        Observed { nodes, ..Observed::default() }
    }

    fn live(&mut self, id: NodeId) {
        let mut agent = self.agents.remove(&id).unwrap();
        let situation = Situation {
            caught_up: true,
            lease_valid: self.quorum,
            guarded: true,
            lease_epoch: self.state.nodes[&id].lease_epoch,
        };
        let devices = DEVICES.map(|d| {
            let health = if id == HERE { self.devices[d] } else { DeviceHealth::Healthy };
            (d.to_owned(), health)
        });
        agent.set_devices(devices.into());
        agent.set_peers(HOLDERS.into_iter().filter(|o| *o != id && !self.away.contains(o)).collect());
        for _ in 0..self.steps {
            let begun = agent.plan(self.clock(), &self.state, situation);
            if begun.is_empty() {
                break;
            }
            for action in begun {
                // Nothing runs long enough to be cancelled.
                let Action::Start(start) = action else { continue };
                let result = self.run(id, &start);
                let interval = std::time::Duration::from_secs(3600);
                agent.finished(&start.tag, result, self.clock(), interval, situation);
            }
        }
        let reports = agent.reports(&self.state, situation);
        if self.quorum && !reports.is_empty() {
            apply(&mut self.state, &Change::Report { node: id, reports });
        }
        if let Some(lease_epoch) = agent.may_rejoin(&self.state, situation) {
            apply(&mut self.state, &Change::Rejoin { node: id, lease_epoch });
        }
        self.agents.insert(id, agent);
    }

    fn run(&mut self, id: NodeId, start: &Start) -> Result<(), Failure> {
        if id != HERE {
            return Ok(());
        }
        self.began.push((start.operation, start.tag.clone()));
        let needs_link = !matches!(start.operation, Operation::Remove | Operation::Amend);
        if needs_link && self.devices[start.target.device.as_str()] == DeviceHealth::Failed {
            return Err(failure(Cause::Interface, false));
        }
        let is = |f: &Fault| start.tag == tag(CHILD) && f.operation == start.operation;
        let Some(n) = self.faults.iter().position(is) else { return Ok(()) };
        let fault = self.faults[n];
        if fault.once {
            self.faults.remove(n);
        }
        Err(failure(Cause::Other, fault.silent))
    }

    pub fn did(&self, operation: Operation) -> bool {
        self.began.iter().any(|(o, _)| *o == operation)
    }

    /// Nothing keeps the hierarchy from being started on [`HERE`].
    pub fn is_eligible(&self) -> bool {
        let explained = explain(&self.state, &self.observed(), &tag(PARENT)).unwrap();
        let here = self.state.node_name(HERE);
        explained.nodes.iter().any(|n| n.node == here && n.is_eligible())
    }
}

fn failure(cause: Cause, silent: bool) -> Failure {
    Failure { reason: "as told".to_owned(), silent, cause, in_service: Addresses::default() }
}
