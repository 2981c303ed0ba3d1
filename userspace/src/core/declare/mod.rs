//! Declarative configuration (row CL-12): from a cluster and what is declared to the changes between.
//!
//! ```text
//! state ----export----> Declared          declared + state ---goal---> all that is wanted
//!                                         state + goal ------steps---> one batch of changes
//!                                         state + goal ----compare---> what people read
//! ```
//!
//! The changes are tried one after another on a copy of the state. So a plan is refused here, with everything
//! that is wrong, or it is known to lead to the goal.

mod export;
mod goal;
mod hierarchies;
mod steps;
#[cfg(test)]
pub(crate) mod tests;
mod words;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use self::export::export;
use self::{export::exact, goal::Goal, words::Fields};
use crate::{
    core::change::Change,
    model::{ClusterState, ConstraintId, Declared, Tag},
};

/// What is to be done for a cluster to be as it is declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Of the state that it was made for.
    pub revision: u64,
    /// In this order, all or none. Empty when nothing is to be done, or when there are problems.
    pub changes: Vec<Change>,
    pub differences: Vec<Difference>,
    /// What is there and not declared, and stays.
    pub unmanaged: Vec<String>,
    /// What goes out of service.
    pub stops: BTreeSet<Tag>,
    /// What comes in service.
    pub starts: BTreeSet<Tag>,
    pub problems: Vec<Problem>,
    /// All that is to be in service then.
    pub served: BTreeSet<Tag>,
}

/// One thing that is other than it is declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    pub action: Action,
    /// As `resource web`.
    pub what: String,
    /// As `switchback: intelligent -> automatic`.
    pub details: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Create,
    Change,
    Delete,
}

/// Why what is declared cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub about: Subject,
    /// The reason and the remedy.
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Resource(Tag),
    Constraint(ConstraintId),
    Cluster,
}

impl Problem {
    fn new(about: Subject, reason: String) -> Self {
        Self { about, reason }
    }
}

/// From the state to what is declared. With `prune` what is not declared is deleted.
pub fn plan(state: &ClusterState, declared: &Declared, prune: bool) -> Plan {
    let Goal { now, wanted, mut problems } = Goal::new(state, declared, prune);
    let differences = compare(state, &now, &wanted);
    let mut plan = Plan {
        revision: state.revision,
        unmanaged: if prune { Vec::new() } else { unmanaged(state, &now, declared) },
        served: wanted.resources.iter().filter(|(_, r)| r.in_service == Some(true)).map(tag_of).collect(),
        ..Plan::default()
    };
    let served = |all: &Declared| -> BTreeSet<Tag> {
        all.resources.iter().filter(|(_, r)| r.in_service == Some(true)).map(tag_of).collect()
    };
    let (before, after) = (served(&now), served(&wanted));
    plan.stops = before.difference(&after).cloned().collect();
    plan.starts = after.difference(&before).cloned().collect();
    if problems.is_empty() && !differences.is_empty() {
        let steps = steps::steps(state, &now, &wanted, prune);
        problems = steps.problems;
        if problems.is_empty() && !reached(&exact(&steps.state), &wanted, prune) {
            let left = compare(state, &exact(&steps.state), &wanted);
            let left: Vec<String> =
                left.into_iter().map(|d| format!("{} ({})", d.what, d.details.join("; "))).collect();
            problems.push(Problem::new(
                Subject::Cluster,
                format!("this cannot be reached in one step: {}; declare less at a time", left.join(", ")),
            ));
        }
        plan.changes = steps.changes;
    }
    if !problems.is_empty() {
        plan.changes.clear();
    }
    Plan { differences, problems, ..plan }
}

fn tag_of<T>((tag, _): (&Tag, T)) -> Tag {
    tag.clone()
}

/// Ping lists that nodes got along with resources do no harm (row IP-11).
fn reached(after: &Declared, wanted: &Declared, prune: bool) -> bool {
    if prune {
        return after == wanted;
    }
    let lists = &wanted.ping_lists;
    let kept = after.ping_lists.iter().filter(|(key, _)| lists.contains_key(key));
    let kept = kept.map(|(key, list)| (*key, list.clone())).collect();
    Declared { ping_lists: kept, ..after.clone() } == *wanted
}

fn compare(state: &ClusterState, now: &Declared, wanted: &Declared) -> Vec<Difference> {
    let (before, after) = (words::flatten(state, now), words::flatten(state, wanted));
    let none = Fields::new();
    let whats: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut found = Vec::new();
    for what in whats {
        let (old, new) = (before.get(what), after.get(what));
        if old == new {
            continue;
        }
        let action = match (old, new) {
            (None, _) => Action::Create,
            (Some(_), None) => Action::Delete,
            (Some(_), Some(_)) => Action::Change,
        };
        let (old, new) = (old.unwrap_or(&none), new.unwrap_or(&none));
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let named = |value: Option<&String>| match value.map(String::as_str) {
            None | Some("") => "nothing".to_owned(),
            Some(value) => value.to_owned(),
        };
        let details =
            keys.into_iter().filter(|k| old.get(*k) != new.get(*k)).filter_map(|key| match action {
                Action::Create => {
                    let value = new.get(key).filter(|v| !["", "default", "false"].contains(&v.as_str()))?;
                    Some(format!("{key}: {value}"))
                }
                Action::Delete => None,
                Action::Change => Some(format!("{key}: {} -> {}", named(old.get(key)), named(new.get(key)))),
            });
        found.push(Difference { action, what: what.clone(), details: details.collect() });
    }
    found
}

/// All that is there and that the declaration says nothing of.
fn unmanaged(state: &ClusterState, now: &Declared, declared: &Declared) -> Vec<String> {
    let empty = Declared {
        defaults: now.defaults.clone().filter(|d| *d != Default::default()),
        connectivity: now.connectivity.clone().filter(|c| *c != Default::default()),
        ..now.clone()
    };
    let spoken = words::flatten(state, declared);
    words::flatten(state, &empty).into_keys().filter(|what| !spoken.contains_key(what)).collect()
}
