//! `show`: all about one resource.

use super::{Context, Result, constraint, lookup, ping_list, status};
use crate::{
    api::{Answer, ApiError, Shown},
    model::{Tag, Tunables},
};

impl Context {
    pub(super) async fn show(&self, tag: &Tag) -> Result<Answer> {
        let member = self.member()?;
        let state = member.state();
        let resource = lookup::resource(&state, tag)?;
        let placement = state.placements.get(tag).ok_or_else(|| {
            ApiError::failed(format!("'{tag}' has no placement: restart vipd on this node"))
        })?;
        let here = status::Here::look(self, member.id).await;
        let subnets = resource.addresses().subnets();
        let mut ping_lists: Vec<_> =
            subnets.flat_map(|subnet| ping_list::lists(&state, Some(subnet), None)).collect();
        let tunables = self.tunables.read().pairs();
        let defaults = Tunables::default().pairs();
        let changed = tunables.iter().filter(|pair| !defaults.contains(pair));
        let extended: Vec<String> = resource.nodes.keys().map(|id| state.node_name(*id)).collect();
        ping_lists.retain(|list| extended.contains(&list.node));
        Ok(Answer::Shown(Box::new(Shown {
            status: status::resource(&state, resource, placement, &here),
            resource: resource.clone(),
            placement: placement.clone(),
            explanation: self.explanation(&member, &state, tag),
            constraints: constraint::list(&state, Some(tag)),
            ping_lists,
            tuned: changed.map(|(name, _)| name.clone()).collect(),
            tunables,
            tunables_file: self.tunables.path().display().to_string(),
            complaints: self.tunables.complaints(),
        })))
    }
}
