//! What is done on a host to bring virtual addresses in service, take them out, check, recover, move and
//! exchange them (rows IP-5 to IP-10, IP-12, IP-13, NM-5): state machines that emit one [`Command`] at a
//! time and are fed its [`Effect`].
//!
//! Invariant: the kernel never answers for an address on its own. Each is programmed in the datapath before
//! it is added, and leaves the datapath only when it is known to be gone.

mod admit;
mod amend;
mod answer;
mod clear;
mod connectivity;
mod log;
mod quickcheck;
mod recover;
mod remove;
mod restore;
mod settle;
mod survey;
mod switch;
#[cfg(test)]
mod tests;
mod undo;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;

pub use self::{
    amend::Amend, quickcheck::Quickcheck, recover::Recover, remove::Remove, restore::Restore, switch::Switch,
};
use super::{
    cloud::{CloudContext, CloudReport, CloudSequence, Verb},
    command::{Command, Effect, Place},
};
use crate::model::{Accept, Addresses, Epoch, ResourceId, Tunables};

/// The facts a sequence works with; read when it begins and kept until it ends (row IP-14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The number of the resource.
    pub group: ResourceId,
    /// At least one.
    pub addresses: Arc<Addresses>,
    /// The one of the resource's interfaces that carries them, or shall.
    pub device: String,
    pub accept: Accept,
    /// Of the grant under which the address is in service.
    pub epoch: Epoch,
    /// A stationary address of this host, never touched (row IP-5).
    pub physical: bool,
    /// False: in service without being on the network (row IP-13).
    pub restore_and_recover: bool,
    /// The subnet's route has the address as its source while it is in service (row IP-12).
    pub source: bool,
    /// Of this node, by subnet; for those that have one.
    pub ping_lists: BTreeMap<IpNet, Vec<IpAddr>>,
    /// Why no answer to a ping from the addresses could come back to this node yet, if so.
    pub unreached: Option<String>,
    pub tunables: Tunables,
}

impl Context {
    fn place(&self) -> Place {
        Place { addresses: self.addresses.clone(), device: self.device.clone(), accept: self.accept }
    }

    /// The source address setting has something to set (row IP-12).
    fn sets_source(&self) -> bool {
        self.source && has_ipv4(&self.addresses)
    }
}

fn has_ipv4(addresses: &Addresses) -> bool {
    addresses.subnets().any(|subnet| subnet.addr().is_ipv4())
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The first input of a sequence, and only that.
    Start,
    /// What came of the command that the last step asked for.
    Effect(Effect),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Perform the command and step again with its effect. The notes say what is done, and what was
    /// skipped on the way.
    Do { command: Command, notes: Vec<StepNote> },
    /// The sequence has ended.
    Done { result: Result<(), Failure>, notes: Vec<StepNote> },
}

/// One line for the log and for `vipctl events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepNote {
    /// Stable dotted name: `restore.announce`.
    pub kind: &'static str,
    pub message: String,
    /// Said by a periodic check that found nothing wrong: for the debug log, not for the events.
    pub routine: bool,
}

/// Why a sequence failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    /// Names the address, what was tried, what happened and what to do.
    pub reason: String,
    /// This host is known not to answer for the addresses any more. While it is not, the node must not
    /// report that it has given them up; it runs a remove, or waits until its lease has ended.
    pub silent: bool,
    pub cause: Cause,
    /// What is served all the same: after a failed amend, what it did not touch and what it could not take
    /// away: the `before` of the next amend. Empty after all others.
    pub in_service: Addresses,
}

impl Failure {
    fn other(reason: String, silent: bool) -> Self {
        Self { reason, silent, cause: Cause::Other, in_service: Addresses::default() }
    }
}

/// Whether another interface might do better (row NM-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It is missing, down, without carrier, or nobody answers there.
    Interface,
    /// EC2 did not answer: nothing is known, and another node would know no more. Or it does not permit what is still
    /// lacking, while the rest is in service.
    Unanswered,
    /// The grant, or the lease, does not hold any more: nothing was tried.
    Overtaken,
    /// Anything else.
    Other,
}

