//! The changes from a state to a goal, each tried on a copy of the state before it is taken.

use std::collections::{BTreeMap, BTreeSet};

use super::{Problem, Subject, hierarchies};
use crate::{
    core::{
        accept::by_size,
        change::{Applied, Change, DefaultSetting, Setting, apply, apply_part},
    },
    model::{
        Accept, AcceptBy, ClusterState, Constraint, ConstraintId, Declared, DeclaredCloud, DeclaredResource,
        Defaults, IpResource, Kind, NodeId, Policy, Ranges, Resource, Standing, Tag, TwoNodes,
    },
};

/// What was done so far.
pub(super) struct Steps {
    /// After all changes.
    pub state: ClusterState,
    pub changes: Vec<Change>,
    pub problems: Vec<Problem>,
}

impl Steps {
    /// False when it was refused, which is remembered.
    pub fn take(&mut self, about: Subject, change: Change) -> bool {
        match apply_part(&mut self.state, &change) {
            Applied::Done | Applied::Node(_) => {
                self.changes.push(change);
                true
            }
            Applied::Refused(refusal) => {
                self.problems.push(Problem::new(about, refusal.0));
                false
            }
        }
    }

    pub fn set(&mut self, tag: &Tag, node: Option<NodeId>, setting: Setting) {
        self.take(Subject::Resource(tag.clone()), Change::Set { tag: tag.clone(), node, setting });
    }
}

/// Stage after stage; after one in which something was refused there is no other.
pub(super) fn steps(state: &ClusterState, now: &Declared, wanted: &Declared, prune: bool) -> Steps {
    let mut steps = Steps { state: state.clone(), changes: Vec::new(), problems: Vec::new() };
    let stages: [fn(&mut Steps, &Declared, &Declared); 10] = [
        drop_constraints,
        hierarchies::cut,
        delete,
        monitor,
        addresses,
        create,
        settings,
        |steps, now, wanted| add_constraints(steps, now, wanted, false),
        hierarchies::join,
        |steps, now, wanted| add_constraints(steps, now, wanted, true),
    ];
    for stage in stages {
        stage(&mut steps, now, wanted);
        if !steps.problems.is_empty() {
            return steps;
        }
    }
    // Groups say again what their members depend on.
    hierarchies::trim(&mut steps, wanted);
    services(&mut steps, wanted);
    cluster(&mut steps, now, wanted);
    lists(&mut steps, now, wanted, prune);
    steps
}

fn drop_constraints(steps: &mut Steps, now: &Declared, wanted: &Declared) {
    for (id, constraint) in &now.constraints {
        if wanted.constraints.get(id) != Some(constraint) {
            steps.take(Subject::Constraint(id.clone()), Change::RemoveConstraint { id: id.clone() });
        }
    }
}

fn add_constraints(steps: &mut Steps, now: &Declared, wanted: &Declared, groups: bool) {
    let new = |(id, c): &(&ConstraintId, &Constraint)| now.constraints.get(*id) != Some(*c);
    for (id, constraint) in wanted.constraints.iter().filter(new) {
        if matches!(constraint, Constraint::Group { .. }) == groups {
            let change = Change::AddConstraint { id: id.clone(), constraint: constraint.clone() };
            steps.take(Subject::Constraint(id.clone()), change);
        }
    }
}

fn delete(steps: &mut Steps, now: &Declared, wanted: &Declared) {
    for tag in now.resources.keys().filter(|t| !wanted.resources.contains_key(*t)) {
        let change = Change::Delete { tag: tag.clone(), hierarchy: false };
        steps.take(Subject::Resource(tag.clone()), change);
    }
}

fn monitor(steps: &mut Steps, now: &Declared, wanted: &Declared) {
    for (subnet, settings) in &wanted.subnets {
        if now.subnets.get(subnet) != Some(settings) {
            let change = Change::MonitorSubnet { subnet: *subnet, settings: settings.clone() };
            steps.take(Subject::Cluster, change);
        }
    }
}

