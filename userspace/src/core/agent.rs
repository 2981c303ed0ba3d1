//! What this node must do about each resource: compares what the cluster wants of it with what it has
//! here (level-triggered, so a missed message costs nothing), and says which sequence to run next.
//!
//! ```text
//!              wanted                ok                 due or touched
//!   Down ----------------> Restore ------> Up ---------------------------> Quickcheck --ok--> Up
//!    ^                        | fails       |  its interface failed,          | fails
//!    |                        |             |  another works                  v
//!    |                        |             +-------------> Switch --fails-> Recover ----ok--> Up
//!    |                        |             |                  +--ok--> Up     | fails
//!    |                        |             |  its addresses changed           |
//!    |                        |             +-------------> Amend ----> Up     |
//!    |                        v             v no longer wanted                 |
//!    +---------ok--------- Remove <----- Unclear <-----------------------------+
//! ```
//!
//! Whatever fails to be brought up because its interface failed is tried on another interface of this node
//! first. A failed Amend is tried again: what was in service stays so.
//!
//! Invariant: `Released` and `Failed` are reported only after a Remove has succeeded, or has failed and left
//! something of which it is known that it can't answer: its gate is shut, nothing but a grant after a
//! successful Remove opens it again, and the kernel guards it. A daemon that starts without knowing the gate
//! removes the address before anything else (`daemon::leftovers`).
//! Invariant: a deposed node rejoins only when everything here is `Down`, or silent in that sense.
//!
//! What changed is found by comparing with the state seen last, so that one change among ten thousand
//! resources costs as much as one among ten.

mod devices;
mod elsewhere;
mod local;
mod order;
mod pace;
mod recall;
mod report;
mod standoff;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

pub use self::{
    devices::{DeviceHealth, Devices, choose},
    local::Here,
    pace::patience,
    recall::{Fate, Footprint, Recalled, recall},
};
use self::{
    local::{Have, Local, Terms, Want},
    order::{Neighbours, Turn},
};
use super::{
    cloud::{CloudReport, Strangers},
    sequence::Failure,
    time::BootTime,
};
use crate::model::{
    Addresses, Cloud, ClusterState, Epoch, LeaseEpoch, Map, Node, NodeId, Phase, Placement, Resource,
    ResourceId, Tag,
};

/// Which sequence of a resource runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Restore,
    Remove,
    Quickcheck,
    Recover,
    /// To another interface of this node.
    Switch,
    /// To another set of addresses.
    Amend,
}

/// What the daemon shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run the sequence and say how it ended ([`Agent::finished`]).
    Start(Box<Start>),
    /// Stop between two steps of the running sequence; it ends as failed.
    Cancel { tag: Tag },
}

/// A sequence to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub tag: Tag,
    pub operation: Operation,
    pub epoch: Epoch,
    pub lease_epoch: LeaseEpoch,
    /// What it is about.
    pub target: Here,
    /// What may be here before it.
    pub was: Option<Here>,
    /// Left on its interface in EC2 for the time being: no failure for a check.
    pub borne: Option<Strangers>,
}

/// What this node may count on at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// Everything decided before this daemon started has been applied.
    pub caught_up: bool,
    pub lease_valid: bool,
    /// The kernel enforces the lease. Where it does not, the daemon must take addresses down itself.
    pub guarded: bool,
    /// The lease epoch that this node asks for; gates open only under it.
    pub lease_epoch: LeaseEpoch,
}

/// What the decisions were last made from.
#[derive(Debug)]
struct Seen {
    resources: Map<Tag, Resource>,
    placements: Map<Tag, Placement>,
    me: Option<Node>,
    /// Of the whole cluster.
    maintenance: bool,
    situation: Situation,
}

/// What a resource is about.
#[derive(Default)]
struct Subject {
    addresses: Arc<Addresses>,
    /// The interface that carries what it follows.
    carrier: Option<String>,
}

