//! Changes of the voters, one after another, so that they follow the replicated state.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use openraft::{
    BasicNode, ChangeMembers, Membership,
    error::{ChangeMembershipError, ClientWriteError, RaftError},
};
use tokio::{
    sync::MutexGuard,
    time::{Instant, sleep, timeout_at},
};

use super::{Answer, Leader, RETRY, failed, forward};
use crate::{
    cluster::{
        raft::types::RaftMetrics,
        rest,
        transport::{PeerAnswer, PeerRequest},
    },
    core::change::{Applied, Change, Refusal},
    model::{ClusterState, NodeId, Standing},
};

/// How long making a node a voter may take: it may have to be sent a snapshot first.
pub(crate) const ADMIT: Duration = Duration::from_secs(10);

/// For a voter to show that it is there.
const GLANCE: Duration = Duration::from_secs(1);

/// A change of membership that is not finished after so long has lost the leader that made it.
const TIDY: Duration = Duration::from_secs(2);

/// How Raft's membership differs from the state.
#[derive(Debug, PartialEq, Eq)]
enum Misfit {
    /// Two majorities are needed until this is finished.
    Unfinished,
    /// A voter that is no node of the cluster any more. One after another: neighbouring sets then share a voter in
    /// any two majorities.
    Voter(NodeId),
    /// Others that are none any more.
    Learners(BTreeSet<NodeId>),
    /// Nodes that listen elsewhere.
    Moved(BTreeMap<NodeId, BasicNode>),
}

/// The first thing that is to be changed. A node is reserved in the state before it gets into the membership, so
/// one that is missing there was removed.
fn misfit(state: &ClusterState, membership: &Membership<NodeId, BasicNode>) -> Option<Misfit> {
    if state.name.is_empty() {
        // The founder is a voter before anything is in the state.
        return None;
    }
    let gone = |id: &NodeId| !state.nodes.contains_key(id) && *id <= state.last_node;
    if membership.get_joint_config().len() > 1 {
        return Some(Misfit::Unfinished);
    }
    if let Some(voter) = membership.voter_ids().find(gone) {
        return Some(Misfit::Voter(voter));
    }
    let learners: BTreeSet<NodeId> = membership.nodes().map(|(id, _)| *id).filter(gone).collect();
    if !learners.is_empty() {
        return Some(Misfit::Learners(learners));
    }
    let moved = membership.nodes().filter_map(|(id, at)| {
        let rpc = state.nodes.get(id)?.rpc.to_string();
        (at.addr != rpc).then(|| (*id, BasicNode::new(rpc)))
    });
    let moved: BTreeMap<NodeId, BasicNode> = moved.collect();
    (!moved.is_empty()).then_some(Misfit::Moved(moved))
}

