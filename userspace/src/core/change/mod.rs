//! The commands of the replicated state. [`apply`] is deterministic: every node computes the same.
//!
//! Invariant: an address changes hands only through no owner at all. A grant ends when its owner says
//! that it has stopped (Report, Rejoin) or is proven silent (Vacate), and only then can another be made.

mod alone;
mod cloud;
mod connectivity;
mod constraints;
mod duties;
mod grants;
mod hierarchy;
mod keys;
mod members;
mod removal;
mod resources;
mod sets;
mod settings;
mod subnets;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::resources::ADDRESSES_MAX;
use crate::model::{
    Accept, Addresses, Alone, ClusterState, Connectivity, Constraint, ConstraintId, Epoch, KeyFingerprint,
    KeyGeneration, LeaseEpoch, MonitoredSubnet, NodeId, NodeSettings, OnConflict, Placement, Ranges,
    Resource, Score, SubnetDown, Switchback, Tag, Threshold, TwoNodes, Word,
};

/// A change, with all that it presumes: where the presumption no longer holds it is refused and
/// changes nothing.
///
/// Tagged from outside: an inner tag would make serde buffer the content, and numbers as keys of JSON
/// maps ([`Resource::nodes`]) do not survive that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// The first entry of a cluster.
    Found {
        name: String,
        node: NewNode,
    },
    /// Reserves a number for a joining node; answers [`Applied::Node`]. Idempotent by name while the
    /// node is still `Joining` with the same addresses.
    Reserve {
        node: NewNode,
    },
    /// The node is a voter now.
    Admit {
        node: NodeId,
    },
    /// The node owns nothing and is forgotten; whatever was said of it goes with it, or holds for `heir` from now
    /// on.
    Remove {
        node: NodeId,
        heir: Option<NodeId>,
    },
    /// The node is reached at other addresses from now on.
    Readdress {
        node: NodeId,
        rpc: SocketAddr,
        paths: Vec<SocketAddr>,
    },
    Create {
        resource: Resource,
        on: NodeId,
    },
    /// All of them or none. Each comes up first on the node `on`.
    CreateAll {
        resources: Vec<Resource>,
        on: NodeId,
    },
    /// As [`Change::SetAddresses`], by difference: two operators at once do not undo each other. All of
    /// `remove` must be there.
    AlterAddresses {
        tag: Tag,
        add: Addresses,
        remove: Ranges,
    },
    /// Takes effect at once, also in service: what is new is brought up, what is gone is removed.
    SetAddresses {
        tag: Tag,
        addresses: Addresses,
    },
    /// A whole hierarchy, with the settings of each member there.
    Extend {
        to: NodeId,
        members: BTreeMap<Tag, NodeSettings>,
    },
    /// A whole hierarchy gives up a node that it is not on.
    Unextend {
        tag: Tag,
        from: NodeId,
    },
    /// With `hierarchy` all members; else only the resource, on which nothing may depend.
    Delete {
        tag: Tag,
        #[serde(default)]
        hierarchy: bool,
    },
    /// From now on both are one hierarchy: the child starts before the parent and stops after it.
    Depend {
        parent: Tag,
        child: Tag,
    },
    Undepend {
        parent: Tag,
        child: Tag,
    },
    Set {
        tag: Tag,
        node: Option<NodeId>,
        setting: Setting,
    },
    SetPingList {
        node: NodeId,
        subnet: IpNet,
        addresses: Vec<IpAddr>,
    },
    /// Watches a subnet, or changes how.
    MonitorSubnet {
        subnet: IpNet,
        settings: MonitoredSubnet,
    },
    UnmonitorSubnet {
        subnet: IpNet,
    },
    /// All monitored subnets that are down on the node now, with the reasons. Proposed when that changes.
    ReportSubnets {
        node: NodeId,
        down: BTreeMap<IpNet, SubnetDown>,
    },
    /// An operator's wish, for the resource and all that it depends on; clears the failures that stand in its
    /// way. With a node, the whole hierarchy goes there; `until` in milliseconds since 1970.
    InService {
        tag: Tag,
        on: Option<NodeId>,
        #[serde(default)]
        until: Option<u64>,
    },
    /// The resource and all that depend on it.
    OutOfService {
        tag: Tag,
    },
    /// The operator's choice of a node does not hold any longer.
    Clear {
        tag: Tag,
    },
    /// The failures of the hierarchy, on one node or on all, are mended.
    Cleanup {
        tag: Tag,
        node: Option<NodeId>,
    },
    AddConstraint {
        id: ConstraintId,
        constraint: Constraint,
    },
    RemoveConstraint {
        id: ConstraintId,
    },
    SetNode {
        node: NodeId,
        duty: Duty,
    },
    SetDefault {
        setting: DefaultSetting,
    },
    /// Which hosts every node pings, and how.
    SetConnectivity {
        settings: Connectivity,
    },
    /// All connectivity hosts that the node does not reach now. Proposed when that changes.
    ReportConnectivity {
        node: NodeId,
        unreached: BTreeSet<IpAddr>,
    },
    /// All or none, in this order. Presumes that operators have changed nothing since that revision.
    Batch {
        revision: Option<u64>,
        changes: Vec<Change>,
    },
    /// The leader no longer trusts the node with this lease epoch.
    Depose {
        node: NodeId,
        lease_epoch: LeaseEpoch,
    },
    /// The deposed node is proven silent: what it owned is free, and given on in the same step.
    Vacate {
        node: NodeId,
        lease_epoch: LeaseEpoch,
        grants: Vec<NewGrant>,
    },
    /// A deposed node has stopped everything itself; it may be trusted again.
    Rejoin {
        node: NodeId,
        lease_epoch: LeaseEpoch,
    },
    /// From now on the node may hold its lease alone, and nobody takes over from it without its own word. Proposed
    /// by the node itself.
    HoldAlone {
        node: NodeId,
        alone: Alone,
    },
    /// The node no longer does. Proposed by the node itself, once no lease that it held so is valid any more.
    LetGo {
        node: NodeId,
        alone: Alone,
    },
    /// Somebody's word that the node is dead: it is deposed, and its own word is not needed to take over.
    DeclareDead {
        node: NodeId,
        #[serde(default)]
        by: Word,
    },
    Give {
        grants: Vec<NewGrant>,
    },
    /// Asks the owner to stop.
    Release {
        tag: Tag,
        epoch: Epoch,
    },
    /// What the owner says of its grants.
    Report {
        node: NodeId,
        reports: Vec<Report>,
    },
    /// A failure mark has expired.
    Forgive {
        tag: Tag,
        node: NodeId,
    },
    /// A new cluster key is about to be handed to all nodes; an earlier one that is not used is void. Presumes
    /// that `generation` is the next and that all nodes use the present key.
    OfferKey {
        generation: KeyGeneration,
        fingerprint: KeyFingerprint,
    },
    /// These nodes, which are all, have the offered key: it is the cluster's from now on.
    UseKey {
        generation: KeyGeneration,
        nodes: BTreeSet<NodeId>,
    },
    /// The node uses the cluster's key, and needs the one before no longer.
    KeyInUse {
        node: NodeId,
        generation: KeyGeneration,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNode {
    pub name: String,
    pub rpc: SocketAddr,
    pub paths: Vec<SocketAddr>,
    pub witness: bool,
}

/// Presumes that the resource has no owner and that `epoch` is its newest epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewGrant {
    pub tag: Tag,
    pub to: NodeId,
    pub epoch: Epoch,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub tag: Tag,
    pub epoch: Epoch,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// In service: restored and checked.
    Started,
    /// Stopped as asked: the gate is closed and the address gone.
    Released,
    /// The daemon started anew, and nothing of this grant is here any more: it gets another epoch, so that
    /// no report of the earlier life, which may still be on its way, can end it.
    Restarted,
    /// In service, and as of that many alterations with all addresses, or without some because of the
    /// trouble. None of those gone is here any more (see [`Placement::retired`]).
    Amended { alterations: u64, gone: Ranges, trouble: Option<String> },
    /// Could not be started, or failed and could not be recovered; stopped again.
    Failed { reason: String },
    /// Failed, and local recovery mended it: so many times under this grant.
    Recovered { count: u32, reason: String },
}

