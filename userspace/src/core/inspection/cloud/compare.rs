//! What no node can tell alone.

use std::collections::{BTreeMap, BTreeSet};

use super::CloudFound;
use crate::model::{NodeId, Tag};

/// (objections, warnings) from what the nodes found, each with the resource that it is about.
pub fn compare(
    found: &BTreeMap<NodeId, Vec<CloudFound>>,
    name_of: &dyn Fn(NodeId) -> String,
) -> (Vec<String>, Vec<String>) {
    let mut by_tag: BTreeMap<&Tag, Vec<(NodeId, &CloudFound)>> = BTreeMap::new();
    for (node, one) in found.iter().flat_map(|(node, all)| all.iter().map(move |one| (*node, one))) {
        by_tag.entry(&one.tag).or_default().push((node, one));
    }
    let (mut objections, mut warnings) = (Vec::new(), Vec::new());
    for (tag, all) in by_tag {
        let is_route = all.iter().any(|(_, f)| f.is_route);
        let regions = places(&all, name_of, |f| f.region.as_ref());
        let vpcs = places(&all, name_of, |f| f.vpc.as_ref());
        if let Some(apart) = regions {
            objections.push(format!(
                "{tag}: its nodes are in different regions ({apart}), and what EC2 has belongs to one: leave the nodes of \
                 the others out"
            ));
        } else if let Some(apart) = vpcs.filter(|_| is_route) {
            objections.push(format!(
                "{tag}: its nodes are in different VPCs ({apart}), and a route leads only to interfaces of its own VPC: \
                 leave the nodes of the others out"
            ));
        }
        warnings.extend(stranger(tag, &all));
    }
    (objections, warnings)
}

/// `vpc-1: a, b; vpc-2: c`, when they differ.
fn places<'a>(
    all: &[(NodeId, &'a CloudFound)],
    name_of: &dyn Fn(NodeId) -> String,
    place: impl Fn(&'a CloudFound) -> Option<&'a String>,
) -> Option<String> {
    let mut nodes: BTreeMap<&String, Vec<String>> = BTreeMap::new();
    for (node, found) in all {
        if let Some(place) = place(found) {
            nodes.entry(place).or_default().push(name_of(*node));
        }
    }
    let text: Vec<String> =
        nodes.iter().map(|(place, names)| format!("{place}: {}", names.join(", "))).collect();
    (text.len() > 1).then(|| text.join("; "))
}

/// The Elastic IP is on an interface that no node has. Known only when all of them have told theirs.
fn stranger(tag: &Tag, all: &[(NodeId, &CloudFound)]) -> Option<String> {
    let told = all.iter().filter(|(_, f)| !f.interfaces.is_empty()).count();
    if all.iter().any(|(_, f)| f.nodes != told) {
        return None;
    }
    let ours: BTreeSet<&String> = all.iter().flat_map(|(_, f)| &f.interfaces).collect();
    let (address, holder) = all.iter().find_map(|(_, f)| Some((f.elastic_ip?, f.holder.as_ref()?)))?;
    (!ours.contains(holder)).then(|| {
        format!("{tag}: {address} is on {holder} now, which no node of it has: it will be taken from there")
    })
}