#[derive(Debug)]
pub struct Agent {
    me: NodeId,
    /// Of resources that are granted to this node, or of which something is here.
    locals: BTreeMap<Tag, Local>,
    devices: Devices,
    /// Nodes that are heard and have a valid lease.
    peers: BTreeSet<NodeId>,
    seen: Option<Seen>,
    /// Something has changed: to be looked at by the next plan.
    dirty: BTreeSet<Tag>,
    /// There may be something to report.
    untold: BTreeSet<Tag>,
    /// At most one for each resource.
    due: BTreeSet<(BootTime, Tag)>,
    due_of: BTreeMap<Tag, BootTime>,
}

impl Agent {
    pub fn new(me: NodeId) -> Self {
        Self {
            me,
            locals: BTreeMap::new(),
            devices: Devices::new(),
            peers: BTreeSet::new(),
            seen: None,
            dirty: BTreeSet::new(),
            untold: BTreeSet::new(),
            due: BTreeSet::new(),
            due_of: BTreeMap::new(),
        }
    }

    /// Something of the resource was found here at start: the addresses are programmed in the datapath or
    /// accepted by the kernel, put there by vipd. With `serving`, its gate is open under that grant.
    pub fn found(&mut self, tag: Tag, here: Here, serving: Option<Epoch>, now: BootTime) {
        let have = match serving {
            Some(epoch) => Have::Up { epoch, check_at: now, broken: false },
            None => Have::Unclear { retry_at: now, silent: None },
        };
        self.mark(&tag);
        self.locals.insert(tag, Local::new(have, Some(here)));
    }

    /// After all that was [`Agent::found`]. Grants of before that are not in service here need a new
    /// epoch: an earlier life may have reported their failure, and the report may take effect yet.
    pub fn begin(&mut self, state: &ClusterState) {
        for (tag, placement) in &state.placements {
            if placement.grant.is_none_or(|g| g.owner != self.me) {
                continue;
            }
            let local = self.locals.entry(tag.clone()).or_insert_with(|| Local::new(Have::Down, None));
            let serving = matches!(local.have, Have::Up { epoch, .. } if epoch == placement.epoch);
            local.stale = (!serving).then_some(placement.epoch);
            self.mark(tag);
        }
    }

    /// What this node's interfaces are good for now.
    pub fn set_devices(&mut self, devices: Devices) {
        if devices != self.devices {
            self.devices = devices;
            self.mark_all();
        }
    }

    /// The other nodes that could be given something now: heard, and with a valid lease.
    pub fn set_peers(&mut self, peers: BTreeSet<NodeId>) {
        self.peers = peers;
    }

    fn mark(&mut self, tag: &Tag) {
        self.dirty.insert(tag.clone());
        self.untold.insert(tag.clone());
    }

    fn mark_all(&mut self) {
        self.dirty.extend(self.locals.keys().cloned());
        self.untold.extend(self.locals.keys().cloned());
    }

    /// Marks what differs from what was seen last.
    fn notice(&mut self, state: &ClusterState, situation: Situation) {
        let me = state.nodes.get(&self.me).cloned();
        let maintenance = state.defaults.maintenance;
        let owner = |tag: &Tag| state.placements.get(tag).and_then(|p| p.grant).map(|g| g.owner);
        match &self.seen {
            Some(seen) if seen.me == me && seen.situation == situation && seen.maintenance == maintenance => {
                let mut changed = state.placements.changed_since(&seen.placements);
                changed.extend(state.resources.changed_since(&seen.resources));
                let neighbours: Vec<Tag> = changed.iter().flat_map(|tag| neighbours(state, tag)).collect();
                for tag in changed.into_iter().chain(neighbours) {
                    if self.locals.contains_key(&tag) || owner(&tag) == Some(self.me) {
                        self.mark(&tag);
                    }
                }
            }
            Some(_) | None => {
                self.mark_all();
                let granted = |(_, p): &(&Tag, &Placement)| p.grant.is_some_and(|g| g.owner == self.me);
                let granted: Vec<Tag> =
                    state.placements.iter().filter(granted).map(|(tag, _)| tag.clone()).collect();
                granted.iter().for_each(|tag| self.mark(tag));
            }
        }
        let (resources, placements) = (state.resources.clone(), state.placements.clone());
        self.seen = Some(Seen { resources, placements, me, maintenance, situation });
    }

