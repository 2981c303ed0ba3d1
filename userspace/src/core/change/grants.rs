//! Changes of who owns what.

use super::{
    Applied, NewGrant, Outcome, Refusal, Report, Result, no_node, no_resource, placement, sweep_deleted,
};
use crate::model::{ClusterState, Desired, Epoch, Grant, NodeId, Phase, Standing, Tag};

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
        }
        (Outcome::Started, Phase::InService | Phase::Stopping) => {}
        (Outcome::Restarted, Phase::Starting | Phase::InService) => {
            if lease_epoch != Some(grant.lease_epoch) {
                return Err(Refusal(format!(
                    "node '{name}' was deposed since '{tag}' was granted to it: it must rejoin"
                )));
            }
            grant.phase = Phase::Starting;
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
        (Outcome::Failed { reason }, Phase::Starting | Phase::InService) => {
            placement.failed.insert(node, reason.clone());
            end(state, tag);
        }
        // It was to stop and it has stopped: that it failed on the way is no reason to avoid the node.
        (Outcome::Failed { .. }, Phase::Stopping) => end(state, tag),
    }
    Ok(())
}

pub(super) fn forgive(state: &mut ClusterState, tag: &Tag, node: NodeId) -> Result<Applied> {
    placement(state, tag)?.failed.remove(&node);
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