/// One run of one of the sequences.
///
/// The runner bounds the whole by [`Sequence::limit`]. It may drop a sequence that overruns, or is
/// overtaken, at any step; then it performs [`Sequence::owed`], and runs a remove if that was a restore,
/// a recover or a switch. After an amend it runs the same again, or a remove of the addresses of both sets.
#[derive(Clone, Debug)]
pub enum Sequence {
    Restore(Restore),
    Remove(Remove),
    Quickcheck(Quickcheck),
    Recover(Recover),
    Switch(Switch),
    Amend(Amend),
    /// Any of them, for what is in EC2.
    Cloud(Box<CloudSequence>),
}

impl Sequence {
    /// Brings the address in service (row IP-6).
    pub fn restore(context: Context) -> Self {
        Self::Restore(Restore::new(context))
    }

    /// Takes the address out of service (row IP-7).
    pub fn remove(context: Context) -> Self {
        Self::Remove(Remove::new(context))
    }

    /// Looks whether the address is in service and of use (row IP-8).
    pub fn quickcheck(context: Context) -> Self {
        Self::Quickcheck(Quickcheck::new(context))
    }

    /// Takes the address out of service and brings it back on the same node (row IP-9).
    pub fn recover(context: Context) -> Self {
        Self::Recover(Recover::new(context))
    }

    /// Moves addresses in service from another interface of this node to the context's (row NM-5).
    pub fn switch(context: Context, from: String) -> Self {
        Self::Switch(Switch::new(context, from))
    }

    /// Brings what is new of the context's addresses in service beside those that are, and takes away those
    /// of `before` that are no longer the resource's. `before`: what is in service, and whatever else may be
    /// here of the resource's former addresses.
    pub fn amend(context: Context, before: Addresses) -> Self {
        Self::Amend(Amend::new(context, before))
    }

    /// Any of them for a resource of EC2 (rows EC2-1 to EC2-4).
    pub fn cloud(verb: Verb, context: CloudContext) -> Self {
        Self::Cloud(Box::new(CloudSequence::new(verb, context)))
    }

    pub fn step(&mut self, input: Input) -> Step {
        match self {
            Self::Restore(s) => s.step(input),
            Self::Remove(s) => s.step(input),
            Self::Quickcheck(s) => s.step(input),
            Self::Recover(s) => s.step(input),
            Self::Switch(s) => s.step(input),
            Self::Amend(s) => s.step(input),
            Self::Cloud(s) => s.step(input),
        }
    }

    /// What must still be done if the sequence is dropped now: a device that it stopped is started
    /// again. Everything else is undone by a remove, or after an amend by another one.
    pub fn owed(&self) -> Option<Command> {
        match self {
            Self::Restore(s) => s.owed(),
            Self::Recover(s) => s.owed(),
            Self::Remove(_) | Self::Quickcheck(_) | Self::Switch(_) | Self::Amend(_) | Self::Cloud(_) => None,
        }
    }

    /// The verb that begins the kinds of its notes.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Restore(_) => "restore",
            Self::Remove(_) => "remove",
            Self::Quickcheck(_) => "quickcheck",
            Self::Recover(_) => "recover",
            Self::Switch(_) => "switch",
            Self::Amend(_) => "amend",
            Self::Cloud(s) => s.verb().name(),
        }
    }

    /// How long the whole may take; longer is a failure.
    pub fn limit(&self) -> Duration {
        match self {
            Self::Restore(s) => s.context().tunables.restore_timeout,
            Self::Remove(s) => s.context().tunables.remove_timeout,
            Self::Quickcheck(s) => s.context().tunables.quickcheck_timeout,
            Self::Recover(s) => s.context().tunables.recover_timeout,
            Self::Switch(s) => s.context().tunables.restore_timeout,
            // Both a removal and a bring-up.
            Self::Amend(s) => s.context().tunables.recover_timeout,
            Self::Cloud(s) => s.limit(),
        }
    }

    /// How it ends when the limit has passed.
    pub fn overrun(&mut self) -> Step {
        if let Self::Cloud(s) = self {
            return s.overrun();
        }
        let (name, limit) = (self.name(), self.limit());
        let reason = format!("{name} did not finish within {limit:?}, which is its limit");
        Step::Done { result: Err(Failure::other(reason, false)), notes: Vec::new() }
    }

    /// What it has learned of EC2.
    pub fn cloud_report(&self) -> Option<&CloudReport> {
        match self {
            Self::Cloud(s) => Some(s.report()),
            Self::Restore(_)
            | Self::Remove(_)
            | Self::Quickcheck(_)
            | Self::Recover(_)
            | Self::Switch(_)
            | Self::Amend(_) => None,
        }
    }
}