    /// What to do now. Call it again after every change of the state, the situation, the interfaces, a
    /// finished sequence, and at [`Agent::next_deadline`].
    pub fn plan(&mut self, now: BootTime, state: &ClusterState, situation: Situation) -> Vec<Action> {
        if !situation.caught_up {
            return Vec::new();
        }
        self.notice(state, situation);
        while let Some((at, _)) = self.due.first()
            && *at <= now
            && let Some((_, tag)) = self.due.pop_first()
        {
            self.due_of.remove(&tag);
            self.dirty.insert(tag);
        }
        let mut actions = Vec::new();
        // What one does may be what its neighbours waited for.
        while let Some(tag) = self.dirty.pop_first() {
            let before = self.locals.get(&tag).map(Local::outline);
            actions.extend(self.look_at(now, state, situation, &tag));
            if self.locals.get(&tag).map(Local::outline) != before {
                let others = neighbours(state, &tag).into_iter().filter(|t| self.locals.contains_key(t));
                self.dirty.extend(others.collect::<Vec<_>>());
                // It has failed only now: whether its parents are to go first is decided anew.
                if self.locals.get(&tag).is_some_and(|l| l.running.is_none()) {
                    self.dirty.insert(tag);
                }
            }
        }
        actions
    }

    fn look_at(
        &mut self,
        now: BootTime,
        state: &ClusterState,
        situation: Situation,
        tag: &Tag,
    ) -> Option<Action> {
        let mut want = self.want(state, situation, tag);
        let resource = state.resources.get_shared(tag);
        let turn = self.turn(state, situation, resource.as_deref(), want);
        let gave_up = state.nodes.get(&self.me).and_then(|n| n.gave_up.clone());
        let terms = self.terms(now, state, situation, resource.as_ref(), tag);
        let local = self.locals.entry(tag.clone()).or_insert_with(|| Local::new(Have::Down, None));
        match (turn, want) {
            (Turn::Orphaned(reason), Want::Run { epoch, .. }) => {
                // What depends on it has to go before it.
                if local.running.is_none() {
                    local.fail(epoch, reason, now);
                    return None;
                }
                want = Want::Nothing;
            }
            (Turn::Waits | Turn::Held, _) => want = Want::Hold,
            (Turn::Orphaned(_) | Turn::Free, _) => {}
        }
        if let (Some(reason), Want::Run { epoch, .. }) = (gave_up, want) {
            local.failed = Some((epoch, format!("the node gave up everything: {reason}")));
            want = Want::Nothing;
        }
        let held = want == Want::Hold && matches!(local.have, Have::Unclear { .. });
        let action = if held { None } else { local.next(tag, want, terms) };
        // Where nothing is put on the network, a change of the addresses is done by this.
        self.untold.insert(tag.clone());
        // What is remembered of a grant is worth nothing once somebody else has the next one.
        let mine = state.placements.get(tag).and_then(|p| p.grant).is_some_and(|g| g.owner == self.me);
        let due = local.due(now);
        if local.is_clear() && !mine {
            self.locals.remove(tag);
        }
        self.set_due(tag, due);
        action
    }

    /// Whether the other members of its hierarchy let it do what is wanted. Nobody waits where silence depends on
    /// the daemon, or where the node gave up everything.
    fn turn(
        &self,
        state: &ClusterState,
        situation: Situation,
        resource: Option<&Resource>,
        want: Want,
    ) -> Turn {
        let Some(resource) = resource.filter(|r| !r.stands_alone()) else { return Turn::Free };
        let gave_up = state.nodes.get(&self.me).is_some_and(|n| n.gave_up.is_some());
        let turn = Neighbours { me: self.me, state, locals: &self.locals }.turn(resource, want);
        if turn == Turn::Held && (gave_up || !situation.guarded) { Turn::Free } else { turn }
    }

