//! One resource on this node: what is here, what runs, and what comes next.

mod ended;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use super::{
    Action, Operation, Situation, Start,
    devices::{self, DeviceHealth, Devices},
    standoff::Standoff,
};
use crate::core::{cloud::CloudReport, time::BootTime};
use crate::model::{Addresses, Epoch, LeaseEpoch, NodeId, NodeSettings, Resource, Switchback, Tag};

/// What of a resource is on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    /// As it was when it was brought up: its way of accepting packets and its source stay until the next.
    pub resource: Arc<Resource>,
    /// All that may be here.
    pub addresses: Arc<Addresses>,
    pub device: String,
}

/// What the cluster wants of this node about one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Nothing,
    Run {
        epoch: Epoch,
        lease_epoch: LeaseEpoch,
    },
    /// Neither start nor stop: wait until the situation is clear.
    Hold,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Have {
    Down,
    Up {
        epoch: Epoch,
        check_at: BootTime,
        /// A check or a switch has failed.
        broken: bool,
    },
    /// Something may be left here: it must be removed before anything else.
    Unclear {
        retry_at: BootTime,
        /// Why it could not be removed, though it is known not to answer: its gate is shut and the kernel
        /// guards it.
        silent: Option<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Running {
    pub operation: Operation,
    epoch: Epoch,
    lease_epoch: LeaseEpoch,
    cancelled: bool,
    /// How often the addresses had been changed when it began.
    alterations: u64,
    /// What is here when it succeeds.
    target: Here,
}

#[derive(Debug)]
pub(super) struct Local {
    pub have: Have,
    pub here: Option<Here>,
    /// Of the addresses here, those that must be in service; others were given up or added since, and
    /// that has not yet succeeded.
    sure: Arc<Addresses>,
    pub running: Option<Running>,
    /// The grant that failed here, until the cluster has taken note.
    pub failed: Option<(Epoch, String)>,
    /// A grant of before this daemon started, and no longer in service here: not to be used.
    pub stale: Option<Epoch>,
    /// Why it must not stay in service here.
    pub give_up: Option<String>,
    /// Why it failed last, as long as that is not mended.
    fault: String,
    /// So often local recovery mended it under the present grant, and why it had to, the last time.
    pub recoveries: (u32, String),
    /// Failed changes of the addresses, or removals, without a success since; and when to try again.
    failures: u32,
    amend_at: BootTime,
    /// Why the last change of the addresses failed, as of that many changes.
    trouble: Option<(u64, String)>,
    /// Interfaces on which it failed, until when they are left alone while another works.
    avoid: BTreeMap<String, BootTime>,
    /// Checks and recoveries since the last bring-up, of what is in EC2.
    checks: u32,
    /// From EC2, by the sequence that is about to end.
    pub lesson: Option<CloudReport>,
    /// With what else is on its interface there.
    standoff: Standoff,
}

/// What a decision about a resource depends on, beside what is here.
pub(super) struct Terms<'a> {
    pub me: NodeId,
    pub now: BootTime,
    pub situation: Situation,
    pub devices: Cow<'a, Devices>,
    /// As the cluster has it now.
    pub resource: Option<&'a Arc<Resource>>,
    /// What it is about: its addresses, or those to which its routes lead.
    pub addresses: Arc<Addresses>,
    /// For what follows another resource: the interface that carries that one.
    pub carrier: Option<String>,
    /// How often its addresses were changed.
    pub alterations: u64,
    /// Recoveries of the present grant that the cluster knows of.
    pub recoveries: u32,
    /// A failure now may be mended here; otherwise it ends the grant at once.
    pub may_recover: bool,
    /// An operator works on it: nothing is checked or mended.
    pub maintenance: bool,
}

impl Terms<'_> {
    fn settings(&self) -> Option<&NodeSettings> {
        self.resource?.nodes.get(&self.me)
    }

    fn listed(&self) -> &[String] {
        self.settings().map_or(&[], |s| &s.devices)
    }

    /// Where it is brought up now, and with what.
    fn target(&self) -> Option<Here> {
        let resource = self.resource?.clone();
        let chosen = || devices::choose(self.listed(), &self.devices).to_owned();
        let device = self.carrier.clone().unwrap_or_else(chosen);
        Some(Here { resource, addresses: self.addresses.clone(), device })
    }
}

