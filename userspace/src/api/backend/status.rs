//! `status`: the cluster's state and this node's observations, put together.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::Duration,
};

use super::{
    Context, Member, Result, cloud_status, create::accept, hierarchy_status, placement, quorum, rekey,
    select, subnet, trouble, warnings,
};
use crate::{
    act::{
        address::PROTOCOL,
        datapath::{Attachment, Datapath},
    },
    api::{
        Answer, ClusterStatus, ConflictStatus, DatapathStatus, InterfaceStatus, NodeStatus, PathStatus,
        ResourceNodeStatus, ResourceStatus, Selection, Status, StoreMemberStatus, StoreStatus,
        facts::{ConflictFacts, Facts, PeerFacts},
        in_cloud::InCloud,
        in_use::InUse,
    },
    cluster::{StoreHealth, StoreMember},
    config::Profile,
    core::{
        conflict,
        links::{LinkHealth, LinkTable},
        time::BootTime,
    },
    model::{ClusterState, Node, NodeId, Phase, Placement, Ranges, Resource, ResourceId},
    observe::{
        clock,
        network::{Assigned, Link, mac_text},
    },
};

/// What this host says of addresses and interfaces.
pub(super) struct Here {
    me: NodeId,
    links: Vec<Link>,
    assigned: Vec<Assigned>,
    /// Interface index of each address that is assigned here.
    device_of: HashMap<IpAddr, u32>,
    /// Interface index of each resource in the datapath here.
    device_of_group: HashMap<ResourceId, u32>,
    /// The interface in use of each resource here, as the agent knows it.
    in_use: InUse,
    in_cloud: InCloud,
    now: BootTime,
    /// Frames received for each resource in the datapath here.
    packets: HashMap<ResourceId, u64>,
    /// What could not be looked at.
    pub problems: Vec<String>,
}

impl Here {
    pub async fn look(context: &Context, me: NodeId) -> Self {
        let mut problems = Vec::new();
        let (links, assigned) = context.look().await.unwrap_or_else(|e| {
            problems.push(e.message);
            (vec![], vec![])
        });
        let programmed = context.datapath.programmed().unwrap_or_else(|e| {
            problems.push(e.to_string());
            vec![]
        });
        let device_of = assigned.iter().map(|a| (a.address.addr(), a.index)).collect();
        let device_of_group = programmed.iter().map(|p| (p.group, p.ifindex)).collect();
        let packets = programmed
            .iter()
            .filter_map(|p| Some((p.group, context.datapath.group_activity(p.group).ok()?.packets)))
            .collect();
        let (in_use, in_cloud, now) = (context.in_use.clone(), context.in_cloud.clone(), clock::now());
        Self { me, links, assigned, device_of, device_of_group, in_use, in_cloud, now, packets, problems }
    }

    fn on(&self, link: &Link) -> impl Iterator<Item = &Assigned> {
        let index = link.index;
        self.assigned.iter().filter(move |a| a.index == index)
    }

    fn device(&self, resource: &Resource) -> Option<String> {
        let assigned = || self.device_of.get(&resource.addresses().first()?.addr());
        let index = self.device_of_group.get(&resource.id).or_else(assigned);
        let link = index.and_then(|index| self.links.iter().find(|l| l.index == *index));
        // Routes without a datapath entry, and what is never put on the network, show themselves nowhere.
        link.map(|l| l.name.clone()).or_else(|| self.in_use.device(&resource.tag))
    }
}

impl Context {
    pub(super) async fn status(&self, selection: &Selection) -> Result<Answer> {
        let member = self.member.borrow().clone();
        let now = clock::now();
        let facts = self.facts.borrow().clone();
        let here = Here::look(self, member.as_ref().map_or(0, |m| m.id)).await;
        let mut status = Status {
            node: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            profile: profile(self.config.profile),
            cluster: None,
            lease: self.lease(now),
            datapath: datapath(&*self.datapath),
            nodes: vec![],
            resources: vec![],
            states: BTreeMap::new(),
            hierarchies: vec![],
            interfaces: vec![],
            subnets: vec![],
            conflicts: conflicts(&self.conflicts.borrow(), now),
            warnings: vec![],
        };
        if let Some(member) = &member {
            self.add_cluster(&mut status, member, &facts, &here, now);
        }
        let state = member.as_ref().map(Member::state).unwrap_or_default();
        status.interfaces = interfaces(&here, &state, &*self.datapath, &self.links.borrow(), now);
        if let Some(cluster) = status.cluster.take() {
            let cautions = quorum::cautions(&status, &cluster);
            status.cluster = Some(ClusterStatus { cautions, ..cluster });
        }
        status.warnings = warnings::of(&status, member.is_some(), self.config.witness);
        status.warnings.extend(cloud_status::warnings(&status.resources));
        if let Some(member) = &member {
            let all = std::mem::take(&mut status.resources).into_iter();
            (status.resources, status.states) = select::select(selection, &member.state(), all);
        }
        status.warnings.extend(warnings::of_amendments(&state));
        status.warnings.extend(rekey::warnings(&state));
        status.warnings.extend(trouble::warnings(&state));
        status.warnings.extend(subnet::warnings(&state));
        status.warnings.extend(here.problems);
        status.warnings.extend(self.tunables.complaints());
        Ok(Answer::Status(Box::new(status)))
    }

