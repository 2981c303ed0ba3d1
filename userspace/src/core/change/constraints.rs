//! Changes of constraints (row CL-7).

use std::collections::BTreeSet;

use super::{Applied, Refusal, Result, hierarchy, no_node, resources::kept};
use crate::model::{ClusterState, Constraint, OrderKind, Tag};

const LONGEST_ID: usize = 128;

pub(super) fn add(state: &mut ClusterState, id: &str, constraint: &Constraint) -> Result<Applied> {
    let fits = |c: char| c.is_ascii_alphanumeric() || ".:_-".contains(c);
    if id.is_empty() || id.len() > LONGEST_ID || !id.chars().all(fits) {
        return Err(Refusal(format!(
            "'{id}' is no name for a constraint: use 1 to {LONGEST_ID} of letters, digits, '.', ':', '_' and '-'"
        )));
    }
    if state.constraints.contains_key(id) {
        return Err(Refusal(format!(
            "there is a constraint '{id}' already: 'vipctl constraint remove {id}' first, or give this one another --id"
        )));
    }
    if let Some((same, _)) = state.constraints.iter().find(|(_, c)| *c == constraint) {
        return Err(Refusal(format!("the constraint '{same}' says the same: nothing was added")));
    }
    for tag in constraint.tags() {
        kept(state, tag)?;
    }
    let mut all = state.clone();
    match constraint {
        Constraint::Location { node, .. } => {
            state.nodes.get(node).ok_or_else(|| no_node(*node))?;
        }
        Constraint::Colocation { tag, with, .. } => {
            check_apart(state, &[tag, with])?;
            check_no_circle(state, with, tag, "placed with", colocations)?;
        }
        Constraint::Order { first, then, kind: OrderKind::Mandatory | OrderKind::Optional } => {
            check_apart(state, &[first, then])?;
            check_no_circle(state, first, then, "started after", orders)?;
        }
        Constraint::Group { members } => {
            if members.len() < 2 {
                return Err(Refusal::new("a group needs two members at least"));
            }
            for pair in members.windows(2) {
                if let [child, parent] = pair
                    && !all.resources.get(parent).is_some_and(|r| r.children.contains(child))
                {
                    hierarchy::depend(&mut all, parent, child)?;
                }
            }
        }
        Constraint::Clone { members, per_node } => {
            if members.len() < 2 || *per_node == 0 {
                return Err(Refusal::new(
                    "a clone needs two instances at least, and one at least on each node",
                ));
            }
            check_apart(state, &members.iter().collect::<Vec<_>>())?;
        }
    }
    all.constraints.insert(id.to_owned(), constraint.clone());
    *state = all;
    Ok(Applied::Done)
}

/// A hierarchy is in one place and has an order of its own.
fn check_apart(state: &ClusterState, tags: &[&Tag]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for tag in tags {
        if !seen.insert((*tag).clone()) {
            return Err(Refusal(format!(
                "'{tag}' is in one hierarchy with another resource named here: those are together, in their own order, \
                 whatever a constraint says"
            )));
        }
        seen.extend(state.hierarchy_of(tag));
    }
    Ok(())
}

/// What constraints keep apart, or put in an order, does not become one hierarchy; nor does anything come before
/// itself because two do.
pub(super) fn check_joined(state: &ClusterState, one: &Tag, other: &Tag) -> Result<()> {
    let (mine, theirs) = (state.hierarchy_of(one), state.hierarchy_of(other));
    if mine.contains(other) {
        return Ok(());
    }
    let joins = |tag: &Tag| mine.contains(tag) || theirs.contains(tag);
    let between = state.constraints.iter().find(|(_, c)| match c {
        Constraint::Location { .. } | Constraint::Group { .. } => false,
        Constraint::Colocation { .. } | Constraint::Order { .. } | Constraint::Clone { .. } => {
            c.tags().into_iter().filter(|t| joins(t)).count() > 1
        }
    });
    if let Some((id, _)) = between {
        return Err(Refusal(format!(
            "constraint '{id}' speaks of both '{one}' and '{other}', or of others that would be one hierarchy with them: \
             'vipctl constraint remove {id}' first"
        )));
    }
    for edges in [colocations as fn(&Constraint) -> Option<(&Tag, &Tag)>, orders] {
        for (from, to) in [(&mine, &theirs), (&theirs, &mine)] {
            if let Some(id) = way(state, from, to, edges) {
                return Err(Refusal(format!(
                    "with '{one}' and '{other}' in one hierarchy, constraint '{id}' and others would go in a circle: 'vipctl \
                     constraint remove {id}' first"
                )));
            }
        }
    }
    Ok(())
}

