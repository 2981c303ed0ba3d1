//! In which order the members of a hierarchy start and stop on this node: children before parents when they
//! start, after them when they stop. Decided here alone, so that no step waits for the cluster.

use std::collections::BTreeMap;

use super::local::{Have, Local, Want};
use crate::model::{ClusterState, NodeId, Phase, Resource, Tag};

/// What the neighbours in a hierarchy mean for one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Whatever is wanted may be done.
    Free,
    /// Its children are not in service yet.
    Waits,
    /// A child has failed here for good: it can neither start nor stay.
    Orphaned(String),
    /// Its parents are still here: it must not be taken down before them.
    Held,
}

pub(super) struct Neighbours<'a> {
    pub me: NodeId,
    pub state: &'a ClusterState,
    pub locals: &'a BTreeMap<Tag, Local>,
}

impl Neighbours<'_> {
    pub fn turn(&self, resource: &Resource, want: Want) -> Turn {
        let local = self.locals.get(&resource.tag);
        let is_up = local.is_some_and(|l| matches!(l.have, Have::Up { .. }));
        let is_down = local.is_none_or(|l| l.have == Have::Down);
        let stays = matches!(want, Want::Run { .. } | Want::Hold) && !is_unclear(local);
        if stays && (is_up || is_down) {
            let lost = resource.children.iter().find_map(|child| Some((child, self.lost(child)?)));
            if let Some((child, why)) = lost {
                return Turn::Orphaned(format!("'{child}', on which it depends, failed: {why}"));
            }
            let ready = is_up || resource.children.iter().all(|child| self.serves(child));
            return if ready { Turn::Free } else { Turn::Waits };
        }
        // What is to be brought up here again is cleaned up under its parents, as by a recovery.
        let returns = matches!(want, Want::Run { epoch, .. } if !local.is_some_and(|l| l.has_failed(epoch)));
        // A parent that was not asked to stop will be: the leader sees to that (`planner::decisions`).
        let held = !returns && resource.parents.iter().any(|parent| self.is_here(parent));
        if held { Turn::Held } else { Turn::Free }
    }

    /// In service here, and not being mended.
    fn serves(&self, child: &Tag) -> bool {
        let grant = self.state.placements.get(child).and_then(|p| p.grant);
        let granted = grant.is_some_and(|g| g.owner == self.me && g.phase != Phase::Stopping);
        let up = |l: &Local| matches!(l.have, Have::Up { broken: false, .. }) && !l.is_moving();
        granted && self.locals.get(child).is_some_and(up)
    }

    /// Why the child will not be in service here under its present grant.
    fn lost(&self, child: &Tag) -> Option<String> {
        let placement = self.state.placements.get(child)?;
        let mine = placement.grant.is_some_and(|g| g.owner == self.me);
        if !mine {
            return placement.failed.get(&self.me).cloned();
        }
        let local = self.locals.get(child)?;
        let failed = local.failed.as_ref().filter(|(epoch, _)| *epoch == placement.epoch);
        match (&local.have, failed) {
            (Have::Up { .. }, _) => None,
            (Have::Down | Have::Unclear { .. }, Some((_, reason))) => Some(reason.clone()),
            (Have::Down | Have::Unclear { .. }, None) => None,
        }
    }

    /// Something of it may be in service here yet.
    fn is_here(&self, parent: &Tag) -> bool {
        let quiet = |l: &Local| match &l.have {
            Have::Down => l.running.is_none(),
            // It can't answer any more: whoever waited for it waits no longer.
            Have::Unclear { silent, .. } => silent.is_some(),
            Have::Up { .. } => false,
        };
        self.locals.get(parent).is_some_and(|l| !quiet(l))
    }
}

fn is_unclear(local: Option<&Local>) -> bool {
    local.is_some_and(|l| matches!(l.have, Have::Unclear { .. }))
}
