//! From what is, and what each hierarchy is to do, to the changes to propose.

use std::collections::BTreeSet;

use super::{
    Change, Decision, NewGrant, Planner,
    intent::{Intent, Intents},
    unit::Unit,
};
use crate::model::{Desired, Grant, Node, NodeId, OrderKind, Phase, Standing, Tag};

pub(super) fn decide(planner: &Planner, intents: &Intents) -> Vec<Decision> {
    let mut decisions = depositions(planner);
    decisions.extend(vacations(planner, intents));
    decisions.extend(forgivenesses(planner));
    decisions.extend(ended_choices(planner));
    for (id, unit) in planner.units.all.iter().enumerate() {
        releases(planner, intents, unit, &intents.of[id], &mut decisions);
    }
    decisions.extend(gifts(planner, intents));
    decisions
}

/// Suspected nodes that own something lose their lease epoch. Who owns nothing is left alone: there
/// is nothing to take from it, and it is not given anything while it is not fit.
fn depositions(planner: &Planner) -> Vec<Decision> {
    let placements = planner.state.placements.values();
    let owners: BTreeSet<NodeId> = placements.filter_map(|p| p.grant).map(|g| g.owner).collect();
    // What an operator works on keeps what it has, and finds it again when it comes back.
    let worked_on = |n: &Node| n.maintenance || planner.state.defaults.maintenance;
    let members = planner.state.nodes.values().filter(|n| n.standing == Standing::Member && !worked_on(n));
    members
        .filter(|n| owners.contains(&n.id) && planner.suspected(n.id))
        .map(|n| Decision {
            change: Change::Depose { node: n.id, lease_epoch: n.lease_epoch },
            reason: format!("node '{}' is silent: its lease is not renewed any more", n.name),
        })
        .collect()
}

/// What a deposed and silent node owned goes on to others in the same step that frees it.
fn vacations(planner: &Planner, intents: &Intents) -> Vec<Decision> {
    let silent = planner.state.nodes.values().filter(|n| planner.silent(n));
    silent.filter_map(|n| vacation(planner, intents, n)).collect()
}

fn vacation(planner: &Planner, intents: &Intents, node: &Node) -> Option<Decision> {
    let old = |tag: &Tag| {
        let grant = planner.placement(tag).and_then(|p| p.grant);
        grant.is_some_and(|g| g.owner == node.id && g.lease_epoch < node.lease_epoch)
    };
    let (mut owned, mut grants) = (0, Vec::new());
    for (id, unit) in planner.units.all.iter().enumerate() {
        let here = unit.members.iter().filter(|t| old(t)).count();
        if here > 0 {
            owned += here;
            grants.extend(missing(planner, unit, &intents.of[id]));
        }
    }
    (owned > 0).then(|| Decision {
        reason: format!(
            "node '{}' is proven silent: {} of its {owned} resources are given to others",
            node.name,
            grants.len()
        ),
        change: Change::Vacate { node: node.id, lease_epoch: node.lease_epoch, grants },
    })
}

fn forgivenesses(planner: &Planner) -> Vec<Decision> {
    let marked = |tag: &Tag, node: &NodeId| {
        planner.placement(tag).is_some_and(|p| p.failed.contains_key(node) || p.failures.contains_key(node))
    };
    let expired = planner.observed.forgive.iter().filter(|(tag, node)| marked(tag, node));
    expired
        .map(|(tag, node)| Decision {
            change: Change::Forgive { tag: tag.clone(), node: *node },
            reason: format!("the failure of '{tag}' on node '{}' is long enough ago", planner.name(*node)),
        })
        .collect()
}

/// A whole hierarchy's choice is one.
fn ended_choices(planner: &Planner) -> Vec<Decision> {
    let ended = |tag: &&Tag| {
        let placement = planner.placement(tag);
        planner.observed.ended_choices.contains(*tag)
            && placement.is_some_and(|p| p.choice_ends.is_some() && !p.deleting)
    };
    let first = planner.units.all.iter().filter_map(|unit| unit.members.iter().find(ended));
    first
        .map(|tag| Decision {
            change: Change::Clear { tag: tag.clone() },
            reason: format!("the time for which '{tag}' was sent to a node is over"),
        })
        .collect()
}

