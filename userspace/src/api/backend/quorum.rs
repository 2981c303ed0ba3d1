//! What a cluster of two voters can do and cannot, in plain words; and `cluster force-quorum` (row CL-4).

use super::{Context, Out, Result, lookup, progress};
use crate::{
    api::{Answer, ApiError, ClusterStatus, NodeStatus, Status},
    config::StoreKind,
    core::change::{Applied, Change, apply},
    daemon::events::About,
    model::{TwoNodes, Word},
};

/// Sentences for the status; each that tells of a danger begins with UNSAFE.
pub(super) fn cautions(status: &Status, cluster: &ClusterStatus) -> Vec<String> {
    let others = || status.nodes.iter().filter(|n| n.name != status.node);
    let mut found: Vec<String> = others().filter(|n| n.declared_dead).map(about_dead).collect();
    if found.is_empty() {
        match cluster.voters {
            1 => found.push(
                "one voter: there is nobody to fail over to; join two more nodes, or one and a witness"
                    .to_owned(),
            ),
            2 => {
                let lost = others().find(|n| !n.alive).map_or("the other", |n| n.name.as_str());
                found.push(about_two(cluster, status.lease.valid, lost));
            }
            _ => {}
        }
    }
    let stuck = others().filter(|n| n.holds_alone && !n.alive && cluster.quorum && !n.declared_dead);
    found.extend(stuck.map(|n| {
        format!(
            "node {0} may hold its lease alone and is silent: nothing is taken over from it until it says itself that \
             it has stopped; bring it back, or, when it is dead for certain, 'vipctl cluster force-quorum \
             --i-confirm-dead {0}'",
            n.name
        )
    }));
    found
}

fn about_dead(n: &NodeStatus) -> String {
    let (name, by) = (&n.name, n.declared_by.unwrap_or_default());
    match (n.alive, by) {
        (false, Word::Operator) => format!(
            "UNSAFE: an operator declared node {name} dead and the cluster goes on without it: if it is alive, it may \
             still answer for what it had; keep it off, or connect it, and it is taken back in by itself"
        ),
        (false, Word::TieBreaker) => format!(
            "UNSAFE: {} declared node {name} dead and the cluster goes on without it: if it is alive and reaches the \
             tie-breaker where it does not see who answers here, it may go on alone as well; keep it off, or connect \
             it, and it is taken back in by itself",
            by.whose()
        ),
        (true, _) => format!(
            "UNSAFE: node {name} was declared dead and is heard: it is about to be taken back in; if this lasts, it \
             went on alone as well: stop it, delete its state directory, and join it anew under another name"
        ),
    }
}

fn about_two(cluster: &ClusterStatus, lease: bool, lost: &str) -> String {
    if cluster.two_nodes == TwoNodes::TieBreaker.name() {
        return about_tie_breaker(cluster.quorum, lost);
    }
    let freezes = cluster.two_nodes == TwoNodes::Freeze.name();
    let force = format!("'vipctl cluster force-quorum --i-confirm-dead {lost}' here");
    match (freezes, cluster.quorum) {
        (false, true) => "two voters are no failover: when either is lost nothing can be decided, and the addresses of \
                          both go silent; join a third node or a witness ('vipd --witness'), or have each keep what it \
                          has with 'vipctl cluster set two-nodes=freeze'"
            .to_owned(),
        (false, false) => format!(
            "two voters, and {lost} is lost: there is no failover, and all addresses are silent; bring it back, or, \
             when it is dead for certain, {force} goes on without it (UNSAFE when it is not dead)"
        ),
        (true, true) => "two voters freeze (two-nodes=freeze): when one is lost the other keeps what it has, and \
                         nothing fails over by itself; a third node or a witness would change that"
            .to_owned(),
        (true, false) if lease => format!(
            "frozen: {lost} is lost, this node keeps what it has (two-nodes=freeze) and takes over nothing; bring it \
             back, or, when it is dead for certain, {force} goes on without it (UNSAFE when it is not dead)"
        ),
        (true, false) => format!(
            "frozen without a lease: {lost} is lost, and this node was restarted since or holds no permission to go on \
             alone; bring it back, or, when it is dead for certain, {force} goes on without it (UNSAFE when it is not \
             dead)"
        ),
    }
}