    fn add_cluster(&self, status: &mut Status, member: &Member, facts: &Facts, here: &Here, now: BootTime) {
        let view = member.store.view().borrow().clone();
        let leadership = member.store.leadership().borrow().clone();
        let state = &*view.state;
        status.cluster = Some(ClusterStatus {
            name: state.name.clone(),
            leader: leadership.leader.map(|id| state.node_name(id)),
            term: leadership.term,
            applied: view.applied,
            quorum: facts.quorum,
            voters: leadership.voters.len(),
            two_nodes: state.defaults.two_nodes.name().to_owned(),
            cautions: vec![],
            store: store(member.store.health()),
            key_generation: state.key.generation,
            key_unconfirmed: state.without_key().map(|id| state.node_name(id)).collect(),
        });
        let mut serving: BTreeMap<NodeId, usize> = BTreeMap::new();
        for grant in state.placements.values().filter_map(|p| p.grant) {
            if grant.phase == Phase::InService {
                *serving.entry(grant.owner).or_default() += 1;
            }
        }
        let me = (member.id, status.lease.valid);
        status.nodes = state
            .nodes
            .values()
            .map(|n| node(n, facts, me, serving.get(&n.id).copied().unwrap_or(0), now))
            .collect();
        let all = state.resources.values();
        let all = all.filter_map(|r| Some(resource(state, r, state.placements.get(&r.tag)?, here)));
        status.resources = all.collect();
        status.hierarchies = hierarchy_status::all(state);
        status.subnets = subnet::statuses(state, facts, member.id);
    }
}

fn store(health: StoreHealth) -> StoreStatus {
    let member = |m: StoreMember| StoreMemberStatus {
        endpoint: m.endpoint,
        state: m.state,
        healthy: m.healthy,
        version: m.version,
        bytes: m.bytes,
        trouble: m.trouble,
    };
    StoreStatus {
        kind: health.kind.to_string(),
        place: health.place,
        members: health.members.into_iter().map(member).collect(),
        unreachable_ms: health.trouble.as_ref().map(|t| ms(t.since.elapsed())),
        reason: health.trouble.map(|t| t.reason),
    }
}

fn conflicts(facts: &[ConflictFacts], now: BootTime) -> Vec<ConflictStatus> {
    let recent = facts.iter().filter(|c| now.since(c.last) < conflict::REMEMBERED);
    let status = recent.map(|c| ConflictStatus {
        tag: c.tag.clone(),
        address: c.address,
        mac: mac_text(c.mac),
        count: c.count,
        last_ms: ms(now.since(c.last)),
    });
    status.collect()
}

fn profile(profile: Profile) -> String {
    match profile {
        Profile::Default => "default".to_owned(),
        Profile::Fast => "fast".to_owned(),
    }
}