impl Leader {
    async fn alone(&self, deadline: Instant) -> Result<MutexGuard<'_, ()>, PeerAnswer> {
        let alone = timeout_at(deadline, self.0.changing.lock()).await;
        alone.map_err(|_| failed("another change of the members is being made".into()))
    }

    /// The state with everything that was committed by now.
    async fn newest(&self, deadline: Instant) -> Result<Arc<ClusterState>, PeerAnswer> {
        let index = self.read_index().await?;
        let mut view = self.0.view.clone();
        match timeout_at(deadline, view.wait_for(|v| v.applied >= index)).await {
            Ok(Ok(view)) => Ok(view.state.clone()),
            _ => Err(failed("the leader does not keep up".into())),
        }
    }

    /// Makes a reserved node a learner, then a voter, then a member. May be repeated at any point.
    pub(super) async fn admit(&self, node: NodeId, deadline: Instant) -> Answer {
        let _alone = self.alone(deadline).await?;
        let Some(known) = self.newest(deadline).await?.nodes.get(&node).cloned() else {
            let rule = format!("node {node} is not reserved; use 'vipctl cluster join' on it");
            return Ok(PeerAnswer::Applied(Applied::Refused(Refusal(rule))));
        };
        let membership = self.0.raft.metrics().borrow().membership_config.clone();
        let membership = membership.membership();
        if membership.get_node(&node).is_none() {
            let contact = BasicNode::new(known.rpc);
            self.change(ChangeMembers::AddNodes([(node, contact)].into()), deadline).await?;
        }
        if membership.get_joint_config().iter().any(|config| !config.contains(&node)) {
            self.reached(node, &known.rpc.to_string(), deadline).await?;
            self.change(ChangeMembers::AddVoterIds([node].into()), deadline).await?;
        }
        if known.standing != Standing::Joining {
            return Ok(PeerAnswer::Done);
        }
        self.tell(Change::Admit { node }).await
    }

    /// Has the state forget a node, and then takes its vote. May be repeated at any point.
    pub(super) async fn remove(&self, node: NodeId, heir: Option<NodeId>, deadline: Instant) -> Answer {
        let _alone = self.alone(deadline).await?;
        let state = self.newest(deadline).await?;
        if state.nodes.contains_key(&node) || node > state.last_node {
            if let Err(refusal) = self.check_rest(&state, node).await {
                return Ok(PeerAnswer::Applied(Applied::Refused(refusal)));
            }
            match self.tell(Change::Remove { node, heir }).await? {
                PeerAnswer::Done => {}
                refused => return Ok(refused),
            }
        }
        self.align(deadline).await?;
        Ok(PeerAnswer::Done)
    }

    /// Those who would stay can decide without the node.
    async fn check_rest(&self, state: &ClusterState, gone: NodeId) -> Result<(), Refusal> {
        let rest = rest::rest(&self.0.leadership.borrow().configs, gone);
        let voters: BTreeSet<NodeId> = rest.iter().flatten().copied().collect();
        let asked = voters.into_iter().map(|voter| async move {
            let there = voter == self.0.me || self.is_there(voter).await;
            there.then_some(voter)
        });
        let answered: BTreeSet<NodeId> = join_all(asked).await.into_iter().flatten().collect();
        rest::check(state, rest, gone, &answered)
    }

    async fn is_there(&self, node: NodeId) -> bool {
        let Some(to) = self.0.peers.contact(node) else { return false };
        self.0.peers.call(&to, &PeerRequest::StoreKind, GLANCE).await.is_ok()
    }

    /// From now on the node is called at `rpc`.
    pub(super) async fn readdress(
        &self,
        node: NodeId,
        rpc: SocketAddr,
        paths: Vec<SocketAddr>,
        deadline: Instant,
    ) -> Answer {
        let _alone = self.alone(deadline).await?;
        match self.tell(Change::Readdress { node, rpc, paths }).await? {
            PeerAnswer::Done => {}
            refused => return Ok(refused),
        }
        self.align(deadline).await?;
        Ok(PeerAnswer::Done)
    }

    async fn tell(&self, change: Change) -> Answer {
        match self.write(change).await? {
            Applied::Refused(refusal) => Ok(PeerAnswer::Applied(Applied::Refused(refusal))),
            Applied::Done | Applied::Node(_) => Ok(PeerAnswer::Done),
        }
    }

    /// Has the membership follow the state.
    async fn align(&self, deadline: Instant) -> Result<(), PeerAnswer> {
        loop {
            let state = self.0.view.borrow().state.clone();
            let membership = self.0.raft.metrics().borrow().membership_config.clone();
            let Some(misfit) = misfit(&state, membership.membership()) else { return Ok(()) };
            tracing::debug!(?misfit, "the membership follows the state");
            let last = misfit == Misfit::Voter(self.0.me);
            let change = match misfit {
                Misfit::Voter(gone) => ChangeMembers::RemoveVoters([gone].into()),
                Misfit::Learners(gone) => ChangeMembers::RemoveNodes(gone),
                Misfit::Moved(nodes) => ChangeMembers::SetNodes(nodes),
                Misfit::Unfinished => ChangeMembers::AddVoterIds(BTreeSet::new()),
            };
            self.change(change, deadline).await?;
            if last {
                // Whoever took its own vote leads no longer.
                return Ok(());
            }
        }
    }

    /// Waits until the learner has what the leader had. Nobody becomes a voter whom the leader cannot
    /// reach: the cluster could lose its majority by it.
    async fn reached(&self, node: NodeId, address: &str, deadline: Instant) -> Result<(), PeerAnswer> {
        let mut metrics = self.0.raft.metrics();
        let wanted = metrics.borrow().last_log_index;
        let caught_up = metrics.wait_for(|m| {
            let at = m.replication.as_ref().and_then(|r| r.get(&node).copied().flatten());
            m.replication.is_none() || at.map(|id| id.index) >= wanted
        });
        match timeout_at(deadline, caught_up).await {
            Ok(Ok(m)) if m.replication.is_some() => Ok(()),
            Ok(_) => Err(PeerAnswer::NotLeader { leader: None }),
            Err(_) => Err(failed(format!(
                "the leader cannot reach node {node} at {address}: check its 'rpc' address and firewalls"
            ))),
        }
    }

    /// Changes the membership once no other change is under way. Voters that are removed are forgotten.
    async fn change(
        &self,
        change: ChangeMembers<NodeId, BasicNode>,
        deadline: Instant,
    ) -> Result<(), PeerAnswer> {
        loop {
            let busy = match self.0.raft.change_membership(change.clone(), false).await {
                Ok(made) => {
                    self.seen(made.log_id.index).await;
                    return Ok(());
                }
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => return Err(forward(to)),
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                    e @ ChangeMembershipError::InProgress(_),
                ))) => e.to_string(),
                Err(e) => return Err(failed(e.to_string())),
            };
            if Instant::now() + RETRY >= deadline {
                return Err(failed(busy));
            }
            sleep(RETRY).await;
        }
    }

    /// Waits until Raft's metrics tell of the membership of that entry.
    async fn seen(&self, index: u64) {
        let mut metrics = self.0.raft.metrics();
        let known = |m: &RaftMetrics| {
            m.running_state.is_err() || m.membership_config.log_id().map(|id| id.index) >= Some(index)
        };
        // An error: Raft has ended.
        let _ = metrics.wait_for(known).await;
    }

    /// Finishes, as the leader, what an earlier leader began and was lost in the middle of.
    pub(crate) async fn tidy(&self) {
        let (mut leadership, mut view) = (self.leadership(), self.0.view.clone());
        loop {
            let leads = leadership.borrow_and_update().is_me;
            let state = view.borrow_and_update().state.clone();
            let membership = self.0.raft.metrics().borrow().membership_config.clone();
            if leads && let Some(misfit) = misfit(&state, membership.membership()) {
                sleep(TIDY).await;
                let _alone = self.0.changing.lock().await;
                tracing::info!(?misfit, "finishing the change of members that was begun");
                if let Err(answer) = self.align(Instant::now() + ADMIT).await {
                    tracing::warn!("the change of members cannot be finished yet: {answer:?}");
                }
                continue;
            }
            let ended = tokio::select! {
                changed = leadership.changed() => changed.is_err(),
                changed = view.changed() => changed.is_err(),
            };
            if ended {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::change::{
        NewNode,
        tests::{cluster, done, new_node},
    };

    fn membership(configs: &[&[NodeId]], learners: &[NodeId]) -> Membership<NodeId, BasicNode> {
        let all = configs.iter().flat_map(|c| c.iter()).chain(learners);
        let nodes: BTreeMap<NodeId, BasicNode> =
            all.map(|id| (*id, BasicNode::new(new_node("x", *id as u8).rpc))).collect();
        Membership::new(configs.iter().map(|c| c.iter().copied().collect()).collect(), nodes)
    }

    #[test]
    fn what_fits_is_left_alone() {
        assert_eq!(misfit(&cluster(), &membership(&[&[1, 2, 3, 4]], &[])), None);
        // A node on its way in is no voter yet, or not even a learner.
        assert_eq!(misfit(&cluster(), &membership(&[&[1, 2]], &[3])), None);
        assert_eq!(misfit(&ClusterState::default(), &membership(&[&[1]], &[])), None);
        // A state that has not yet caught up with the membership takes no votes.
        assert_eq!(misfit(&cluster(), &membership(&[&[1, 2, 3, 4, 9]], &[])), None);
    }

    #[test]
    fn whoever_is_gone_loses_the_vote_and_then_the_place() {
        let mut state = cluster();
        done(&mut state, Change::Remove { node: 2, heir: None });
        assert_eq!(misfit(&state, &membership(&[&[1, 2, 3, 4]], &[])), Some(Misfit::Voter(2)));
        let half = membership(&[&[1, 2, 3, 4], &[1, 3, 4]], &[]);
        assert_eq!(misfit(&state, &half), Some(Misfit::Unfinished));
        assert_eq!(misfit(&state, &membership(&[&[1, 3, 4]], &[2])), Some(Misfit::Learners([2].into())));
        done(&mut state, Change::Remove { node: 3, heir: None });
        assert_eq!(misfit(&state, &membership(&[&[1, 2, 3, 4]], &[])), Some(Misfit::Voter(2)), "one by one");
    }

    #[test]
    fn whoever_moved_is_called_at_the_new_address() {
        let mut state = cluster();
        let NewNode { rpc, paths, .. } = new_node("b", 9);
        done(&mut state, Change::Readdress { node: 2, rpc, paths });
        let moved = BTreeMap::from([(2, BasicNode::new(rpc))]);
        assert_eq!(misfit(&state, &membership(&[&[1, 2, 3, 4]], &[])), Some(Misfit::Moved(moved)));
    }
}
