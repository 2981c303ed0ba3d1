//! Many resources, or many addresses of one, in one change.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Applied, Refusal, Result, cloud, resources};
use crate::model::{Addresses, ClusterState, NodeId, Ranges, Resource, Tag};

/// All or nothing. Linear in what is there, where as many single changes would be quadratic.
pub(super) fn create_all(state: &mut ClusterState, new: &[Resource], on: NodeId) -> Result<Applied> {
    if new.is_empty() {
        return Err(Refusal::new("there is nothing to create: name at least one address"));
    }
    let mut tags = BTreeSet::new();
    for resource in new {
        resources::check_new(state, resource, on)?;
        if !tags.insert(&resource.tag) {
            return Err(Refusal(format!(
                "the tag '{}' is there twice: give each resource its own",
                resource.tag
            )));
        }
    }
    cloud::check_distinct(new)?;
    check_disjoint(state.resources.values().chain(new))?;
    new.iter().try_for_each(|resource| resources::check_retired(state, resource))?;
    for resource in new {
        resources::add(state, resource, on);
    }
    Ok(Applied::Done)
}

/// Adds and removes addresses of a resource, also while it is in service.
pub(super) fn alter(
    state: &mut ClusterState,
    tag: &Tag,
    add: &Addresses,
    remove: &Ranges,
) -> Result<Applied> {
    let now = resources::kept(state, tag)?.addresses();
    if let Some(missing) = remove.difference(&now.hosts()).first() {
        return Err(Refusal(format!(
            "{missing} is not one of the addresses of '{tag}': 'vipctl list {tag}' lists them"
        )));
    }
    if let Some(both) = remove.intersection(&add.hosts()).first() {
        return Err(Refusal(format!("{both} cannot be added and removed at once: do one of them")));
    }
    let wanted = now.without(remove).union(add);
    if wanted.is_empty() {
        return Err(Refusal(format!(
            "'{tag}' would be left without an address: 'vipctl delete {tag}' deletes it as a whole"
        )));
    }
    resources::set_addresses(state, tag, &wanted)
}

/// No two have an address in common. Of two that have, the one that comes first is named as the owner.
fn check_disjoint<'a>(all: impl Iterator<Item = &'a Resource>) -> Result<()> {
    let mut taken: Vec<(IpAddr, IpAddr, usize, &Tag)> = Vec::new();
    for (number, resource) in all.enumerate() {
        let hosts = resource.addresses().hosts();
        taken.extend(hosts.ranges().iter().map(|r| (r.first(), r.last(), number, &resource.tag)));
    }
    taken.sort_unstable_by_key(|(first, _, number, _)| (*first, *number));
    for pair in taken.windows(2) {
        if let [(_, end, earlier, one), (first, _, later, other)] = pair
            && first <= end
        {
            return Err(resources::belongs(*first, if earlier < later { one } else { other }));
        }
    }
    Ok(())
}