/// What an operator wants a node to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Duty {
    /// Holds resources, and has not given up.
    Online,
    /// Holds none.
    Standby,
    /// Keeps what it has, unchecked, and gets nothing, or no longer so.
    Maintenance(bool),
}

/// What holds for all resources that say nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DefaultSetting {
    Stickiness(Score),
    MigrationThreshold(Threshold),
    FailureTimeout(Duration),
    /// Of the whole cluster.
    Maintenance(bool),
    TwoNodes(TwoNodes),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    Switchback(Switchback),
    Priority(u16),
    Devices(Vec<String>),
    RestoreAndRecover(bool),
    /// The address becomes the source of the subnet's route (row IP-12).
    Source(bool),
    OnConflict(OnConflict),
    /// Takes effect at the next bring-up.
    Accept(Accept),
    /// Subnets that must be up on a node for the resource to be there; all of them.
    Subnets(Vec<IpNet>),
    /// None: as the cluster has it. So for the next two.
    Stickiness(Option<Score>),
    MigrationThreshold(Option<Threshold>),
    FailureTimeout(Option<Duration>),
    ServiceFailfast(bool),
    NodeFailfast(bool),
    /// Of the whole hierarchy.
    Maintenance(bool),
    IgnoresConnectivity(bool),
}

/// What a change answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Applied {
    Done,
    Node(NodeId),
    Refused(Refusal),
}

