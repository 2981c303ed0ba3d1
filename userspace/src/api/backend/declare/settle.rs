//! Waits until everything that is declared in service is, and what is not wanted any more is gone.

use std::collections::BTreeSet;

use super::super::{Context, Member, Out, Result, lifecycle::where_it_is, wait::Verdict};
use crate::{
    api::{Answer, ApiError},
    model::{ClusterState, Phase, Tag},
};

impl Context {
    pub(super) async fn settled(
        &self,
        member: &Member,
        said: String,
        served: &BTreeSet<Tag>,
        stopped: &BTreeSet<Tag>,
        out: &Out,
    ) -> Result<Answer> {
        let judge = |state: &ClusterState| self.all_settled(state, &said, served, stopped);
        self.wait_for(member, None, self.limit_of_start(), out, judge).await
    }

    fn all_settled(
        &self,
        state: &ClusterState,
        said: &str,
        served: &BTreeSet<Tag>,
        stopped: &BTreeSet<Tag>,
    ) -> Verdict {
        let (mut done, mut maintained) = (0, 0);
        let (mut pending, mut failed) = (None, Vec::new());
        for tag in served {
            match self.service(state, tag) {
                None => maintained += 1,
                Some(Verdict::Done(_)) => done += 1,
                Some(Verdict::Failed(e)) => failed.push(e.message),
                Some(Verdict::Pending(now)) => pending = pending.or(Some(now)),
            }
        }
        let stopping = stopped.iter().find_map(|tag| {
            let p = state.placements.get(tag)?;
            // Ordered in service again by somebody else: not this order's business.
            p.grant.filter(|_| !p.is_wanted())?;
            Some(where_it_is(state, tag, p))
        });
        let total = served.len() - maintained;
        let paused = match maintained {
            0 => String::new(),
            n => format!("; {n} in maintenance are left as they are"),
        };
        match (pending.or(stopping), failed.first()) {
            (Some(now), _) => Verdict::Pending(format!("{done} of {total} in service; {now}")),
            (None, Some(_)) => Verdict::Failed(ApiError::failed(format!(
                "{said}, and {done} of {total} are in service; these are not:\n{}",
                failed.join("\n")
            ))),
            (None, None) => Verdict::Done(match total {
                0 => format!("{said}{paused}"),
                _ => format!("{said}; {done} of {total} in service{paused}"),
            }),
        }
    }

    /// None where nothing happens because of maintenance.
    fn service(&self, state: &ClusterState, tag: &Tag) -> Option<Verdict> {
        let placement = state.placements.get(tag);
        if let (Some(resource), Some(p)) = (state.resources.get(tag), placement)
            && state.in_maintenance(resource, p.grant.map(|g| g.owner))
        {
            return None;
        }
        let verdict = self.started(state, tag, None);
        let amended = placement.filter(|p| p.grant.is_some_and(|g| g.phase == Phase::InService));
        Some(match (verdict, amended) {
            (Verdict::Done(_), Some(p)) if p.amended < p.alterations => {
                Verdict::Pending(format!("the addresses of {tag} are being changed"))
            }
            (Verdict::Done(said), Some(p)) => match &p.trouble {
                Some(reason) => Verdict::Failed(ApiError::failed(format!(
                    "'{tag}' is in service without all of its addresses: {reason}"
                ))),
                None => Verdict::Done(said),
            },
            (other, _) => other,
        })
    }
}