pub(super) fn ms(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

fn datapath(datapath: &dyn Datapath) -> DatapathStatus {
    let reason = datapath.unguarded();
    let guard = if reason.is_none() { "kernel" } else { "user-space" };
    let verdicts = datapath
        .verdicts()
        .unwrap_or_default()
        .into_iter()
        .filter(|(_, frames)| *frames > 0)
        .map(|(verdict, frames)| (kebab(&format!("{verdict:?}")), frames))
        .collect();
    DatapathStatus { guard: guard.to_owned(), reason, verdicts }
}

/// `AnsweredArp` -> `answered-arp`
fn kebab(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

fn node(
    n: &Node,
    facts: &Facts,
    (me, my_lease): (NodeId, bool),
    serving: usize,
    now: BootTime,
) -> NodeStatus {
    let unknown = PeerFacts::default();
    let peer = facts.peers.get(&n.id).unwrap_or(&unknown);
    let own = n.id == me;
    let paths = n.paths.iter().enumerate().map(|(i, address)| {
        let path = peer.paths.get(i).copied().unwrap_or_default();
        PathStatus {
            address: *address,
            up: own || path.up,
            last_heard_ms: path.last_heard.map(|t| ms(now.since(t))),
            kernel: path.kernel.map(|k| if k.silent { "silent" } else { "up" }.to_owned()),
            rtt_us: path.kernel.map(|k| k.rtt.as_micros() as u64),
            rtt_min_us: path.kernel.map(|k| k.rtt_min.as_micros() as u64),
        }
    });
    NodeStatus {
        id: n.id,
        name: n.name.clone(),
        witness: n.witness,
        standing: n.standing,
        rpc: n.rpc,
        alive: own || peer.alive,
        lease_valid: if own { my_lease } else { peer.lease_valid },
        paths: paths.collect(),
        resources_in_service: serving,
        standby: n.standby,
        maintenance: n.maintenance,
        gave_up: n.gave_up.clone(),
        holds_alone: n.alone.is_some(),
        declared_dead: n.declared_dead,
        declared_by: n.declared_dead.then_some(n.declared_by),
    }
}

pub(super) fn resource(
    state: &ClusterState,
    resource: &Resource,
    placement: &Placement,
    here: &Here,
) -> ResourceStatus {
    let owner = placement.grant.map(|g| g.owner);
    let device = owner.and_then(|owner| {
        // What it is on here is known; elsewhere it is what it was configured to be on.
        let carrier = cloud_status::carrier(state, resource);
        let configured = || carrier.nodes.get(&owner)?.devices.first().cloned();
        if owner == here.me { here.device(resource).or_else(configured) } else { configured() }
    });
    let mut nodes: Vec<ResourceNodeStatus> = resource
        .nodes
        .iter()
        .map(|(id, settings)| ResourceNodeStatus {
            node: state.node_name(*id),
            priority: settings.priority,
            state: placement::state_on(placement, *id).to_owned(),
            reason: placement::unfinished(placement, *id)
                .or_else(|| placement.failed.get(id).cloned())
                .or_else(|| subnet::lacking(state, resource, *id)),
            failures: placement.failures.get(id).map_or(0, |f| f.count),
        })
        .collect();
    nodes.sort_by_key(|n| n.priority);
    let about = cloud_status::addresses(state, resource);
    ResourceStatus {
        tag: resource.tag.clone(),
        kind: resource.kind.name().to_owned(),
        address: about.first().unwrap_or_default(),
        addresses: about.count(),
        span: about.to_string(),
        accept: resource.accept(),
        accept_reason: resource.ip().map(accept::reason).unwrap_or_default(),
        state: placement::state_of(state, resource, placement).to_owned(),
        owner: owner.map(|id| state.node_name(id)),
        epoch: placement.epoch,
        device,
        nodes,
        choice: hierarchy_status::choice(state, placement),
        packets: here.packets.get(&resource.id).copied(),
        // What a former owner saw last is nothing that could be said of the present one.
        cloud: owner
            .is_none_or(|owner| owner == here.me)
            .then(|| cloud_status::known(&here.in_cloud, resource, here.now))
            .flatten(),
        run: None,
    }
}

fn interfaces(
    here: &Here,
    state: &ClusterState,
    datapath: &dyn Datapath,
    links: &LinkTable,
    now: BootTime,
) -> Vec<InterfaceStatus> {
    let attached: HashMap<u32, Attachment> = datapath.attached().into_iter().collect();
    // Those that something is to be on and that do not exist.
    let missing = links.iter().filter(|(name, _)| !here.links.iter().any(|l| l.name == *name));
    let missing = missing.map(|(name, report)| InterfaceStatus {
        health_reason: Some(report.why.clone()),
        health_ms: Some(ms(now.since(report.since))),
        ..InterfaceStatus::missing(name)
    });
    let moves = |r: &&Resource| r.nodes.get(&here.me).is_none_or(|s| !s.physical);
    let moving = state.resources.values().filter(moves);
    let moving: Ranges = moving.flat_map(|r| r.addresses().hosts().ranges().to_vec()).collect();
    let is_virtual = |a: &Assigned| a.protocol == Some(PROTOCOL) || moving.contains(a.address.addr());
    let present = here.links.iter().filter(|l| !l.loopback).map(|link| {
        let activity = datapath.interface_activity(link.index).unwrap_or_default();
        let heard = (activity.last_receive_ns != 0).then_some(BootTime(activity.last_receive_ns));
        let on = || here.on(link);
        let report = links.get(&link.name);
        InterfaceStatus {
            name: link.name.clone(),
            up: link.admin_up,
            carrier: link.carrier,
            xdp: match attached.get(&link.index) {
                Some(Attachment::Native) => "native".to_owned(),
                Some(Attachment::Generic { reason }) => format!("generic ({reason})"),
                Some(Attachment::None { reason }) => format!("none ({reason})"),
                None => "none".to_owned(),
            },
            addresses: on().map(|a| a.address).collect(),
            stationary: on().filter(|a| !is_virtual(a)).map(|a| a.address).collect(),
            health: report.map_or_else(|| by_signal(link), |r| r.health),
            health_reason: report.map(|r| r.why.clone()).filter(|why| !why.is_empty()),
            health_ms: report.map(|r| ms(now.since(r.since))),
            recovering: report.is_some_and(|r| r.recovering),
            frames: activity.frames,
            bytes: activity.bytes,
            arp: activity.arp,
            nd: activity.nd,
            echo_requests: activity.echo_requests,
            echo_replies: activity.echo_replies,
            last_receive_ms: heard.map(|t| ms(now.since(t))),
        }
    });
    present.chain(missing).collect()
}

/// Outside a cluster, where nobody follows the interfaces.
fn by_signal(link: &Link) -> LinkHealth {
    match (link.admin_up, link.carrier) {
        (false, _) => LinkHealth::AdminDown,
        (true, false) => LinkHealth::NoCarrier,
        (true, true) => LinkHealth::Up,
    }
}