fn releases(planner: &Planner, intents: &Intents, unit: &Unit, intent: &Intent, all: &mut Vec<Decision>) {
    let maintained = planner.state.in_maintenance(unit.root, planner.owner(unit));
    if maintained || is_waited_for(planner, intents, unit) {
        return;
    }
    // Parents first: a child that was asked does not wait for a parent that was not (`agent::order`).
    for tag in planner.state.bottom_up(&unit.members).iter().rev() {
        let Some(placement) = planner.placement(tag) else { continue };
        let Some(grant) = asked_to_stop(planner, placement.grant) else { continue };
        let owner = planner.name(grant.owner);
        let reason = match (placement.desired, intent) {
            (Desired::OutOfService, _) => {
                format!("'{tag}' is to be out of service: node '{owner}' is asked to stop it")
            }
            (Desired::InService { .. }, Intent::Leave { reason, to: Some(to) }) => {
                format!("'{tag}' moves from node '{owner}' to '{}': {reason}", planner.name(*to))
            }
            (Desired::InService { .. }, Intent::Leave { reason, to: None }) => {
                format!("'{tag}' leaves node '{owner}': {reason}")
            }
            // A part of it stops already; what is wanted goes along, for it will be elsewhere.
            (Desired::InService { .. }, Intent::Next(to)) if *to != grant.owner => {
                format!("'{tag}' moves from node '{owner}' to '{}' with its hierarchy", planner.name(*to))
            }
            (
                Desired::InService { .. },
                Intent::Idle | Intent::Stay(_) | Intent::Next(_) | Intent::Start(_) | Intent::Wait { .. },
            ) => continue,
        };
        let change = Change::Release { tag: tag.clone(), epoch: placement.epoch };
        all.push(Decision { change, reason });
    }
}

/// A suspected or deposed owner is past asking; what it owns is freed by proof, not by release.
fn asked_to_stop(planner: &Planner, grant: Option<Grant>) -> Option<Grant> {
    let grant = grant?;
    let owner = planner.state.nodes.get(&grant.owner)?;
    let heeds = owner.standing == Standing::Member && !planner.suspected(owner.id);
    (heeds && grant.phase != Phase::Stopping).then_some(grant)
}

/// What comes after it stops before it.
fn is_waited_for(planner: &Planner, intents: &Intents, unit: &Unit) -> bool {
    let acts = |unit: &Unit| !planner.state.in_maintenance(unit.root, planner.owner(unit));
    let thens = unit.thens.iter().filter(|then| acts(&planner.units.all[then.unit]));
    thens.into_iter().any(|then| match then.kind {
        OrderKind::Mandatory => planner.phase(then.tag).is_some(),
        OrderKind::Optional => {
            let unwanted = planner.placement(then.tag).is_some_and(|p| !p.is_wanted());
            planner.phase(then.tag).is_some() && (unwanted || intents.leaves(then.unit))
        }
    })
}

/// One change for all that nobody owns and somebody can start.
fn gifts(planner: &Planner, intents: &Intents) -> Vec<Decision> {
    let mut grants: Vec<NewGrant> = Vec::new();
    for (id, unit) in planner.units.all.iter().enumerate() {
        let free = |g: &NewGrant| planner.placement(&g.tag).is_some_and(|p| p.grant.is_none());
        grants.extend(missing(planner, unit, &intents.of[id]).into_iter().filter(free));
    }
    grants.sort_by(|a, b| a.tag.cmp(&b.tag));
    if grants.is_empty() {
        return Vec::new();
    }
    let reason = match &grants[..] {
        [one] => format!("'{}' is given to node '{}'", one.tag, planner.name(one.to)),
        many => format!("{} resources are given to nodes", many.len()),
    };
    vec![Decision { change: Change::Give { grants }, reason }]
}

/// Grants for the wanted members that nobody has: where the hierarchy is or shall be.
fn missing(planner: &Planner, unit: &Unit, intent: &Intent) -> Vec<NewGrant> {
    let to = match intent {
        Intent::Start(node) => *node,
        Intent::Stay(node) if is_usable(planner, *node) => *node,
        Intent::Stay(_) | Intent::Idle | Intent::Leave { .. } | Intent::Next(_) | Intent::Wait { .. } => {
            return Vec::new();
        }
    };
    let free = planner.wanted(unit).filter(|tag| {
        let placement = planner.placement(tag);
        let failed = placement.is_some_and(|p| p.failed.contains_key(&to))
            && !planner.observed.forgive.contains(&((*tag).clone(), to));
        let lacks = planner.state.resources.get(*tag).is_some_and(|r| {
            planner.state.lacking_subnets(r, to).next().is_some() || !r.nodes.contains_key(&to)
        });
        placement.is_some_and(|p| planner.live_grant(p).is_none()) && !failed && !lacks
    });
    free.filter_map(|tag| planner.new_grant(tag, to)).collect()
}

fn is_usable(planner: &Planner, node: NodeId) -> bool {
    planner.fit(node) && planner.state.nodes.get(&node).is_some_and(|n| n.is_available())
}