/// An address leaves one resource before another gets it.
fn addresses(steps: &mut Steps, now: &Declared, wanted: &Declared) {
    let mut changing: BTreeMap<&Tag, &DeclaredResource> = wanted
        .resources
        .iter()
        .filter(|(_, r)| r.cloud.is_none())
        .filter(|(tag, r)| now.resources.get(*tag).is_some_and(|before| before.addresses != r.addresses))
        .collect();
    let gained = |tag: &Tag| -> Ranges {
        let others = wanted.resources.iter().filter(|(t, _)| *t != tag);
        let fresh = others.map(|(t, r)| {
            let had = now.resources.get(t).map(|b| b.addresses.hosts()).unwrap_or_default();
            r.addresses.hosts().difference(&had)
        });
        fresh.fold(Ranges::default(), |all, some| all.union(&some))
    };
    for (tag, resource) in &changing {
        let Some(before) = now.resources.get(*tag) else { continue };
        let given = before.addresses.hosts().difference(&resource.addresses.hosts());
        let given = given.intersection(&gained(tag));
        let kept = before.addresses.without(&given);
        if !given.is_empty() && !kept.is_empty() {
            let change = Change::SetAddresses { tag: (*tag).clone(), addresses: kept };
            steps.take(Subject::Resource((*tag).clone()), change);
        }
    }
    // Whoever waits for another's addresses comes after it.
    loop {
        let known = steps.problems.len();
        let count = changing.len();
        changing.retain(|tag, resource| {
            let change = Change::SetAddresses { tag: (*tag).clone(), addresses: resource.addresses.clone() };
            !steps.take(Subject::Resource((*tag).clone()), change)
        });
        if changing.is_empty() || changing.len() == count {
            return;
        }
        steps.problems.truncate(known);
    }
}

fn create(steps: &mut Steps, now: &Declared, wanted: &Declared) {
    let new: Vec<_> = wanted.resources.iter().filter(|(tag, _)| !now.resources.contains_key(*tag)).collect();
    // What others follow is there before them.
    for follows in [false, true] {
        create_some(steps, new.iter().copied().filter(|(_, r)| r.followed().is_some() == follows));
    }
}

fn create_some<'a>(steps: &mut Steps, new: impl Iterator<Item = (&'a Tag, &'a DeclaredResource)>) {
    let mut by_node: BTreeMap<NodeId, Vec<Resource>> = BTreeMap::new();
    for (tag, resource) in new {
        if steps.state.resources.contains_key(tag) {
            let reason =
                "one of that tag is still being deleted: wait until 'vipctl status' no longer shows it";
            steps.problems.push(Problem::new(Subject::Resource(tag.clone()), reason.to_owned()));
            continue;
        }
        let Some(on) = first_node(&steps.state, resource) else {
            let reason = "it has no node: write [resource.nodes] with one at least".to_owned();
            steps.problems.push(Problem::new(Subject::Resource(tag.clone()), reason));
            continue;
        };
        by_node.entry(on).or_default().push(made(tag, resource));
    }
    for (on, resources) in by_node {
        let tags: Vec<Tag> = resources.iter().map(|r| r.tag.clone()).collect();
        let mut trial = steps.state.clone();
        let all = Change::CreateAll { resources: resources.clone(), on };
        if let Applied::Refused(_) = apply(&mut trial, &all) {
            // One by one, each says what is wrong with it.
            for resource in resources {
                steps.take(Subject::Resource(resource.tag.clone()), Change::Create { resource, on });
            }
            continue;
        }
        if steps.take(Subject::Cluster, all) {
            // Where they start is the planner's choice.
            for tag in tags {
                steps.take(Subject::Resource(tag.clone()), Change::Clear { tag });
            }
        }
    }
}

/// The best that can be told to have it.
fn first_node(state: &ClusterState, resource: &DeclaredResource) -> Option<NodeId> {
    let rank = |id: &NodeId| {
        let node = state.nodes.get(id);
        let member = node.is_some_and(|n| n.standing == Standing::Member);
        let available = node.is_some_and(|n| n.is_available());
        (!member, !available)
    };
    resource.nodes.iter().min_by_key(|(id, s)| (rank(id), s.priority)).map(|(id, _)| *id)
}

/// With the settings that have no checks of their own; the others follow.
fn made(tag: &Tag, declared: &DeclaredResource) -> Resource {
    let nodes = declared.nodes.iter().map(|(id, s)| (*id, s.clone()));
    let ip = || {
        let addresses = declared.addresses.clone();
        let accept = declared.accept.unwrap_or(Accept::Assign);
        // As the rule has it for so many: that is no choice of anybody's.
        let usual = accept == by_size(&addresses);
        let accept_by = if usual { AcceptBy::Size } else { AcceptBy::Operator };
        Kind::Ip(IpResource { addresses, accept, accept_by })
    };
    let kind = declared.cloud.as_ref().map_or_else(ip, DeclaredCloud::kind);
    let resource = Resource::of_kind(tag.clone(), kind, nodes);
    Resource {
        switchback: declared.switchback,
        on_conflict: declared.on_conflict,
        monitored: declared.monitored.clone(),
        ..resource
    }
}

fn settings(steps: &mut Steps, _: &Declared, wanted: &Declared) {
    for (tag, resource) in &wanted.resources {
        let Some(now) = steps.state.resources.get(tag).cloned() else { continue };
        if now.switchback != resource.switchback {
            steps.set(tag, None, Setting::Switchback(resource.switchback));
        }
        if now.on_conflict != resource.on_conflict {
            steps.set(tag, None, Setting::OnConflict(resource.on_conflict));
        }
        if let Some(accept) = resource.accept.filter(|a| now.ip().is_some_and(|ip| *a != ip.accept)) {
            steps.set(tag, None, Setting::Accept(accept));
        }
        if now.monitored != resource.monitored {
            steps.set(tag, None, Setting::Subnets(resource.monitored.iter().copied().collect()));
        }
        policy(steps, tag, &now.policy, &resource.policy);
        hierarchies::nodes(steps, tag, &now.nodes, &resource.nodes);
    }
}

