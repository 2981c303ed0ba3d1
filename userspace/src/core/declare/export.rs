//! The present configuration, as a file would declare it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    core::accept::by_size,
    model::{
        AcceptBy, ClusterState, Constraint, ConstraintId, Declared, DeclaredCloud, DeclaredResource, Desired,
        Resource, Tag,
    },
};

/// What a file has to say for a cluster to be configured like this one. What is being deleted is not there
/// any more.
pub fn export(state: &ClusterState) -> Declared {
    let mut all = exact(state);
    for tag in all.resources.keys().cloned().collect::<Vec<_>>() {
        let implied = all.implied(&tag);
        let Some(resource) = all.resources.get_mut(&tag) else { continue };
        // The rule comes to the same result wherever the file is read.
        let by_rule = resource.accept == Some(by_size(&resource.addresses));
        if by_rule
            && state
                .resources
                .get(&tag)
                .and_then(Resource::ip)
                .is_some_and(|ip| ip.accept_by == AcceptBy::Size)
        {
            resource.accept = None;
        }
        if resource.depends.as_ref() == Some(&implied) {
            resource.depends = None;
        }
    }
    all
}

/// As [`export`], with nothing left open.
pub(super) fn exact(state: &ClusterState) -> Declared {
    let stays = |tag: &Tag| {
        state.resources.contains_key(tag) && state.placements.get(tag).is_some_and(|p| !p.deleting)
    };
    let kept = state.resources.iter().filter(|(tag, _)| stays(tag));
    Declared {
        defaults: Some(state.defaults.clone()),
        connectivity: Some(state.connectivity.clone()),
        subnets: state.subnets.clone(),
        ping_lists: state.ping_lists.clone(),
        resources: kept.map(|(tag, resource)| (tag.clone(), declared(state, resource, stays))).collect(),
        constraints: constraints(state, stays),
    }
}

fn declared(state: &ClusterState, resource: &Resource, stays: impl Fn(&Tag) -> bool) -> DeclaredResource {
    let placement = state.placements.get(&resource.tag);
    DeclaredResource {
        cloud: DeclaredCloud::of(&resource.kind),
        addresses: resource.addresses().clone(),
        accept: resource.ip().map(|ip| ip.accept),
        in_service: placement.map(|p| matches!(p.desired, Desired::InService { .. })),
        switchback: resource.switchback,
        on_conflict: resource.on_conflict,
        monitored: resource.monitored.clone(),
        depends: Some(resource.children.iter().filter(|t| stays(t)).cloned().collect()),
        policy: resource.policy.clone(),
        nodes: resource.nodes.clone(),
    }
}

/// As they will be once what is being deleted is gone.
fn constraints(state: &ClusterState, stays: impl Fn(&Tag) -> bool) -> BTreeMap<ConstraintId, Constraint> {
    let left = |constraint: &Constraint| match constraint {
        Constraint::Group { members } => {
            let members: Vec<Tag> = members.iter().filter(|t| stays(t)).cloned().collect();
            (members.len() > 1).then_some(Constraint::Group { members })
        }
        Constraint::Clone { members, per_node } => {
            let members: BTreeSet<Tag> = members.iter().filter(|t| stays(t)).cloned().collect();
            (members.len() > 1).then_some(Constraint::Clone { members, per_node: *per_node })
        }
        Constraint::Location { .. } | Constraint::Colocation { .. } | Constraint::Order { .. } => {
            constraint.tags().into_iter().all(&stays).then(|| constraint.clone())
        }
    };
    state.constraints.iter().filter_map(|(id, c)| Some((id.clone(), left(c)?))).collect()
}
