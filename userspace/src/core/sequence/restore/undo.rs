//! What a restore that failed leaves behind: a closed gate, always, and no address of ours.

use std::sync::Arc;

use super::{Known, answer};
use crate::{
    core::{
        command::{Command, Effect, Place},
        sequence::{Context, Failure, log::Log},
    },
    model::Addresses,
};

/// ```text
///  Gate --not looked--> Look --not known--> undone
///    |                    | known
///    |<-------------------+
///    |--ours or added, or foreign and not programmed--> Address --gone--> Program
///    |                                                    +--still there--> undone (programmed, gate closed)
///    |--nothing to delete--> Program --> undone
///    +--all foreign and programmed, or elsewhere--> undone (gate closed)
/// ```
///
/// The gate is closed even if this run never opened it: the address may be in service from before.
/// It stays in the datapath unless it is known to be gone, because the kernel would answer on its own.
#[derive(Clone, Debug)]
pub(super) struct Undo {
    at: At,
    /// Why the restore failed, and what could not be undone.
    reason: String,
    silent: bool,
    known: Known,
}

#[derive(Clone, Debug)]
enum At {
    Gate,
    Look,
    /// What is out of this host when it is deleted.
    Address {
        gone: Arc<Addresses>,
    },
    Program,
}

pub(super) enum Next {
    /// A note for it is in the log.
    Run(Undo, Command),
    Undone(Failure),
}

impl Undo {
    pub(super) fn begin(reason: String, known: Known, context: &Context, log: &mut Log) -> Next {
        log.say("restore.undo-gate", format!("{reason}: close the gate of {}", context.addresses));
        let undo = Self { at: At::Gate, reason, silent: false, known };
        Next::Run(undo, Command::CloseGate { group: context.group })
    }

    pub(super) fn step(mut self, effect: Effect, context: &Context, log: &mut Log) -> Next {
        match self.at.clone() {
            At::Gate => {
                match answer::done(effect) {
                    Ok(()) => self.silent = true,
                    Err(why) => self.also(&format!("its gate cannot be closed: {why}")),
                }
                self.after_gate(context, log)
            }
            At::Look => match answer::presence(effect) {
                Ok(presence) => {
                    self.known.found = Some(presence);
                    self.after_gate(context, log)
                }
                Err(why) => {
                    self.also(&format!("nobody knows whether it is on {}: {why}", context.device));
                    self.silent = false;
                    self.undone()
                }
            },
            At::Address { gone } => match answer::done(effect) {
                Ok(()) => self.unprogram(gone, context, log),
                Err(why) => {
                    let what = format!("it cannot be deleted from {}: {why}", context.device);
                    self.also(&what);
                    // Only the datapath keeps the kernel from answering for an address that it has.
                    self.silent &= self.known.programmed;
                    self.undone()
                }
            },
            At::Program => {
                match answer::done(effect) {
                    // Out of the maps, and no address: nothing is left that could answer.
                    Ok(()) => self.silent = true,
                    Err(why) => self.also(&format!("it cannot be taken out of the datapath: {why}")),
                }
                self.undone()
            }
        }
    }

    fn after_gate(mut self, context: &Context, log: &mut Log) -> Next {
        let Context { addresses, device, .. } = context;
        let Some(found) = &self.known.found else {
            log.say("restore.undo-look", format!("is {addresses} on {device}"));
            self.at = At::Look;
            return Next::Run(self, Command::ReadAddresses { place: context.place() });
        };
        // What others have put here stays, if the datapath keeps it silent.
        let foreign = if self.known.programmed { Addresses::default() } else { found.foreign.clone() };
        let added = self.known.added.as_deref().cloned().unwrap_or_default();
        let delete = found.ours.union(&added).union(&foreign);
        let gone = Arc::new(delete.union(&found.absent(addresses)));
        if delete.is_empty() {
            return if gone.is_empty() { self.undone() } else { self.unprogram(gone, context, log) };
        }
        log.say("restore.undo-address", format!("delete {delete} from {device}"));
        self.at = At::Address { gone };
        let place = Place { addresses: Arc::new(delete), ..context.place() };
        Next::Run(self, Command::DeleteAddresses { place })
    }

    fn unprogram(mut self, gone: Arc<Addresses>, context: &Context, log: &mut Log) -> Next {
        log.say("restore.undo-program", format!("take {gone} out of the datapath"));
        self.at = At::Program;
        Next::Run(self, Command::Unprogram { group: context.group, addresses: gone })
    }

    fn also(&mut self, what: &str) {
        self.reason.push_str("; moreover ");
        self.reason.push_str(what);
    }

    fn undone(self) -> Next {
        Next::Undone(Failure { reason: self.reason, silent: self.silent })
    }
}