/// Why a change was refused: the rule and the remedy, for an operator to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

type Result<T> = std::result::Result<T, Refusal>;

impl Refusal {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Applies a change or says why not; a refused change leaves the state as it was.
pub fn apply(state: &mut ClusterState, change: &Change) -> Applied {
    match cloud::check_alone(state, change) {
        Ok(()) => apply_part(state, change),
        Err(refusal) => Applied::Refused(refusal),
    }
}

/// As [`apply`], for one of several that are to be one [`Change::Batch`]: what only the whole has to keep may be
/// otherwise in between.
pub fn apply_part(state: &mut ClusterState, change: &Change) -> Applied {
    match dispatch(state, change) {
        Ok(applied) => {
            if change.is_operators() {
                state.revision += 1;
            }
            applied
        }
        Err(refusal) => Applied::Refused(refusal),
    }
}

/// All of them or none.
fn batch(state: &mut ClusterState, revision: Option<u64>, changes: &[Change]) -> Result<Applied> {
    if let Some(presumed) = revision.filter(|r| *r != state.revision) {
        return Err(Refusal(format!(
            "the cluster was changed by somebody else meanwhile (revision {}, presumed {presumed}): look again and \
             decide anew",
            state.revision
        )));
    }
    // Copies share what they have in common: this costs as much as one change.
    let mut all = state.clone();
    for change in changes {
        dispatch(&mut all, change)?;
    }
    cloud::check_together(&all, changes)?;
    *state = all;
    Ok(Applied::Done)
}

impl Change {
    /// Ordered by a person, not by the cluster about itself.
    fn is_operators(&self) -> bool {
        match self {
            Self::Found { .. }
            | Self::Remove { .. }
            | Self::Create { .. }
            | Self::CreateAll { .. }
            | Self::AlterAddresses { .. }
            | Self::SetAddresses { .. }
            | Self::Extend { .. }
            | Self::Unextend { .. }
            | Self::Delete { .. }
            | Self::Depend { .. }
            | Self::Undepend { .. }
            | Self::Set { .. }
            | Self::SetPingList { .. }
            | Self::MonitorSubnet { .. }
            | Self::UnmonitorSubnet { .. }
            | Self::InService { .. }
            | Self::OutOfService { .. }
            | Self::Clear { .. }
            | Self::Cleanup { .. }
            | Self::AddConstraint { .. }
            | Self::RemoveConstraint { .. }
            | Self::SetNode { .. }
            | Self::SetDefault { .. }
            | Self::SetConnectivity { .. }
            | Self::DeclareDead { .. }
            | Self::Batch { .. } => true,
            Self::Reserve { .. }
            | Self::Admit { .. }
            | Self::Readdress { .. }
            | Self::Depose { .. }
            | Self::Vacate { .. }
            | Self::Rejoin { .. }
            | Self::HoldAlone { .. }
            | Self::LetGo { .. }
            | Self::Give { .. }
            | Self::Release { .. }
            | Self::Report { .. }
            | Self::Forgive { .. }
            | Self::ReportSubnets { .. }
            | Self::ReportConnectivity { .. } => false,
            // No part of what is configured: a plan made before stays right.
            Self::OfferKey { .. } | Self::UseKey { .. } | Self::KeyInUse { .. } => false,
        }
    }
}

/// Every arm checks all that it presumes before it touches the state.
fn dispatch(state: &mut ClusterState, change: &Change) -> Result<Applied> {
    match change {
        Change::Found { name, node } => members::found(state, name, node),
        Change::Reserve { node } => members::reserve(state, node),
        Change::Admit { node } => members::admit(state, *node),
        Change::Remove { node, heir } => removal::remove(state, *node, *heir),
        Change::Readdress { node, rpc, paths } => members::readdress(state, *node, *rpc, paths),
        Change::Depose { node, lease_epoch } => members::depose(state, *node, *lease_epoch),
        Change::Vacate { node, lease_epoch, grants } => members::vacate(state, *node, *lease_epoch, grants),
        Change::Rejoin { node, lease_epoch } => members::rejoin(state, *node, *lease_epoch),
        Change::HoldAlone { node, alone } => alone::hold(state, *node, *alone),
        Change::LetGo { node, alone } => alone::let_go(state, *node, *alone),
        Change::DeclareDead { node, by } => alone::declare_dead(state, *node, *by),
        Change::Create { resource, on } => resources::create(state, resource, *on),
        Change::CreateAll { resources, on } => sets::create_all(state, resources, *on),
        Change::AlterAddresses { tag, add, remove } => sets::alter(state, tag, add, remove),
        Change::SetAddresses { tag, addresses } => resources::set_addresses(state, tag, addresses),
        Change::Extend { to, members } => hierarchy::extend(state, *to, members),
        Change::Unextend { tag, from } => hierarchy::unextend(state, tag, *from),
        Change::Delete { tag, hierarchy } => hierarchy::delete(state, tag, *hierarchy),
        Change::Depend { parent, child } => hierarchy::depend(state, parent, child),
        Change::Undepend { parent, child } => hierarchy::undepend(state, parent, child),
        Change::Set { tag, node, setting } => settings::set(state, tag, *node, setting),
        Change::SetPingList { node, subnet, addresses } => {
            resources::set_ping_list(state, *node, *subnet, addresses)
        }
        Change::MonitorSubnet { subnet, settings } => subnets::monitor(state, *subnet, settings),
        Change::UnmonitorSubnet { subnet } => subnets::unmonitor(state, *subnet),
        Change::ReportSubnets { node, down } => subnets::report(state, *node, down),
        Change::InService { tag, on, until } => hierarchy::in_service(state, tag, *on, *until),
        Change::OutOfService { tag } => hierarchy::out_of_service(state, tag),
        Change::Clear { tag } => hierarchy::clear(state, tag),
        Change::Cleanup { tag, node } => hierarchy::cleanup(state, tag, *node),
        Change::AddConstraint { id, constraint } => constraints::add(state, id, constraint),
        Change::RemoveConstraint { id } => constraints::remove(state, id),
        Change::SetNode { node, duty } => duties::set(state, *node, *duty),
        Change::SetDefault { setting } => settings::set_default(state, setting),
        Change::SetConnectivity { settings } => connectivity::set(state, settings),
        Change::ReportConnectivity { node, unreached } => connectivity::report(state, *node, unreached),
        Change::Batch { revision, changes } => batch(state, *revision, changes),
        Change::Give { grants } => grants::give(state, grants),
        Change::Release { tag, epoch } => grants::release(state, tag, *epoch),
        Change::Report { node, reports } => grants::report(state, *node, reports),
        Change::Forgive { tag, node } => grants::forgive(state, tag, *node),
        Change::OfferKey { generation, fingerprint } => keys::offer(state, *generation, fingerprint),
        Change::UseKey { generation, nodes } => keys::start_using(state, *generation, nodes),
        Change::KeyInUse { node, generation } => keys::in_use(state, *node, *generation),
    }
}

/// The placement of a resource that can be worked with.
fn placement<'a>(state: &'a mut ClusterState, tag: &Tag) -> Result<&'a mut Placement> {
    state.placements.get_mut(tag).ok_or_else(|| no_resource(tag))
}

fn no_resource(tag: &Tag) -> Refusal {
    Refusal(format!("there is no resource '{tag}': 'vipctl status' lists them"))
}

fn no_node(node: NodeId) -> Refusal {
    Refusal(format!("there is no node number {node} in the cluster: 'vipctl status' lists the nodes"))
}

/// Forgets a resource that was being deleted once nobody owns it. Ping lists stay (row IP-11).
fn sweep_deleted(state: &mut ClusterState, tag: &Tag) {
    let Some(placement) = state.placements.get(tag) else { return };
    if placement.deleting && placement.grant.is_none() {
        state.spent_epoch = state.spent_epoch.max(placement.epoch);
        state.placements.remove(tag);
        if let Some(gone) = state.resources.remove(tag) {
            hierarchy::forget(state, &gone);
        }
        constraints::forget(state, tag);
    }
}