fn policy(steps: &mut Steps, tag: &Tag, now: &Policy, wanted: &Policy) {
    let Policy {
        stickiness,
        migration_threshold,
        failure_timeout,
        service_failfast,
        node_failfast,
        maintenance,
        ignores_connectivity,
    } = wanted;
    let all = [
        (now.stickiness != *stickiness, Setting::Stickiness(*stickiness)),
        (now.migration_threshold != *migration_threshold, Setting::MigrationThreshold(*migration_threshold)),
        (now.failure_timeout != *failure_timeout, Setting::FailureTimeout(*failure_timeout)),
        (now.service_failfast != *service_failfast, Setting::ServiceFailfast(*service_failfast)),
        (now.node_failfast != *node_failfast, Setting::NodeFailfast(*node_failfast)),
        (now.maintenance != *maintenance, Setting::Maintenance(*maintenance)),
        (
            now.ignores_connectivity != *ignores_connectivity,
            Setting::IgnoresConnectivity(*ignores_connectivity),
        ),
    ];
    for (_, setting) in all.into_iter().filter(|(differs, _)| *differs) {
        steps.set(tag, None, setting);
    }
}

/// What goes out of service first: what depends on it goes along.
fn services(steps: &mut Steps, wanted: &Declared) {
    for on in [false, true] {
        for (tag, resource) in &wanted.resources {
            let is_wanted = steps.state.placements.get(tag).is_some_and(|p| p.is_wanted());
            if resource.in_service != Some(on) || is_wanted == on {
                continue;
            }
            let tag = tag.clone();
            let about = Subject::Resource(tag.clone());
            let change = if on {
                Change::InService { tag, on: None, until: None }
            } else {
                Change::OutOfService { tag }
            };
            steps.take(about, change);
        }
    }
}

/// The tie-breakers are the connectivity hosts: they are there before it, and go after it.
fn cluster(steps: &mut Steps, now: &Declared, wanted: &Declared) {
    let ends = wanted.defaults.as_ref().is_some_and(|d| d.two_nodes != TwoNodes::TieBreaker);
    if ends {
        defaults(steps, now, wanted);
    }
    if let Some(settings) = wanted.connectivity.clone().filter(|c| now.connectivity.as_ref() != Some(c)) {
        steps.take(Subject::Cluster, Change::SetConnectivity { settings });
    }
    if !ends {
        defaults(steps, now, wanted);
    }
}

fn defaults(steps: &mut Steps, now: &Declared, wanted: &Declared) {
    let (Some(before), Some(after)) = (&now.defaults, &wanted.defaults) else { return };
    let Defaults { stickiness, migration_threshold, failure_timeout, maintenance, two_nodes } = after;
    let all = [
        (before.stickiness != *stickiness, DefaultSetting::Stickiness(*stickiness)),
        (
            before.migration_threshold != *migration_threshold,
            DefaultSetting::MigrationThreshold(*migration_threshold),
        ),
        (before.failure_timeout != *failure_timeout, DefaultSetting::FailureTimeout(*failure_timeout)),
        (before.maintenance != *maintenance, DefaultSetting::Maintenance(*maintenance)),
        (before.two_nodes != *two_nodes, DefaultSetting::TwoNodes(*two_nodes)),
    ];
    for (_, setting) in all.into_iter().filter(|(differs, _)| *differs) {
        steps.take(Subject::Cluster, Change::SetDefault { setting });
    }
}

/// Ping lists, which resources may have brought along, and subnets that nobody needs any more.
fn lists(steps: &mut Steps, now: &Declared, wanted: &Declared, prune: bool) {
    let there = steps.state.ping_lists.clone();
    let keys: BTreeSet<_> = there.keys().chain(wanted.ping_lists.keys()).copied().collect();
    for key in keys {
        let list = wanted.ping_lists.get(&key);
        // Without a declaration a list that came along stays.
        let untouched = list.is_none() && !prune && !now.ping_lists.contains_key(&key);
        if list != there.get(&key) && !untouched {
            let (node, subnet) = key;
            let addresses = list.cloned().unwrap_or_default();
            steps.take(Subject::Cluster, Change::SetPingList { node, subnet, addresses });
        }
    }
    for subnet in now.subnets.keys().filter(|s| !wanted.subnets.contains_key(*s)) {
        steps.take(Subject::Cluster, Change::UnmonitorSubnet { subnet: *subnet });
    }
}