    fn terms<'a>(
        &self,
        now: BootTime,
        state: &ClusterState,
        situation: Situation,
        resource: Option<&'a Arc<Resource>>,
        tag: &Tag,
    ) -> Terms<'a> {
        let placement = state.placements.get(tag);
        let Subject { addresses, carrier } = self.subject(&state.resources, resource.map(Arc::as_ref));
        let maintenance = resource.is_some_and(|r| state.in_maintenance(r, Some(self.me)));
        let known = placement.map_or(0, |p| p.recoveries);
        let local = self.locals.get(tag);
        let broken = local.is_some_and(|l| matches!(l.have, Have::Up { broken: true, .. }));
        let may_recover = !broken
            || resource.is_none_or(|r| {
                let failures = placement.and_then(|p| p.failures.get(&self.me)).map_or(0, |f| f.count);
                let untold = local.map_or(0, |l| l.recoveries.0.saturating_sub(known));
                let threshold = r.policy.migration_threshold(&state.defaults);
                let reached = threshold.is_reached(failures.saturating_add(untold + 1));
                // Failing too often drives it away, and only where there is somebody to have it.
                let driven = reached && elsewhere::exists(state, r, self.me, &self.peers);
                !r.policy.service_failfast && !driven
            });
        Terms {
            me: self.me,
            now,
            situation,
            devices: Cow::Owned(self.devices.clone()),
            resource,
            addresses,
            carrier,
            alterations: placement.map_or(0, |p| p.alterations),
            recoveries: known,
            may_recover,
            maintenance,
        }
    }

    /// A route has no addresses of its own, and no interface: it follows its IP resource.
    fn subject(&self, resources: &Map<Tag, Resource>, resource: Option<&Resource>) -> Subject {
        let Some(resource) = resource else { return Subject::default() };
        match resource.cloud() {
            None => Subject { addresses: Arc::new(resource.addresses().clone()), carrier: None },
            Some(Cloud::Route(route)) => Subject {
                addresses: Arc::new(
                    resources.get(&route.ip).map(|ip| ip.addresses().clone()).unwrap_or_default(),
                ),
                carrier: self.here(&route.ip).map(|here| here.device.clone()),
            },
            Some(Cloud::Eip(eip)) => {
                Subject { addresses: Arc::new(IpNet::from(IpAddr::V4(eip.address)).into()), carrier: None }
            }
        }
    }

    fn set_due(&mut self, tag: &Tag, at: Option<BootTime>) {
        if let Some(former) = self.due_of.remove(tag) {
            self.due.remove(&(former, tag.clone()));
        }
        if let Some(at) = at {
            self.due_of.insert(tag.clone(), at);
            self.due.insert((at, tag.clone()));
        }
    }

    fn want(&self, state: &ClusterState, situation: Situation, tag: &Tag) -> Want {
        let Some(placement) = state.placements.get(tag) else { return Want::Nothing };
        let Some(grant) = placement.grant.filter(|g| g.owner == self.me) else { return Want::Nothing };
        let trusted = state.nodes.get(&self.me).is_some_and(|n| n.lease_epoch == grant.lease_epoch)
            && situation.lease_epoch == grant.lease_epoch;
        match grant.phase {
            Phase::Stopping => Want::Nothing,
            Phase::Starting | Phase::InService if !trusted => Want::Nothing,
            Phase::Starting | Phase::InService if !situation.lease_valid => {
                if situation.guarded {
                    Want::Hold
                } else {
                    Want::Nothing
                }
            }
            Phase::Starting | Phase::InService => {
                Want::Run { epoch: placement.epoch, lease_epoch: grant.lease_epoch }
            }
        }
    }

    /// What a sequence learned of EC2; said before [`Agent::finished`].
    pub fn learned(&mut self, tag: &Tag, report: CloudReport) {
        if let Some(local) = self.locals.get_mut(tag) {
            local.lesson = Some(report);
        }
    }

    /// A sequence ended. `interval` is the time between two quickchecks. What follows is in the next plan.
    pub fn finished(
        &mut self,
        tag: &Tag,
        result: Result<(), Failure>,
        now: BootTime,
        interval: Duration,
        situation: Situation,
    ) {
        let Some(seen) = &self.seen else { return };
        let (resource, placement) = (seen.resources.get_shared(tag), seen.placements.get(tag));
        let Subject { addresses, carrier } = self.subject(&seen.resources, resource.as_deref());
        let Some(local) = self.locals.get_mut(tag) else { return };
        let terms = Terms {
            me: self.me,
            now,
            situation,
            devices: Cow::Borrowed(&self.devices),
            resource: resource.as_ref(),
            addresses,
            carrier,
            alterations: placement.map_or(0, |p| p.alterations),
            recoveries: placement.map_or(0, |p| p.recoveries),
            may_recover: true,
            maintenance: false,
        };
        local.finished(tag, result, interval, terms);
        let due = local.due(now);
        self.set_due(tag, due);
        self.mark(tag);
        let of = |r: &Arc<Resource>| r.children.iter().chain(&r.parents).cloned().collect::<Vec<_>>();
        let near = resource.iter().flat_map(of).filter(|t| self.locals.contains_key(t));
        self.dirty.extend(near.collect::<Vec<_>>());
    }

    /// Look at this one soon: its addresses or its link changed.
    pub fn touched(&mut self, tag: &Tag, now: BootTime) {
        if let Some(Local { have: Have::Up { check_at, .. }, .. }) = self.locals.get_mut(tag) {
            *check_at = (*check_at).min(now);
            self.dirty.insert(tag.clone());
        }
    }

    /// Something says that the resource must not stay in service here, whatever its checks say: it is removed
    /// and reported as failed.
    /// Ignored unless this very resource is in service here.
    pub fn give_up(&mut self, tag: &Tag, id: ResourceId, reason: String) {
        if let Some(local) = self.locals.get_mut(tag)
            && matches!(local.have, Have::Up { .. })
            && local.here.as_ref().is_some_and(|here| here.resource.id == id)
        {
            local.give_up.get_or_insert(reason);
            self.dirty.insert(tag.clone());
        }
    }

    /// Look at everything on this host soon. What is in EC2 changes there: of this host it needs no more than its
    /// interface, and asking costs calls of which the account has only so many.
    pub fn all_touched(&mut self, now: BootTime) {
        let on_host = self.in_service().filter(|(_, here)| here.resource.cloud().is_none());
        let up: Vec<Tag> = on_host.map(|(tag, _)| tag.clone()).collect();
        up.iter().for_each(|tag| self.touched(tag, now));
    }

    pub fn is_up(&self, tag: &Tag) -> bool {
        self.locals.get(tag).is_some_and(|l| matches!(l.have, Have::Up { .. }))
    }

    /// What of the resource is, or may be, here.
    pub fn here(&self, tag: &Tag) -> Option<&Here> {
        self.locals.get(tag)?.here.as_ref()
    }

    /// What is in service here, and where.
    pub fn in_service(&self) -> impl Iterator<Item = (&Tag, &Here)> {
        let up = self.locals.iter().filter(|(_, l)| matches!(l.have, Have::Up { .. }));
        up.filter_map(|(tag, l)| Some((tag, l.here.as_ref()?)))
    }

    /// What is in service here under a grant and a lease that hold.
    pub fn serving<'a>(
        &'a self,
        state: &'a ClusterState,
        situation: Situation,
    ) -> impl Iterator<Item = (&'a Tag, &'a Here)> {
        let wanted = move |tag: &Tag| matches!(self.want(state, situation, tag), Want::Run { .. });
        self.in_service().filter(move |(tag, _)| wanted(tag))
    }

    /// When [`Agent::plan`] has something to do by the passing of time alone.
    pub fn next_deadline(&self) -> Option<BootTime> {
        self.due.first().map(|(at, _)| *at)
    }
}

/// Those that depend on the resource, and on which it depends.
fn neighbours(state: &ClusterState, tag: &Tag) -> Vec<Tag> {
    let resource = state.resources.get(tag);
    resource.into_iter().flat_map(|r| r.children.iter().chain(&r.parents)).cloned().collect()
}

#[cfg(test)]
mod tests;
