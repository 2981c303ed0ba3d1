//! What this node tells the cluster of its grants.

use super::{Agent, Situation, local::Have};
use crate::{
    core::change::{Outcome, Report},
    model::{ClusterState, LeaseEpoch, Phase, Standing, Tag},
};

impl Agent {
    /// What the cluster has not yet been told, or has not yet taken note of.
    pub fn reports(&mut self, state: &ClusterState, situation: Situation) -> Vec<Report> {
        self.notice(state, situation);
        let mut reports = Vec::new();
        let mut untold = std::mem::take(&mut self.untold);
        untold.retain(|tag| {
            let report = self.report(state, situation, tag);
            // What is said once holds: the grant is not used again, whatever becomes of it here meanwhile.
            if let Some(Report { epoch, outcome: Outcome::Failed { reason }, .. }) = &report
                && let Some(local) = self.locals.get_mut(tag)
            {
                local.failed = Some((*epoch, reason.clone()));
            }
            let is_untold = report.is_some();
            reports.extend(report);
            is_untold
        });
        self.untold = untold;
        reports
    }

    fn report(&self, state: &ClusterState, situation: Situation, tag: &Tag) -> Option<Report> {
        let local = self.locals.get(tag)?;
        let placement = state.placements.get(tag)?;
        let grant = placement.grant.filter(|g| g.owner == self.me)?;
        let epoch = placement.epoch;
        let trusted = || {
            let me = state.nodes.get(&self.me).filter(|n| n.standing == Standing::Member);
            me.is_some_and(|n| n.lease_epoch == grant.lease_epoch)
        };
        let failed = || {
            let (_, reason) = local.failed.as_ref().filter(|(e, _)| *e == epoch)?;
            Some(Outcome::Failed { reason: reason.clone() })
        };
        let outcome = match (&local.have, grant.phase) {
            (Have::Up { epoch: e, .. }, Phase::Starting) if *e == epoch => Outcome::Started,
            (Have::Up { epoch: e, .. }, _) if *e == epoch && local.recoveries.0 > placement.recoveries => {
                Outcome::Recovered { count: local.recoveries.0, reason: local.recoveries.1.clone() }
            }
            (Have::Up { epoch: e, .. }, _) if *e == epoch => {
                let alterations = placement.alterations;
                let resource = state.resources.get(tag)?;
                let about = self.subject(&state.resources, Some(resource)).addresses;
                let trouble = local.amended(resource, &about, alterations)?;
                let gone = placement.retired.difference(&local.here.as_ref()?.addresses.hosts());
                let is_known = placement.amended == alterations
                    && placement.trouble.as_deref() == trouble
                    && gone.is_empty();
                let trouble = trouble.map(str::to_owned);
                (!is_known).then_some(Outcome::Amended { alterations, gone, trouble })?
            }
            (Have::Up { .. }, _) => return None,
            _ if !local.is_silent(situation) => return None,
            (_, Phase::Stopping) => failed().unwrap_or(Outcome::Released),
            // What an earlier life may have left in EC2 keeps nobody waiting.
            (have, _) if local.stale == Some(epoch) && (*have == Have::Down || local.is_cloud()) => {
                trusted().then_some(Outcome::Restarted)?
            }
            (Have::Down, _) => failed()?,
            // What is left here has to go first, and there is no saying when.
            (Have::Unclear { .. }, _) if local.is_cloud() => failed()?,
            (Have::Unclear { silent, .. }, _) => {
                let reason = silent.clone().filter(|_| trusted());
                failed().or(reason.map(|reason| Outcome::Failed { reason }))?
            }
        };
        Some(Report { tag: tag.clone(), epoch, outcome })
    }

    /// This node was deposed, uses its new lease epoch, and nothing left here can answer.
    pub fn may_rejoin(&self, state: &ClusterState, situation: Situation) -> Option<LeaseEpoch> {
        let me = state.nodes.get(&self.me).filter(|n| n.standing == Standing::Deposed)?;
        let clear = self.locals.values().all(|l| l.is_silent(situation));
        (situation.caught_up && clear && situation.lease_epoch == me.lease_epoch).then_some(me.lease_epoch)
    }
}
