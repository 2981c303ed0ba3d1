//! `extend`: another node may have the resource.

use std::collections::BTreeMap;

use super::{Context, Out, Result, create::next_priority, hierarchy::along, lookup};
use crate::{
    api::{Answer, ApiError},
    core::change::Change,
    model::{NodeSettings, Resource, Tag},
};

impl Context {
    pub(super) async fn extend(
        &self,
        tag: &Tag,
        to: &str,
        priority: Option<u16>,
        devices: Vec<String>,
        force: bool,
        out: &Out,
    ) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        let resource = lookup::resource(&state, tag)?;
        if resource.nodes.values().any(|s| s.physical) {
            return Err(ApiError::refused(format!(
                "'{tag}' protects a node's own address {}, which no other node can have: create a resource for \
                 another address",
                resource.addresses()
            )));
        }
        let targets: Vec<(u64, String)> = if to == "all" {
            let fits = |n: &&crate::model::Node| !n.witness && !resource.nodes.contains_key(&n.id);
            state.nodes.values().filter(fits).map(|n| (n.id, n.name.clone())).collect()
        } else {
            let node = lookup::holder(&state, to)?;
            vec![(node.id, node.name.clone())]
        };
        if targets.is_empty() {
            return Ok(Answer::done(format!("{tag} is extended to all nodes that can hold it already")));
        }
        if targets.len() > 1 && priority.is_some() {
            return Err(ApiError::usage("--priority belongs to one node: extend to them one after another"));
        }
        // The rest of the hierarchy goes along, each member with the interfaces that it has elsewhere.
        let hierarchy = state.hierarchy_of(tag);
        let others: Vec<&Resource> =
            hierarchy.iter().filter(|t| *t != tag).filter_map(|t| state.resources.get(t)).collect();
        let devices = if devices.is_empty() { devices_of_best(resource) } else { devices };
        let mut worst = resource.nodes.values().map(|s| s.priority).max().unwrap_or(0);
        let mut changes = Vec::new();
        let mut said = Vec::new();
        for (to, name) in targets {
            worst = match priority {
                Some(priority) => priority,
                None => next_priority(worst)?,
            };
            let copied = |r: &Resource| (r.tag.clone(), NodeSettings::new(worst, devices_of_best(r)));
            let mut members: BTreeMap<Tag, NodeSettings> = others.iter().map(|r| copied(r)).collect();
            members.insert(tag.clone(), NodeSettings::new(worst, devices.clone()));
            said.push(format!("{name} (priority {worst})"));
            // The subnets' ping lists go along (row IP-11).
            changes.push(Change::Extend { to, members });
        }
        let unasked = self.propose_checked(&member, &state, changes, force, out).await?;
        let on = match &devices[..] {
            // A route follows what it leads to.
            [] => String::new(),
            all => format!(", on {}", all.join(", ")),
        };
        Ok(Answer::done(format!(
            "{tag} is extended to {}{on}{}{unasked}",
            said.join(", "),
            along(&state, tag, "so are")
        )))
    }
}

/// The same interfaces as on the node that is preferred.
fn devices_of_best(resource: &Resource) -> Vec<String> {
    resource.nodes.values().min_by_key(|s| s.priority).map(|s| s.devices.clone()).unwrap_or_default()
}
