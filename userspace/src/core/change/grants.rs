//! Changes of who owns what.

use super::{
    Applied, NewGrant, Outcome, Refusal, Report, Result, no_node, no_resource, placement, sweep_deleted,
};
use crate::model::{ClusterState, Desired, Epoch, Grant, NodeId, Phase, Resource, Standing, Tag, Threshold};

pub(super) fn give(state: &mut ClusterState, grants: &[NewGrant]) -> Result<Applied> {
    match give_each(state, grants) {
        Some(refusal) => Err(refusal),
        None => Ok(Applied::Done),
    }
}

/// Makes the grants that may be made. The first refusal, if there were grants and none was made.
pub(super) fn give_each(state: &mut ClusterState, grants: &[NewGrant]) -> Option<Refusal> {
    all_failed(grants.iter().map(|grant| give_one(state, grant)))
}

fn give_one(state: &mut ClusterState, new: &NewGrant) -> Result<()> {
    let NewGrant { tag, to, epoch } = new;
    let extended = state.resources.get(tag).ok_or_else(|| no_resource(tag))?.nodes.contains_key(to);
    let node = state.nodes.get(to).ok_or_else(|| no_node(*to))?;
    if !extended || node.witness || node.standing != Standing::Member {
        return Err(Refusal(format!(
            "'{tag}' cannot be given to node '{}' ({:?}): it needs a trusted member that the resource is extended to",
            node.name, node.standing
        )));
    }
    let lease_epoch = node.lease_epoch;
    check_together(state, tag, *to)?;
    let placement = placement(state, tag)?;
    let Desired::InService { on } = &mut placement.desired else {
        return Err(Refusal(format!("'{tag}' is to be out of service: 'vipctl in-service {tag}' starts it")));
    };
    if placement.grant.is_some() || placement.epoch != *epoch || placement.deleting {
        return Err(Refusal(format!(
            "'{tag}' was granted or deleted meanwhile (epoch {}, presumed {epoch}): look again and decide anew",
            placement.epoch
        )));
    }
    // The operator's choice could not be followed: it is spent, so that the resource is not moved back
    // by itself when that node returns (intelligent switchback), and priorities decide from now on.
    if on.is_some_and(|wanted| wanted != *to) {
        *on = None;
    }
    placement.epoch += 1;
    placement.grant = Some(Grant { owner: *to, lease_epoch, phase: Phase::Starting });
    Ok(())
}

/// A hierarchy is on one node.
fn check_together(state: &ClusterState, tag: &Tag, to: NodeId) -> Result<()> {
    if state.resources.get(tag).is_none_or(Resource::stands_alone) {
        return Ok(());
    }
    for other in state.hierarchy_of(tag) {
        let owner = state.placements.get(&other).and_then(|p| p.grant).map(|g| g.owner);
        if let Some(owner) = owner.filter(|owner| *owner != to) {
            return Err(Refusal(format!(
                "'{other}', of the hierarchy of '{tag}', is on node '{}': look again and decide anew",
                state.node_name(owner)
            )));
        }
    }
    Ok(())
}

pub(super) fn release(state: &mut ClusterState, tag: &Tag, epoch: Epoch) -> Result<Applied> {
    let placement = placement(state, tag)?;
    let newest = placement.epoch;
    match &mut placement.grant {
        Some(grant) if newest == epoch => match grant.phase {
            Phase::Starting | Phase::InService => {
                grant.phase = Phase::Stopping;
                Ok(Applied::Done)
            }
            Phase::Stopping => Err(Refusal(format!("'{tag}' is being stopped already: wait for its owner"))),
        },
        Some(_) | None => Err(Refusal(format!(
            "'{tag}' is not owned under epoch {epoch} (the newest is {newest}): look again and decide anew"
        ))),
    }
}

pub(super) fn report(state: &mut ClusterState, node: NodeId, reports: &[Report]) -> Result<Applied> {
    if !state.nodes.contains_key(&node) {
        return Err(no_node(node));
    }
    match all_failed(reports.iter().map(|r| report_one(state, node, r))) {
        Some(refusal) => Err(refusal),
        None => Ok(Applied::Done),
    }
}

