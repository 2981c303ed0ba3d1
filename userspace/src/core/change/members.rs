//! Changes of who belongs to the cluster and who is trusted.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{Applied, NewGrant, NewNode, Refusal, Result, grants, keys, no_node, sweep_deleted};
use crate::model::{ClusterState, LeaseEpoch, Node, NodeId, Placement, Standing, Tag, Word};

pub(super) fn found(state: &mut ClusterState, name: &str, node: &NewNode) -> Result<Applied> {
    if state.last_node != 0 || !state.nodes.is_empty() {
        return Err(Refusal(format!(
            "this node already belongs to the cluster '{}': a cluster is founded once",
            state.name
        )));
    }
    if name.is_empty() {
        return Err(Refusal::new("a cluster needs a name: 'vipctl cluster init NAME'"));
    }
    check_new(state, node, None)?;
    state.name = name.to_owned();
    add(state, node, Standing::Member);
    Ok(Applied::Done)
}

pub(super) fn reserve(state: &mut ClusterState, node: &NewNode) -> Result<Applied> {
    if state.nodes.is_empty() {
        return Err(Refusal::new("there is no cluster yet: 'vipctl cluster init NAME' founds one"));
    }
    if let Some(known) = state.node_named(&node.name) {
        let same = known.rpc == node.rpc && known.paths == node.paths && known.witness == node.witness;
        return match known.standing {
            Standing::Joining if same => Ok(Applied::Node(known.id)),
            Standing::Joining => Err(Refusal(format!(
                "node '{}' began to join as {} with other addresses: join with those, or under another name",
                node.name, known.rpc
            ))),
            Standing::Member | Standing::Deposed => Err(Refusal(format!(
                "a node named '{}' is a member already ({}): give this one another name in node.toml",
                node.name, known.rpc
            ))),
        };
    }
    check_new(state, node, None)?;
    // Whoever asks may have the key that is given up: then nobody could talk to it soon.
    keys::check_finished(state)?;
    Ok(Applied::Node(add(state, node, Standing::Joining)))
}

pub(super) fn admit(state: &mut ClusterState, node: NodeId) -> Result<Applied> {
    let node = state.nodes.get_mut(&node).ok_or_else(|| no_node(node))?;
    match node.standing {
        Standing::Joining => node.standing = Standing::Member,
        // Admitted before: an admission may be proposed twice.
        Standing::Member | Standing::Deposed => {}
    }
    node.declared_dead = false;
    Ok(Applied::Done)
}

pub(super) fn readdress(
    state: &mut ClusterState,
    id: NodeId,
    rpc: SocketAddr,
    paths: &[SocketAddr],
) -> Result<Applied> {
    let node = state.nodes.get(&id).ok_or_else(|| no_node(id))?;
    let moved = NewNode { name: node.name.clone(), rpc, paths: paths.to_vec(), witness: node.witness };
    check_new(state, &moved, Some(id))?;
    if let Some(node) = state.nodes.get_mut(&id) {
        node.rpc = rpc;
        node.paths = moved.paths;
    }
    Ok(Applied::Done)
}

pub(super) fn depose(state: &mut ClusterState, node: NodeId, lease_epoch: LeaseEpoch) -> Result<Applied> {
    let node = expect_standing(state, node, lease_epoch, Standing::Member)?;
    node.lease_epoch += 1;
    node.standing = Standing::Deposed;
    Ok(Applied::Done)
}

pub(super) fn vacate(
    state: &mut ClusterState,
    node: NodeId,
    lease_epoch: LeaseEpoch,
    new_grants: &[NewGrant],
) -> Result<Applied> {
    expect_standing(state, node, lease_epoch, Standing::Deposed)?;
    end_old_grants(state, node, lease_epoch);
    // A grant whose presumption no longer holds is left to the next plan; the vacation stands.
    grants::give_each(state, new_grants);
    Ok(Applied::Done)
}

pub(super) fn rejoin(state: &mut ClusterState, node: NodeId, lease_epoch: LeaseEpoch) -> Result<Applied> {
    expect_standing(state, node, lease_epoch, Standing::Deposed)?.standing = Standing::Member;
    end_old_grants(state, node, lease_epoch);
    Ok(Applied::Done)
}

/// Frees all that the node owned under lease epochs before `lease_epoch`.
fn end_old_grants(state: &mut ClusterState, node: NodeId, lease_epoch: LeaseEpoch) {
    let old = |p: &Placement| p.grant.is_some_and(|g| g.owner == node && g.lease_epoch < lease_epoch);
    let freed: Vec<Tag> =
        state.placements.iter().filter(|(_, p)| old(p)).map(|(tag, _)| tag.clone()).collect();
    for tag in &freed {
        if let Some(placement) = state.placements.get_mut(tag) {
            placement.end_grant();
        }
        sweep_deleted(state, tag);
    }
}

fn expect_standing(
    state: &mut ClusterState,
    id: NodeId,
    lease_epoch: LeaseEpoch,
    standing: Standing,
) -> Result<&mut Node> {
    let node = state.nodes.get_mut(&id).ok_or_else(|| no_node(id))?;
    if node.standing != standing || node.lease_epoch != lease_epoch {
        return Err(Refusal(format!(
            "node '{}' is {:?} with lease epoch {}, not {standing:?} with {lease_epoch}: look again and decide anew",
            node.name, node.standing, node.lease_epoch
        )));
    }
    Ok(node)
}

/// `known`: the node is in the cluster already, under that number.
fn check_new(state: &ClusterState, node: &NewNode, known: Option<NodeId>) -> Result<()> {
    if node.name.is_empty() {
        return Err(Refusal::new("a node needs a name: set 'name' in node.toml"));
    }
    if node.paths.is_empty() {
        return Err(Refusal(format!(
            "node '{}' has no heartbeat path: list at least one address in node.toml",
            node.name
        )));
    }
    let mut own = BTreeSet::new();
    if let Some(twice) = node.paths.iter().find(|p| !own.insert(**p)) {
        return Err(Refusal(format!(
            "node '{}' lists the heartbeat path {twice} twice: every path needs an address of its own",
            node.name
        )));
    }
    let taken = |what: &str, address: &SocketAddr, by: &Node| {
        Refusal(format!(
            "{what} {address} of node '{}' belongs to node '{}': every node needs its own, see node.toml",
            node.name, by.name
        ))
    };
    for other in state.nodes.values().filter(|n| Some(n.id) != known) {
        if other.rpc == node.rpc {
            return Err(taken("the rpc address", &node.rpc, other));
        }
        if let Some(path) = node.paths.iter().find(|p| other.paths.contains(p)) {
            return Err(taken("the heartbeat path", path, other));
        }
    }
    Ok(())
}

fn add(state: &mut ClusterState, node: &NewNode, standing: Standing) -> NodeId {
    let id = state.last_node + 1;
    state.last_node = id;
    state.nodes.insert(
        id,
        Node {
            id,
            name: node.name.clone(),
            rpc: node.rpc,
            paths: node.paths.clone(),
            witness: node.witness,
            lease_epoch: 1,
            standing,
            standby: false,
            maintenance: false,
            gave_up: None,
            alone: None,
            declared_dead: false,
            declared_by: Word::default(),
        },
    );
    id
}
