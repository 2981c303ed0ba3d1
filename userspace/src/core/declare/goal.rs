//! What the whole configuration is to be: what is declared, and what is there and not spoken of.

use std::collections::{BTreeMap, BTreeSet};

use super::{Problem, Subject, export::exact, words};
use crate::{
    core::accept::{Budget, by_size},
    model::{
        Accept, AcceptBy, ClusterState, Connectivity, Declared, DeclaredResource, Defaults, NodeId,
        NodeSettings, Tag,
    },
};

/// As the state is to be, with nothing left open; all that is wrong with it.
pub(super) struct Goal {
    pub now: Declared,
    pub wanted: Declared,
    pub problems: Vec<Problem>,
}

impl Goal {
    pub fn new(state: &ClusterState, declared: &Declared, prune: bool) -> Self {
        let now = exact(state);
        let mut wanted = overlay(&now, declared, prune);
        let mut problems = Vec::new();
        for (id, constraint) in &wanted.constraints {
            for unknown in constraint.tags().into_iter().filter(|t| !wanted.resources.contains_key(*t)) {
                problems.push(Problem::new(
                    Subject::Constraint(id.clone()),
                    format!(
                        "it speaks of '{unknown}', which is not there: declare that, or correct the spelling"
                    ),
                ));
            }
        }
        close_children(&now, declared, &mut wanted, &mut problems);
        if problems.is_empty() {
            let hierarchies = hierarchies(&wanted);
            for members in &hierarchies {
                agree(state, declared, &mut wanted, members, &mut problems);
            }
            services(declared, &mut wanted, &mut problems);
        }
        same_kinds(&now, declared, &mut problems);
        accepts(state, &now, declared, &mut wanted, &mut problems);
        Self { now, wanted, problems }
    }
}

fn overlay(now: &Declared, declared: &Declared, prune: bool) -> Declared {
    let mut wanted = if prune {
        Declared {
            defaults: Some(Defaults::default()),
            connectivity: Some(Connectivity::default()),
            ..Declared::default()
        }
    } else {
        now.clone()
    };
    wanted.defaults = declared.defaults.clone().or(wanted.defaults);
    wanted.connectivity = declared.connectivity.clone().or(wanted.connectivity);
    wanted.subnets.extend(declared.subnets.clone());
    wanted.ping_lists.extend(declared.ping_lists.clone());
    wanted.ping_lists.retain(|_, list| !list.is_empty());
    wanted.constraints.extend(declared.constraints.clone());
    for (tag, resource) in &declared.resources {
        let before = now.resources.get(tag);
        wanted.resources.insert(
            tag.clone(),
            DeclaredResource {
                in_service: resource.in_service.or(before.map_or(Some(true), |r| r.in_service)),
                ..resource.clone()
            },
        );
    }
    wanted
}

/// What a resource is cannot be changed: what it has at EC2 would be left behind.
fn same_kinds(now: &Declared, declared: &Declared, problems: &mut Vec<Problem>) {
    for (tag, resource) in &declared.resources {
        let Some(before) = now.resources.get(tag).filter(|r| r.cloud != resource.cloud) else { continue };
        let (was, is) = (words::what(before), words::what(resource));
        problems.push(Problem::new(
            Subject::Resource(tag.clone()),
            format!(
                "it is {was}, and cannot become {is}: 'vipctl delete {tag}' first, and declare it anew, or give the new \
                 one a tag of its own"
            ),
        ));
    }
}

