//! What this node must do about each resource: compares what the cluster wants of it with what it has
//! here (level-triggered, so a missed message costs nothing), and says which sequence to run next.
//!
//! ```text
//!              wanted                ok                 due or touched
//!   Down ----------------> Restore ------> Up ---------------------------> Quickcheck --ok--> Up
//!    ^                        | fails       | no longer wanted                | fails
//!    |                        v             v                                 v
//!    +---------ok--------- Remove <----- Unclear <--------fails------------ Recover ----ok--> Up
//! ```
//!
//! Invariant: `Released` and `Failed` are reported only after a Remove has succeeded.
//! Invariant: a deposed node rejoins only when everything here is `Down`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    change::{Outcome, Report},
    time::BootTime,
};
use crate::model::{ClusterState, Epoch, LeaseEpoch, NodeId, Phase, Standing, Tag};

/// Which sequence of a resource runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Restore,
    Remove,
    Quickcheck,
    Recover,
}

/// What the daemon shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run the sequence and say how it ended ([`Agent::finished`]).
    Start { tag: Tag, operation: Operation, epoch: Epoch, lease_epoch: LeaseEpoch },
    /// Stop between two steps of the running sequence; it ends as failed.
    Cancel { tag: Tag },
}

/// What this node may count on at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// Everything decided before this daemon started has been applied.
    pub caught_up: bool,
    pub lease_valid: bool,
    /// The kernel enforces the lease. Where it does not, the daemon must take addresses down itself.
    pub guarded: bool,
    /// The lease epoch that this node asks for; gates open only under it.
    pub lease_epoch: LeaseEpoch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Have {
    Down,
    Up {
        epoch: Epoch,
        check_at: BootTime,
    },
    /// Something may be left here: it must be removed before anything else.
    Unclear {
        retry_at: BootTime,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Running {
    operation: Operation,
    epoch: Epoch,
    lease_epoch: LeaseEpoch,
    cancelled: bool,
}

#[derive(Debug)]
struct Local {
    have: Have,
    running: Option<Running>,
    /// The grant that failed here, until the cluster has taken note.
    failed: Option<(Epoch, String)>,
    /// A grant of before this daemon started, and no longer in service here: not to be used.
    stale: Option<Epoch>,
}

impl Local {
    fn new(have: Have) -> Self {
        Self { have, running: None, failed: None, stale: None }
    }
}

/// What the cluster wants of this node about one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Nothing,
    Run {
        epoch: Epoch,
        lease_epoch: LeaseEpoch,
    },
    /// Neither start nor stop: wait until the situation is clear.
    Hold,
}

const REMOVE_RETRY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Agent {
    me: NodeId,
    locals: BTreeMap<Tag, Local>,
}

impl Agent {
    pub fn new(me: NodeId) -> Self {
        Self { me, locals: BTreeMap::new() }
    }

    /// Something of the resource was found here at start: the address is programmed in the datapath or
    /// assigned with our protocol number. With `serving`, its gate is open under that grant.
    pub fn found(&mut self, tag: Tag, serving: Option<Epoch>, now: BootTime) {
        let have = match serving {
            Some(epoch) => Have::Up { epoch, check_at: now },
            None => Have::Unclear { retry_at: now },
        };
        self.locals.insert(tag, Local::new(have));
    }

    /// After all that was [`Agent::found`]. Grants of before that are not in service here need a new
    /// epoch: an earlier life may have reported their failure, and the report may take effect yet.
    pub fn begin(&mut self, state: &ClusterState) {
        for (tag, placement) in &state.placements {
            if placement.grant.is_none_or(|g| g.owner != self.me) {
                continue;
            }
            let local = self.locals.entry(tag.clone()).or_insert_with(|| Local::new(Have::Down));
            let serving = matches!(local.have, Have::Up { epoch, .. } if epoch == placement.epoch);
            local.stale = (!serving).then_some(placement.epoch);
        }
    }

    /// What to do now. Call it again after every change of the state, the situation, a finished
    /// sequence, and at [`Agent::next_deadline`].
    pub fn plan(&mut self, now: BootTime, state: &ClusterState, situation: Situation) -> Vec<Action> {
        if !situation.caught_up {
            return Vec::new();
        }
        let tags: BTreeSet<Tag> = state.resources.keys().chain(self.locals.keys()).cloned().collect();
        let mut actions = Vec::new();
        for tag in tags {
            let want = self.want(state, situation, &tag);
            let local = self.locals.entry(tag.clone()).or_insert_with(|| Local::new(Have::Down));
            actions.extend(next(local, &tag, want, now, situation));
        }
        self.locals.retain(|tag, l| {
            l.have != Have::Down || l.running.is_some() || state.resources.contains_key(tag)
        });
        actions
    }

    fn want(&self, state: &ClusterState, situation: Situation, tag: &Tag) -> Want {
        let Some(placement) = state.placements.get(tag) else { return Want::Nothing };
        let Some(grant) = placement.grant.filter(|g| g.owner == self.me) else { return Want::Nothing };
        let trusted = state.nodes.get(&self.me).is_some_and(|n| n.lease_epoch == grant.lease_epoch)
            && situation.lease_epoch == grant.lease_epoch;
        match grant.phase {
            Phase::Stopping => Want::Nothing,
            Phase::Starting | Phase::InService if !trusted => Want::Nothing,
            Phase::Starting | Phase::InService if !situation.lease_valid => {
                if situation.guarded {
                    Want::Hold
                } else {
                    Want::Nothing
                }
            }
            Phase::Starting | Phase::InService => {
                Want::Run { epoch: placement.epoch, lease_epoch: grant.lease_epoch }
            }
        }
    }

    /// A sequence ended. `interval` is the time to the next quickcheck. Answers the sequence that has to
    /// follow at once: a failed quickcheck goes on to local recovery.
    pub fn finished(
        &mut self,
        tag: &Tag,
        result: Result<(), String>,
        now: BootTime,
        interval: Duration,
        situation: Situation,
    ) -> Option<Action> {
        let local = self.locals.get_mut(tag)?;
        let ran = local.running.take()?;
        let mut follows = None;
        let up = Have::Up { epoch: ran.epoch, check_at: now.after(interval) };
        local.have = match (ran.operation, result) {
            (Operation::Remove, Ok(())) => Have::Down,
            (Operation::Remove, Err(_)) => Have::Unclear { retry_at: now.after(REMOVE_RETRY) },
            (Operation::Restore | Operation::Quickcheck | Operation::Recover, Ok(())) => {
                local.failed = None;
                up
            }
            (Operation::Quickcheck, Err(_)) if ran.cancelled => up,
            // While the kernel keeps this node silent no check can succeed, and none means anything.
            (Operation::Quickcheck, Err(_)) if !situation.lease_valid => up,
            (Operation::Quickcheck, Err(_)) => {
                let operation = Operation::Recover;
                local.running = Some(Running { operation, ..ran });
                let (epoch, lease_epoch) = (ran.epoch, ran.lease_epoch);
                follows = Some(Action::Start { tag: tag.clone(), operation, epoch, lease_epoch });
                up
            }
            (Operation::Restore | Operation::Recover, Err(reason)) => {
                if !ran.cancelled && situation.lease_valid {
                    local.failed = Some((ran.epoch, reason));
                }
                Have::Unclear { retry_at: now }
            }
        };
        follows
    }

    /// Look at these soon: their address or link changed.
    pub fn touched(&mut self, mut is_touched: impl FnMut(&Tag) -> bool, now: BootTime) {
        for (tag, local) in &mut self.locals {
            if let Have::Up { check_at, .. } = &mut local.have
                && is_touched(tag)
            {
                *check_at = (*check_at).min(now);
            }
        }
    }

    /// What the cluster has not yet been told, or has not yet taken note of.
    pub fn reports(&self, state: &ClusterState) -> Vec<Report> {
        let report = |tag: &Tag, local: &Local| {
            let placement = state.placements.get(tag)?;
            let grant = placement.grant.filter(|g| g.owner == self.me)?;
            let epoch = placement.epoch;
            let outcome = match (local.have, grant.phase) {
                (Have::Up { epoch: e, .. }, Phase::Starting) if e == epoch => Outcome::Started,
                (Have::Down, Phase::Stopping) if local.running.is_none() => Outcome::Released,
                (Have::Down, Phase::Starting | Phase::InService) if local.stale == Some(epoch) => {
                    let me = state.nodes.get(&self.me).filter(|n| n.standing == Standing::Member)?;
                    (local.running.is_none() && me.lease_epoch == grant.lease_epoch)
                        .then_some(Outcome::Restarted)?
                }
                (Have::Down, Phase::Starting | Phase::InService) if local.running.is_none() => {
                    let (_, reason) = local.failed.as_ref().filter(|(e, _)| *e == epoch)?;
                    Outcome::Failed { reason: reason.clone() }
                }
                (Have::Up { .. } | Have::Down | Have::Unclear { .. }, _) => return None,
            };
            Some(Report { tag: tag.clone(), epoch, outcome })
        };
        self.locals.iter().filter_map(|(tag, local)| report(tag, local)).collect()
    }

    /// This node was deposed, uses its new lease epoch, and has nothing left here.
    pub fn may_rejoin(&self, state: &ClusterState, situation: Situation) -> Option<LeaseEpoch> {
        let me = state.nodes.get(&self.me).filter(|n| n.standing == Standing::Deposed)?;
        let clear = self.locals.values().all(|l| l.have == Have::Down && l.running.is_none());
        (situation.caught_up && clear && situation.lease_epoch == me.lease_epoch).then_some(me.lease_epoch)
    }

    pub fn is_up(&self, tag: &Tag) -> bool {
        self.locals.get(tag).is_some_and(|l| matches!(l.have, Have::Up { .. }))
    }

    /// Something of the resource is, or may be, here.
    pub fn has(&self, tag: &Tag) -> bool {
        self.locals.get(tag).is_some_and(|l| l.have != Have::Down || l.running.is_some())
    }

    /// When [`Agent::plan`] has something to do by the passing of time alone.
    pub fn next_deadline(&self) -> Option<BootTime> {
        let due = |l: &Local| match l.have {
            Have::Up { check_at, .. } if l.running.is_none() => Some(check_at),
            Have::Unclear { retry_at } if l.running.is_none() => Some(retry_at),
            Have::Up { .. } | Have::Unclear { .. } | Have::Down => None,
        };
        self.locals.values().filter_map(due).min()
    }
}

fn next(local: &mut Local, tag: &Tag, want: Want, now: BootTime, situation: Situation) -> Option<Action> {
    if let Some(running) = &mut local.running {
        let still_wanted = match (want, running.operation) {
            (_, Operation::Remove) | (Want::Hold, _) => true,
            (Want::Run { epoch, .. }, _) => epoch == running.epoch,
            (Want::Nothing, _) => false,
        };
        if still_wanted || running.cancelled {
            return None;
        }
        running.cancelled = true;
        return Some(Action::Cancel { tag: tag.clone() });
    }
    let (operation, epoch, lease_epoch) = match (local.have, want) {
        (Have::Unclear { retry_at }, _) if now < retry_at => return None,
        (Have::Unclear { .. }, _) | (Have::Up { .. }, Want::Nothing) => {
            (Operation::Remove, 0, situation.lease_epoch)
        }
        (Have::Up { epoch: had, .. }, Want::Run { epoch, .. }) if had != epoch => {
            (Operation::Remove, 0, situation.lease_epoch)
        }
        (Have::Up { check_at, .. }, Want::Run { epoch, lease_epoch }) if now >= check_at => {
            (Operation::Quickcheck, epoch, lease_epoch)
        }
        (Have::Down, Want::Run { epoch, lease_epoch })
            if local.stale != Some(epoch) && local.failed.as_ref().is_none_or(|(e, _)| *e != epoch) =>
        {
            (Operation::Restore, epoch, lease_epoch)
        }
        (Have::Up { .. } | Have::Down, Want::Run { .. } | Want::Hold) | (Have::Down, Want::Nothing) => {
            return None;
        }
    };
    local.running = Some(Running { operation, epoch, lease_epoch, cancelled: false });
    Some(Action::Start { tag: tag.clone(), operation, epoch, lease_epoch })
}

#[cfg(test)]
mod tests;
