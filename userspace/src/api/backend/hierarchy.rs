//! `depend`, `undepend`, `unextend`: what belongs together, and where.

use super::{Context, Out, Result, lookup};
use crate::{
    api::{Answer, ApiError},
    core::{change::Change, maintenance},
    model::{ClusterState, Tag},
};

impl Context {
    pub(super) async fn depend(&self, parent: &Tag, child: &Tag, force: bool, out: &Out) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        lookup::resource(&state, parent)?;
        lookup::resource(&state, child)?;
        let change = Change::Depend { parent: parent.clone(), child: child.clone() };
        let unasked = self.propose_checked(&member, &state, vec![change], force, out).await?;
        let members = member.state().hierarchy_of(parent);
        Ok(Answer::done(format!(
            "{parent} depends on {child}: it starts after it and stops before it; their hierarchy is {}{unasked}",
            names(member.state().bottom_up(&members).iter())
        )))
    }

    pub(super) async fn undepend(&self, parent: &Tag, child: &Tag, force: bool, out: &Out) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        lookup::resource(&state, parent)?;
        lookup::resource(&state, child)?;
        let change = Change::Undepend { parent: parent.clone(), child: child.clone() };
        let unasked = self.propose_checked(&member, &state, vec![change], force, out).await?;
        Ok(Answer::done(format!(
            "{parent} does not depend on {child} any more; both stay where they are{unasked}"
        )))
    }

    pub(super) async fn unextend(&self, tag: &Tag, from: &str, force: bool, out: &Out) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        lookup::resource(&state, tag)?;
        let node = lookup::node(&state, from)?;
        let change = Change::Unextend { tag: tag.clone(), from: node.id };
        let unasked = self.propose_checked(&member, &state, vec![change], force, out).await?;
        Ok(Answer::done(format!(
            "{tag} is no longer extended to {}{}{unasked}",
            node.name,
            along(&state, tag, "so are not")
        )))
    }
}

/// `; so are A, B` of the rest of the hierarchy; nothing where there is none.
pub(super) fn along(state: &ClusterState, tag: &Tag, how: &str) -> String {
    let members = state.hierarchy_of(tag);
    match members.len() {
        0 | 1 => String::new(),
        _ => format!("; {how} {} of its hierarchy", names(members.iter().filter(|t| *t != tag))),
    }
}

pub(super) fn names<'a>(tags: impl Iterator<Item = &'a Tag>) -> String {
    tags.map(Tag::as_str).collect::<Vec<_>>().join(", ")
}

/// Orders that only the planner can carry out.
pub(super) fn check_not_maintained(state: &ClusterState, tag: &Tag) -> Result<()> {
    maintenance::check_not_maintained(state, tag).map_err(|refusal| ApiError::refused(refusal.to_string()))
}