impl Local {
    pub fn new(have: Have, here: Option<Here>) -> Self {
        let sure = here.as_ref().map(|h| h.addresses.clone()).unwrap_or_default();
        Self {
            have,
            here,
            sure,
            running: None,
            failed: None,
            stale: None,
            give_up: None,
            fault: String::new(),
            recoveries: (0, String::new()),
            failures: 0,
            amend_at: BootTime::ZERO,
            trouble: None,
            avoid: BTreeMap::new(),
            checks: 0,
            lesson: None,
            standoff: Standoff::default(),
        }
    }

    /// It does not stay in service here, and its grant is not used again: it is removed as soon as all that
    /// depends on it is.
    pub fn fail(&mut self, epoch: Epoch, reason: String, now: BootTime) {
        self.failed = Some((epoch, reason));
        if self.have != Have::Down {
            self.have = Have::Unclear { retry_at: now, silent: None };
        }
    }

    /// The grant is not used again.
    pub fn has_failed(&self, epoch: Epoch) -> bool {
        self.failed.as_ref().is_some_and(|(e, _)| *e == epoch)
    }

    /// What its neighbours in a hierarchy look at.
    pub fn outline(&self) -> (Have, Option<Operation>, bool) {
        (self.have.clone(), self.running.as_ref().map(|r| r.operation), self.failed.is_some())
    }

    /// Something runs that takes it out of service, if only for a moment.
    pub fn is_moving(&self) -> bool {
        let moves = |o| matches!(o, Operation::Remove | Operation::Recover);
        self.running.as_ref().is_some_and(|r| moves(r.operation))
    }

    /// Nothing is here, or is about to be.
    pub fn is_clear(&self) -> bool {
        self.have == Have::Down && self.running.is_none()
    }

    /// What is left here, if anything, can't answer.
    pub fn is_silent(&self, situation: Situation) -> bool {
        match &self.have {
            Have::Down => self.running.is_none(),
            Have::Unclear { silent, .. } => silent.is_some() && (situation.guarded || self.is_cloud()),
            Have::Up { .. } => false,
        }
    }

    /// What may be here in EC2 is what the resource that there is now would bring there, and not what an earlier one of
    /// its tag did.
    fn is_meant(&self, terms: &Terms) -> bool {
        let cloud = self.here.as_ref().and_then(|here| here.resource.cloud());
        cloud.is_some() && cloud == terms.resource.and_then(|r| r.cloud())
    }

    /// It is in EC2, and no kernel has a part in it.
    pub fn is_cloud(&self) -> bool {
        self.here.as_ref().is_some_and(|here| here.resource.cloud().is_some())
    }

    /// How the last change of the addresses ended, if it did: in service with all of them, or why not.
    pub fn amended(
        &self,
        resource: &Resource,
        addresses: &Addresses,
        alterations: u64,
    ) -> Option<Option<&str>> {
        let here = self.here.as_ref()?;
        let Have::Up { broken: false, .. } = self.have else { return None };
        let whole =
            here.resource.id == resource.id && self.sure == here.addresses && *here.addresses == *addresses;
        let trouble = || self.trouble.as_ref().filter(|(of, _)| *of == alterations);
        if whole { Some(None) } else { trouble().map(|(_, reason)| Some(reason.as_str())) }
    }

    /// When time alone makes a difference again.
    pub fn due(&self, now: BootTime) -> Option<BootTime> {
        if self.running.is_some() {
            return None;
        }
        let times = match &self.have {
            Have::Up { check_at, .. } => [Some(*check_at), Some(self.amend_at)],
            Have::Unclear { retry_at, .. } => [Some(*retry_at), None],
            Have::Down => [None, None],
        };
        times.into_iter().flatten().filter(|t| *t > now).min()
    }