/// Every resource says what it depends on, and all of that is there and goes in no circle.
fn close_children(now: &Declared, declared: &Declared, wanted: &mut Declared, problems: &mut Vec<Problem>) {
    let tags: Vec<Tag> = wanted.resources.keys().cloned().collect();
    for tag in &tags {
        let mut children = wanted.children(tag);
        if !declared.resources.contains_key(tag) {
            // Groups that are declared anew say something of resources that are not.
            let (before, after) = (now.implied(tag), wanted.implied(tag));
            children.retain(|child| after.contains(child) || !before.contains(child));
            children.extend(after.difference(&before).cloned());
        }
        if let Some(unknown) = children.iter().find(|c| !wanted.resources.contains_key(*c)) {
            problems.push(Problem::new(
                Subject::Resource(tag.clone()),
                format!(
                    "it depends on '{unknown}', which is not there: declare that, or correct the spelling"
                ),
            ));
        }
        if let Some(resource) = wanted.resources.get_mut(tag) {
            resource.depends = Some(children);
        }
    }
    let circle = tags.iter().find(|tag| {
        let mut seen = BTreeSet::new();
        let mut waiting: Vec<Tag> = wanted.children(tag).into_iter().collect();
        while let Some(next) = waiting.pop() {
            if seen.insert(next.clone()) {
                waiting.extend(wanted.children(&next));
            }
        }
        seen.contains(*tag)
    });
    if let Some(tag) = circle {
        problems.push(Problem::new(
            Subject::Resource(tag.clone()),
            "it depends on itself, directly or not, so that it could never start: take one of the dependencies out"
                .to_owned(),
        ));
    }
}

/// Everything that depends on each other, of more than one.
fn hierarchies(all: &Declared) -> Vec<BTreeSet<Tag>> {
    let mut near: BTreeMap<Tag, BTreeSet<Tag>> = BTreeMap::new();
    for tag in all.resources.keys() {
        for child in all.children(tag) {
            near.entry(tag.clone()).or_default().insert(child.clone());
            near.entry(child).or_default().insert(tag.clone());
        }
    }
    let mut seen: BTreeSet<Tag> = BTreeSet::new();
    let mut found = Vec::new();
    for tag in near.keys() {
        if seen.contains(tag) {
            continue;
        }
        let mut members = BTreeSet::new();
        let mut waiting = vec![tag.clone()];
        while let Some(next) = waiting.pop() {
            if members.insert(next.clone()) {
                waiting.extend(near.get(&next).into_iter().flatten().cloned());
            }
        }
        seen.extend(members.iter().cloned());
        found.push(members);
    }
    found
}

/// A hierarchy has the same nodes and priorities. Members that are not declared follow those that are.
fn agree(
    state: &ClusterState,
    declared: &Declared,
    wanted: &mut Declared,
    members: &BTreeSet<Tag>,
    problems: &mut Vec<Problem>,
) {
    let places = |r: &DeclaredResource| -> BTreeMap<NodeId, u16> {
        r.nodes.iter().map(|(id, s)| (*id, s.priority)).collect()
    };
    let mut spoken = members.iter().filter(|t| declared.resources.contains_key(*t));
    let Some(first) = spoken.next() else { return };
    let Some(common) = wanted.resources.get(first).map(places) else { return };
    for tag in spoken {
        let theirs = wanted.resources.get(tag).map(places).unwrap_or_default();
        if theirs != common {
            let text = |all: &BTreeMap<NodeId, u16>| {
                let each = all.iter().map(|(id, p)| format!("{} {p}", state.node_name(*id)));
                each.collect::<Vec<_>>().join(", ")
            };
            problems.push(Problem::new(
                Subject::Resource(tag.clone()),
                format!(
                    "it is one hierarchy with '{first}', which moves as one, and their nodes and priorities differ ({}; \
                     '{first}': {}): make them equal",
                    text(&theirs),
                    text(&common)
                ),
            ));
        }
    }
    for tag in members.iter().filter(|t| !declared.resources.contains_key(*t)) {
        let Some(resource) = wanted.resources.get_mut(tag) else { continue };
        let best = resource.nodes.values().min_by_key(|s| s.priority).map(|s| s.devices.clone());
        let devices = best.unwrap_or_default();
        let former = std::mem::take(&mut resource.nodes);
        resource.nodes = common
            .iter()
            .map(|(id, priority)| {
                let settings = match former.get(id) {
                    Some(s) => NodeSettings { priority: *priority, ..s.clone() },
                    None => NodeSettings::new(*priority, devices.clone()),
                };
                (*id, settings)
            })
            .collect();
    }
}