fn colocations(constraint: &Constraint) -> Option<(&Tag, &Tag)> {
    match constraint {
        Constraint::Colocation { tag, with, .. } => Some((with, tag)),
        Constraint::Location { .. }
        | Constraint::Order { .. }
        | Constraint::Group { .. }
        | Constraint::Clone { .. } => None,
    }
}

fn orders(constraint: &Constraint) -> Option<(&Tag, &Tag)> {
    match constraint {
        Constraint::Order { first, then, .. } => Some((first, then)),
        Constraint::Location { .. }
        | Constraint::Colocation { .. }
        | Constraint::Group { .. }
        | Constraint::Clone { .. } => None,
    }
}

/// The constraint by which one arrives at `to`, if the edges lead there.
fn way<'a>(
    state: &'a ClusterState,
    from: &BTreeSet<Tag>,
    to: &BTreeSet<Tag>,
    edge: fn(&Constraint) -> Option<(&Tag, &Tag)>,
) -> Option<&'a str> {
    let edges: Vec<(&str, (&Tag, &Tag))> =
        state.constraints.iter().filter_map(|(id, c)| Some((id.as_str(), edge(c)?))).collect();
    let mut seen = from.clone();
    let mut waiting: Vec<Tag> = from.iter().cloned().collect();
    while let Some(tag) = waiting.pop() {
        for (id, (_, next)) in edges.iter().filter(|(_, (first, _))| **first == tag) {
            if to.contains(*next) {
                return Some(id);
            }
            for member in state.hierarchy_of(next) {
                if seen.insert(member.clone()) {
                    waiting.push(member);
                }
            }
        }
    }
    None
}

/// With the new edge from `from` to `to`, nothing comes before itself.
fn check_no_circle(
    state: &ClusterState,
    from: &Tag,
    to: &Tag,
    word: &str,
    edge: fn(&Constraint) -> Option<(&Tag, &Tag)>,
) -> Result<()> {
    if way(state, &state.hierarchy_of(to), &state.hierarchy_of(from), edge).is_some() {
        return Err(Refusal(format!(
            "'{from}' is {word} '{to}' already, directly or not: the other way round as well there is no order"
        )));
    }
    Ok(())
}

pub(super) fn remove(state: &mut ClusterState, id: &str) -> Result<Applied> {
    let Some(constraint) = state.constraints.get(id) else {
        return Err(Refusal(format!("there is no constraint '{id}': 'vipctl constraint list' lists them")));
    };
    let mut all = state.clone();
    if let Constraint::Group { members } = constraint {
        for pair in members.windows(2) {
            if let [child, parent] = pair
                && all.resources.get(parent).is_some_and(|r| r.children.contains(child))
            {
                hierarchy::undepend(&mut all, parent, child)?;
            }
        }
    }
    all.constraints.remove(id);
    *state = all;
    Ok(Applied::Done)
}

/// What speaks of a resource that is gone goes with it.
pub(super) fn forget(state: &mut ClusterState, gone: &Tag) {
    state.constraints.retain(|_, constraint| match constraint {
        Constraint::Location { tag, .. } => tag != gone,
        Constraint::Colocation { tag, with, .. } => tag != gone && with != gone,
        Constraint::Order { first, then, .. } => first != gone && then != gone,
        Constraint::Group { members } => {
            members.retain(|tag| tag != gone);
            members.len() > 1
        }
        Constraint::Clone { members, .. } => {
            members.remove(gone);
            members.len() > 1
        }
    });
}