    /// Cancels or begins something, if that is called for.
    pub fn next(&mut self, tag: &Tag, want: Want, mut terms: Terms) -> Option<Action> {
        self.shun(&mut terms);
        let terms = &terms;
        if self.running.is_some() {
            return self.is_overtaken(want, terms).then(|| {
                if let Some(running) = &mut self.running {
                    running.cancelled = true;
                }
                Action::Cancel { tag: tag.clone() }
            });
        }
        if let (Have::Up { epoch, .. }, Some(reason)) = (&self.have, self.give_up.take()) {
            let epoch = *epoch;
            self.fail(epoch, reason, terms.now);
            return None;
        }
        let (operation, epoch, lease_epoch) = self.choose(want, terms)?;
        if operation == Operation::Restore {
            self.give_up = None;
        }
        let target = self.target(operation, terms)?;
        let was = self.here.clone();
        self.enter(operation, &target);
        self.running = Some(Running {
            operation,
            epoch,
            lease_epoch,
            cancelled: false,
            alterations: terms.alterations,
            target: target.clone(),
        });
        let borne = self.standoff.borne(terms.now);
        let tag = tag.clone();
        Some(Action::Start(Box::new(Start { tag, operation, epoch, lease_epoch, target, was, borne })))
    }

    fn is_overtaken(&self, want: Want, terms: &Terms) -> bool {
        let Some(running) = &self.running else { return false };
        if running.cancelled {
            return false;
        }
        let unwanted = match (want, running.operation) {
            (_, Operation::Remove) | (Want::Hold, _) => false,
            (Want::Run { epoch, .. }, _) => epoch != running.epoch,
            (Want::Nothing, _) => true,
        };
        let runs = matches!(want, Want::Run { .. });
        let delays = match running.operation {
            Operation::Quickcheck => {
                self.give_up.is_some()
                    || self.refuge(terms).is_some()
                    || (self.is_to_change(terms) && terms.now >= self.amend_at)
            }
            Operation::Amend => self.refuge(terms).is_some(),
            Operation::Restore | Operation::Remove | Operation::Recover | Operation::Switch => false,
        };
        unwanted || (runs && delays)
    }

    fn choose(&mut self, want: Want, terms: &Terms) -> Option<(Operation, Epoch, LeaseEpoch)> {
        let remove = (Operation::Remove, 0, terms.situation.lease_epoch);
        match (&self.have, want) {
            // It was not taken off in EC2, where a bring-up makes it right in any case: under the next grant, if this one
            // is not used any more.
            (Have::Unclear { silent: Some(_), .. }, Want::Run { epoch, lease_epoch })
                if self.is_meant(terms) && !self.has_failed(epoch) =>
            {
                (self.stale != Some(epoch)).then_some((Operation::Restore, epoch, lease_epoch))
            }
            (Have::Unclear { retry_at, .. }, _) if terms.now < *retry_at => None,
            (Have::Unclear { .. }, _) | (Have::Up { .. }, Want::Nothing) => Some(remove),
            (Have::Up { epoch: had, .. }, Want::Run { epoch, .. }) if *had != epoch => Some(remove),
            (Have::Up { .. }, Want::Hold) => None,
            (Have::Up { check_at, broken, .. }, Want::Run { epoch, lease_epoch }) => {
                let (check_due, broken) = (terms.now >= *check_at, *broken);
                match self.upkeep(check_due, broken, terms)? {
                    Operation::Remove => Some(remove),
                    operation => Some((operation, epoch, lease_epoch)),
                }
            }
            (Have::Down, Want::Run { epoch, lease_epoch }) => (self.stale != Some(epoch)
                && !self.has_failed(epoch))
            .then_some((Operation::Restore, epoch, lease_epoch)),
            (Have::Down, Want::Nothing | Want::Hold) => None,
        }
    }

    /// What a resource in service needs, the most urgent first.
    fn upkeep(&mut self, check_due: bool, broken: bool, terms: &Terms) -> Option<Operation> {
        let here = self.here.as_ref()?;
        let resource = terms.resource?;
        if here.resource.id != resource.id {
            return Some(Operation::Remove);
        }
        if terms.maintenance {
            // What was found before the work began says nothing about what is after it.
            if let Have::Up { check_at, broken, .. } = &mut self.have {
                (*check_at, *broken) = (terms.now, false);
            }
            return None;
        }
        if broken && !terms.may_recover {
            let Have::Up { epoch, .. } = self.have else { return None };
            self.fail(epoch, self.fault.clone(), terms.now);
            return None;
        }
        if broken {
            // A recovery knows only what is wanted: what else is here has to go as well.
            let same = here.addresses == terms.addresses;
            return Some(if same { Operation::Recover } else { Operation::Remove });
        }
        if self.refuge(terms).is_some() {
            // The same: half of a change can't be taken along.
            return Some(if self.sure == here.addresses { Operation::Switch } else { Operation::Remove });
        }
        if self.is_to_change(terms) && terms.now >= self.amend_at {
            let kept = here.resource.nodes.get(&terms.me).is_some_and(|s| !s.restore_and_recover);
            if !kept {
                return Some(Operation::Amend);
            }
            // It was never put on the network (row IP-13): there is nothing to change.
            let addresses = terms.addresses.clone();
            self.sure = addresses.clone();
            self.here = Some(Here { addresses, ..here.clone() });
        }
        if self.home(terms).is_some() {
            return Some(Operation::Switch);
        }
        (check_due && !self.sure.is_empty()).then_some(Operation::Quickcheck)
    }