fn about_tie_breaker(quorum: bool, lost: &str) -> String {
    let unsafe_when = "UNSAFE: two-nodes=tie-breaker: two voters cut from one another on every path and on the \
                       clients' network as well, both of which reach a majority of the connectivity hosts, both go \
                       on and answer for the same addresses";
    if quorum {
        return format!("{unsafe_when}; a third node or a witness ('vipd --witness') is safe");
    }
    format!(
        "{unsafe_when}. {lost} is lost: this node goes on without it by itself once it reaches a majority of the \
         connectivity hosts and nobody else is seen on the addresses; 'vipctl events' says what it waits for"
    )
}

impl Context {
    /// An operator's word that a node is dead.
    pub(super) async fn force_quorum(&self, dead: &str, out: &Out) -> Result<Answer> {
        let member = self.member()?;
        // As far as it is known here: without a quorum there is nothing newer to be had.
        let state = member.state();
        let node = lookup::node(&state, dead)?.clone();
        if node.id == member.id {
            return Err(ApiError::refused(format!(
                "'{dead}' is this node itself: name the one that is dead"
            )));
        }
        let facts = self.facts.borrow().clone();
        if facts.peers.get(&node.id).is_some_and(|p| p.alive) {
            return Err(ApiError::refused(format!(
                "node '{dead}' is alive: it was heard a moment ago. Stop it first, or, if only the network is to \
                 blame, mend that"
            )));
        }
        if let Applied::Refused(refusal) =
            apply(&mut (*state).clone(), &Change::DeclareDead { node: node.id, by: Word::Operator })
        {
            return Err(ApiError::refused(refusal.0));
        }
        let applied = if facts.quorum {
            if node.alone.is_none() {
                return Err(ApiError::refused(
                    "this cluster has a quorum and takes over from dead nodes by itself: there is nothing to force",
                ));
            }
            member.store.propose(Change::DeclareDead { node: node.id, by: Word::Operator }).await
        } else {
            self.check_two(&member, &node)?;
            progress(out, format!("UNSAFE if '{dead}' is alive: going on without it")).await;
            member.store.go_on_without(node.id, Word::Operator).await
        };
        match applied.map_err(lookup::store)? {
            Applied::Done | Applied::Node(_) => {}
            Applied::Refused(refusal) => return Err(ApiError::refused(refusal.0)),
        }
        let message = format!(
            "UNSAFE if it is alive: node '{dead}' was declared dead by an operator, and the cluster goes on without it"
        );
        self.events.warn(About::default(), "cluster.forced", &message);
        Ok(Answer::done(format!(
            "{message}. What it had is taken over once leases have run out. When it returns, it is taken back in by \
             itself and holds nothing"
        )))
    }

    fn check_two(&self, member: &super::Member, dead: &crate::model::Node) -> Result<()> {
        check_leaves_out(member)?;
        let voters = member.store.leadership().borrow().voters.clone();
        if voters.iter().any(|v| ![member.id, dead.id].contains(v)) {
            let state = member.state();
            let names: Vec<String> = voters.iter().map(|v| state.node_name(*v)).collect();
            return Err(ApiError::refused(format!(
                "the voters are {}: only the last of two can go on alone, of more the lost ones may know what this one \
                 does not; bring a majority back",
                names.join(", ")
            )));
        }
        Ok(())
    }
}

/// Refused where the store cannot leave a lost node out of the voters.
pub(super) fn check_leaves_out(member: &super::Member) -> Result<()> {
    if member.store.health().kind == StoreKind::Etcd {
        return Err(ApiError::refused(
            "the state is in etcd, where a lost node cannot be left out yet: bring it back, or let a third node or a \
             witness join",
        ));
    }
    Ok(())
}