/// What a resource in service depends on is in service. Who is not spoken of follows who is.
fn services(declared: &Declared, wanted: &mut Declared, problems: &mut Vec<Problem>) {
    let said = |tag: &Tag| declared.resources.get(tag).and_then(|r| r.in_service);
    let mut parents: BTreeMap<Tag, BTreeSet<Tag>> = BTreeMap::new();
    for tag in wanted.resources.keys() {
        for child in wanted.children(tag) {
            parents.entry(child).or_default().insert(tag.clone());
        }
    }
    let off: Vec<Tag> = wanted.resources.keys().filter(|t| said(t) == Some(false)).cloned().collect();
    for tag in off {
        let mut waiting: Vec<Tag> = parents.get(&tag).into_iter().flatten().cloned().collect();
        let mut seen = BTreeSet::new();
        while let Some(above) = waiting.pop() {
            if !seen.insert(above.clone()) {
                continue;
            }
            if said(&above) == Some(true) {
                problems.push(Problem::new(
                    Subject::Resource(tag.clone()),
                    format!(
                        "it is to be out of service, and '{above}', which depends on it, in service: say the same of both"
                    ),
                ));
            }
            waiting.extend(parents.get(&above).into_iter().flatten().cloned());
            if let Some(resource) = wanted.resources.get_mut(&above) {
                resource.in_service = Some(false);
            }
        }
    }
    let mut waiting: Vec<Tag> =
        wanted.resources.iter().filter(|(_, r)| r.in_service == Some(true)).map(|(t, _)| t.clone()).collect();
    while let Some(tag) = waiting.pop() {
        for child in wanted.children(&tag) {
            if let Some(resource) = wanted.resources.get_mut(&child)
                && resource.in_service != Some(true)
            {
                resource.in_service = Some(true);
                waiting.push(child);
            }
        }
    }
}

/// Resources accept by the rule where nobody says how.
fn accepts(
    state: &ClusterState,
    now: &Declared,
    declared: &Declared,
    wanted: &mut Declared,
    problems: &mut Vec<Problem>,
) {
    let mut others = state.clone();
    for (tag, before) in &now.resources {
        if wanted.resources.get(tag).is_none_or(|r| r.addresses != before.addresses) {
            others.resources.remove(tag);
        }
    }
    let mut budget = Budget::new(&others);
    for (tag, resource) in &mut wanted.resources {
        let spoken = declared.resources.get(tag).is_some_and(|r| r.accept.is_none() && r.cloud.is_none());
        if !spoken {
            continue;
        }
        let there = state.resources.get(tag).filter(|_| now.resources.contains_key(tag)).and_then(|r| r.ip());
        resource.accept = match there {
            Some(ip) if ip.addresses == resource.addresses => match ip.accept_by {
                AcceptBy::Limit => Some(ip.accept),
                AcceptBy::Size | AcceptBy::Operator => Some(by_size(&resource.addresses)),
            },
            Some(_) | None => Some(budget.choose(&resource.addresses, resource.nodes.keys().copied()).0),
        };
        let Some(ip) = there.filter(|ip| resource.addresses.count() > ip.addresses.count()) else { continue };
        let owned = state.placements.get(tag).is_some_and(|p| p.grant.is_some());
        // What is in service goes on in its way, whatever is to be at the next bring-up.
        if let Some(rule @ (Accept::Route | Accept::Anyip)) = resource.accept
            && owned
            && ip.accept == Accept::Assign
        {
            let (count, way) = (resource.addresses.count(), words::accept(rule));
            problems.push(Problem::new(
                Subject::Resource(tag.clone()),
                format!(
                    "it is in service and assigns its addresses, of which it would have {count}, too many for the kernel to \
                     do so quickly: apply accept = \"{way}\" and state = \"out-of-service\" first, or write accept = \
                     \"assign\" to have it so"
                ),
            ));
        }
    }
}