    /// The other interface to which it has to go at once.
    fn refuge<'a>(&self, terms: &'a Terms) -> Option<&'a str> {
        self.moves(terms).then_some(())?;
        let used = &self.here.as_ref()?.device;
        match &terms.carrier {
            Some(carrier) => (carrier != used).then_some(carrier),
            None => devices::refuge(terms.listed(), used, &terms.devices),
        }
    }

    /// The better interface to which it may return.
    fn home<'a>(&self, terms: &'a Terms) -> Option<&'a str> {
        let here = self.here.as_ref()?;
        let automatic = terms.resource?.switchback == Switchback::Automatic;
        let settled = self.sure == here.addresses && !self.is_to_change(terms);
        (automatic && settled && self.moves(terms)).then_some(())?;
        devices::home(terms.listed(), &here.device, &terms.devices)
    }

    /// It is on the network through an interface that may be changed.
    fn moves(&self, terms: &Terms) -> bool {
        let brought_up = self.here.as_ref().and_then(|h| h.resource.nodes.get(&terms.me));
        let now = terms.settings();
        [brought_up, now].iter().all(|s| s.is_some_and(|s| s.restore_and_recover && !s.physical))
    }

    /// Its addresses are to be others than they are.
    fn is_to_change(&self, terms: &Terms) -> bool {
        let (Some(here), Some(resource)) = (&self.here, terms.resource) else { return false };
        matches!(self.have, Have::Up { .. })
            && here.resource.id == resource.id
            && (self.sure != here.addresses || here.addresses != terms.addresses)
    }

    fn target(&self, operation: Operation, terms: &Terms) -> Option<Here> {
        let here = || self.here.clone();
        match operation {
            Operation::Restore | Operation::Recover => terms.target(),
            // As it was brought here: the resource may have been deleted since, and its tag may stand for
            // another address by now.
            Operation::Remove => here().or_else(|| terms.target()),
            Operation::Switch => {
                let device = self.refuge(terms).or_else(|| self.home(terms))?.to_owned();
                Some(Here { device, ..here()? })
            }
            Operation::Amend => Some(Here { addresses: terms.addresses.clone(), ..here()? }),
            Operation::Quickcheck => {
                let mut target = Here { addresses: self.sure.clone(), ..here()? };
                // Of the settings this one takes effect at once (row IP-13).
                let checked = terms.settings().is_none_or(|s| s.restore_and_recover);
                let of = |r: &Resource| r.nodes.get(&terms.me).is_none_or(|s| s.restore_and_recover);
                if checked != of(&target.resource)
                    && let Some(settings) = Arc::make_mut(&mut target.resource).nodes.get_mut(&terms.me)
                {
                    settings.restore_and_recover = checked;
                }
                Some(target)
            }
        }
    }

    /// From now on all that the operation may put here may be here.
    fn enter(&mut self, operation: Operation, target: &Here) {
        match (operation, &mut self.here) {
            (Operation::Quickcheck | Operation::Remove, _) => {}
            (Operation::Amend, Some(here)) => {
                self.sure = Arc::new(self.sure.within(&target.addresses.hosts()));
                here.addresses = Arc::new(here.addresses.union(&target.addresses));
            }
            (Operation::Restore | Operation::Recover | Operation::Switch | Operation::Amend, here) => {
                *here = Some(target.clone());
                self.sure = target.addresses.clone();
            }
        }
    }

    /// Interfaces on which it failed lately count as failed.
    fn shun(&self, terms: &mut Terms) {
        for (name, until) in &self.avoid {
            if terms.now < *until && terms.devices.contains_key(name) {
                terms.devices.to_mut().insert(name.clone(), DeviceHealth::Failed);
            }
        }
    }
}
