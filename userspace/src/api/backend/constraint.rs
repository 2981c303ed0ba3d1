//! `constraint`: where hierarchies may be, with or without each other, and in which order they start.

use super::{Context, Result, lookup};
use crate::{
    api::{Answer, ConstraintOf, NewConstraint},
    core::change::Change,
    model::{ClusterState, Constraint, OrderKind, Tag},
};

impl Context {
    pub(super) async fn constraint_add(&self, id: Option<String>, new: NewConstraint) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        let id = id.unwrap_or_else(|| default_id(&new));
        let constraint = resolve(&state, new)?;
        for tag in constraint.tags() {
            lookup::resource(&state, tag)?;
        }
        let says = describe(&state, &constraint);
        member.propose(vec![Change::AddConstraint { id: id.clone(), constraint }]).await?;
        Ok(Answer::done(format!("constraint {id}: {says}; 'vipctl constraint remove {id}' takes it back")))
    }

    pub(super) async fn constraint_remove(&self, id: &str) -> Result<Answer> {
        let member = self.member()?;
        member.fresh().await?;
        member.propose(vec![Change::RemoveConstraint { id: id.to_owned() }]).await?;
        Ok(Answer::done(format!("the constraint {id} is gone")))
    }

    pub(super) fn constraint_list(&self) -> Result<Answer> {
        let state = self.member()?.state();
        Ok(Answer::Constraints(list(&state, None)))
    }
}

/// All, or those that speak of a resource of the hierarchy.
pub(super) fn list(state: &ClusterState, of: Option<&Tag>) -> Vec<ConstraintOf> {
    let members = of.map(|tag| state.hierarchy_of(tag));
    let concerns = |c: &Constraint| members.as_ref().is_none_or(|m| c.tags().iter().any(|t| m.contains(*t)));
    let all = state.constraints.iter().filter(|(_, c)| concerns(c));
    all.map(|(id, c)| ConstraintOf { id: id.clone(), kind: kind(c).into(), says: describe(state, c) })
        .collect()
}

fn resolve(state: &ClusterState, new: NewConstraint) -> Result<Constraint> {
    Ok(match new {
        NewConstraint::Location { tag, node, score } => {
            Constraint::Location { tag, node: lookup::holder(state, &node)?.id, score }
        }
        NewConstraint::Colocation { tag, with, score } => Constraint::Colocation { tag, with, score },
        NewConstraint::Order { first, then, optional } => {
            let kind = if optional { OrderKind::Optional } else { OrderKind::Mandatory };
            Constraint::Order { first, then, kind }
        }
        NewConstraint::Group { members } => Constraint::Group { members },
        NewConstraint::Clone { members, per_node } => {
            Constraint::Clone { members: members.into_iter().collect(), per_node }
        }
    })
}

fn default_id(new: &NewConstraint) -> String {
    let cut = |text: String| text.chars().take(120).collect::<String>();
    cut(match new {
        NewConstraint::Location { tag, node, .. } => format!("location-{tag}-{node}"),
        NewConstraint::Colocation { tag, with, .. } => format!("colocation-{tag}-{with}"),
        NewConstraint::Order { first, then, .. } => format!("order-{first}-{then}"),
        NewConstraint::Group { members } => {
            format!("group-{}", members.first().map_or("empty", Tag::as_str))
        }
        NewConstraint::Clone { members, .. } => {
            format!("clone-{}", members.first().map_or("empty", Tag::as_str))
        }
    })
}

fn kind(constraint: &Constraint) -> &'static str {
    match constraint {
        Constraint::Location { .. } => "location",
        Constraint::Colocation { .. } => "colocation",
        Constraint::Order { .. } => "order",
        Constraint::Group { .. } => "group",
        Constraint::Clone { .. } => "clone",
    }
}

/// In words, for people.
fn describe(state: &ClusterState, constraint: &Constraint) -> String {
    let list =
        |members: &mut dyn Iterator<Item = &Tag>| members.map(Tag::as_str).collect::<Vec<_>>().join(", ");
    match constraint {
        Constraint::Location { tag, node, score } => {
            let node = state.node_name(*node);
            if score.forbids() {
                format!("{tag} is never on {node}")
            } else {
                format!("{tag} likes {node} by {score}")
            }
        }
        Constraint::Colocation { tag, with, score } if score.demands() => {
            format!("{tag} is only where {with} is")
        }
        Constraint::Colocation { tag, with, score } if score.forbids() => {
            format!("{tag} is never where {with} is")
        }
        Constraint::Colocation { tag, with, score } => {
            format!("{tag} likes to be where {with} is by {score}")
        }
        Constraint::Order { first, then, kind: OrderKind::Mandatory } => {
            format!("{then} is in service only while {first} is")
        }
        Constraint::Order { first, then, kind: OrderKind::Optional } => {
            format!("{then} starts after {first} where both start")
        }
        Constraint::Group { members } => {
            format!("{}: each depends on the one before it", list(&mut members.iter()))
        }
        Constraint::Clone { members, per_node } => {
            format!("{}: at most {per_node} of them on a node, spread before that", list(&mut members.iter()))
        }
    }
}