fn report_one(state: &mut ClusterState, node: NodeId, report: &Report) -> Result<()> {
    let Report { tag, epoch, outcome } = report;
    // A start counts only from a node that is still trusted with the lease it started under.
    let lease_epoch =
        state.nodes.get(&node).filter(|n| n.standing == Standing::Member).map(|n| n.lease_epoch);
    let gave_up = state.nodes.get(&node).is_some_and(|n| n.gave_up.is_some());
    let name = state.node_name(node);
    let placement = placement(state, tag)?;
    let newest = placement.epoch;
    let Some(grant) = placement.grant.as_mut().filter(|g| g.owner == node && newest == *epoch) else {
        return Err(Refusal(format!(
            "node '{name}' does not own '{tag}' under epoch {epoch} (the newest is {newest}): the report is out of date"
        )));
    };
    match (outcome, grant.phase) {
        (Outcome::Started, Phase::Starting) => {
            if lease_epoch != Some(grant.lease_epoch) {
                return Err(Refusal(format!(
                    "node '{name}' was deposed since '{tag}' was granted to it: it must stop it and rejoin"
                )));
            }
            grant.phase = Phase::InService;
            placement.started = true;
        }
        (Outcome::Started, Phase::InService | Phase::Stopping) => {}
        (Outcome::Restarted, Phase::Starting | Phase::InService) => {
            if lease_epoch != Some(grant.lease_epoch) {
                return Err(Refusal(format!(
                    "node '{name}' was deposed since '{tag}' was granted to it: it must rejoin"
                )));
            }
            grant.phase = Phase::Starting;
            placement.started = false;
            placement.epoch += 1;
            placement.forget_amendments();
        }
        (Outcome::Restarted, Phase::Stopping) => {}
        (Outcome::Amended { alterations, gone, trouble }, _) => {
            if placement.alterations != *alterations {
                return Err(Refusal(format!(
                    "the addresses of '{tag}' were changed again: node '{name}' speaks of an earlier set"
                )));
            }
            placement.retired = placement.retired.difference(gone);
            placement.amended = *alterations;
            placement.trouble.clone_from(trouble);
        }
        (Outcome::Released, Phase::Stopping) => end(state, tag),
        (Outcome::Released, Phase::Starting | Phase::InService) => {
            return Err(Refusal(format!(
                "node '{name}' was not asked to release '{tag}': it reports a failure instead when it has stopped it"
            )));
        }
        // Where the node gave up everything this one did not fail: it only goes, too.
        (Outcome::Failed { .. }, _) if gave_up => end(state, tag),
        // Also where it was asked to stop since: with a hierarchy that leaves because of this very failure.
        (Outcome::Failed { reason }, _) => {
            let started = placement.started;
            placement.failed.insert(node, reason.clone());
            let failures = placement.failures.entry(node).or_default();
            failures.count = failures.count.saturating_add(1);
            failures.last.clone_from(reason);
            end(state, tag);
            give_up(state, tag, node, started, reason);
        }
        (Outcome::Recovered { count, reason }, Phase::Starting | Phase::InService) => {
            let new = count.saturating_sub(placement.recoveries);
            if new > 0 {
                placement.recoveries = *count;
                let failures = placement.failures.entry(node).or_default();
                failures.count = failures.count.saturating_add(new);
                failures.last.clone_from(reason);
                let so_often = failures.count;
                let threshold = threshold(state, tag);
                if threshold.is_reached(so_often) {
                    let why = format!("failed {so_often} times, the limit, at last: {reason}");
                    self::placement(state, tag)?.failed.insert(node, why);
                }
            }
        }
        (Outcome::Recovered { .. }, Phase::Stopping) => {}
    }
    Ok(())
}

fn threshold(state: &ClusterState, tag: &Tag) -> Threshold {
    let policy = state.resources.get(tag).map(|r| &r.policy);
    policy.map_or(Threshold::Unlimited, |p| p.migration_threshold(&state.defaults))
}

/// Failfast (row NM-6): some failures are so grave that the node shall give up everything.
fn give_up(state: &mut ClusterState, tag: &Tag, node: NodeId, started: bool, reason: &str) {
    let Some(policy) = state.resources.get(tag).map(|r| &r.policy) else { return };
    let kind = if policy.node_failfast {
        "node failfast"
    } else if policy.service_failfast && started {
        "service failfast"
    } else {
        return;
    };
    if let Some(node) = state.nodes.get_mut(&node) {
        node.gave_up.get_or_insert_with(|| format!("{kind} of '{tag}': {reason}"));
    }
}

pub(super) fn forgive(state: &mut ClusterState, tag: &Tag, node: NodeId) -> Result<Applied> {
    let placement = placement(state, tag)?;
    placement.failed.remove(&node);
    placement.failures.remove(&node);
    Ok(Applied::Done)
}

fn end(state: &mut ClusterState, tag: &Tag) {
    if let Some(placement) = state.placements.get_mut(tag) {
        placement.end_grant();
    }
    sweep_deleted(state, tag);
}

/// Each item stands for itself: the first refusal, if there were items and all were refused.
fn all_failed(results: impl Iterator<Item = Result<()>>) -> Option<Refusal> {
    let (mut first, mut done) = (None, false);
    for result in results {
        match result {
            Ok(()) => done = true,
            Err(refusal) => {
                first.get_or_insert(refusal);
            }
        }
    }
    first.filter(|_| !done)
}
