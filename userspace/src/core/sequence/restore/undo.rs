//! What a restore that failed leaves behind: a closed gate, always, and no address of ours.

use super::{Whereabouts, answer};
use crate::core::{
    command::{Command, Effect, Presence},
    sequence::{Context, Failure, log::Log},
};

/// ```text
///  Gate --not looked--> Look --not known--> undone
///    |                    | known
///    |<-------------------+
///    |--absent-------------------------------> Program --> undone
///    |--ours, or foreign and not programmed--> Address --gone--> Program
///    |                                           +--still there--> undone (programmed, gate closed)
///    +--foreign and programmed, or elsewhere--> undone (gate closed)
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
    whereabouts: Whereabouts,
    programmed: bool,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Gate,
    Look,
    Address,
    Program,
}

pub(super) enum Next {
    /// A note for it is in the log.
    Run(Undo, Command),
    Undone(Failure),
}

impl Undo {
    pub(super) fn begin(
        reason: String,
        whereabouts: Whereabouts,
        programmed: bool,
        context: &Context,
        log: &mut Log,
    ) -> Next {
        let ip = context.ip();
        log.say("restore.undo-gate", format!("{reason}: close the gate of {ip}"));
        let undo = Self { at: At::Gate, reason, silent: false, whereabouts, programmed };
        Next::Run(undo, Command::CloseGate { address: ip })
    }

    pub(super) fn step(mut self, effect: Effect, context: &Context, log: &mut Log) -> Next {
        match self.at {
            At::Gate => {
                match answer::done(effect) {
                    Ok(()) => self.silent = true,
                    Err(why) => self.also(&format!("its gate cannot be closed: {why}")),
                }
                self.after_gate(context, log)
            }
            At::Look => match answer::presence(effect) {
                Ok(presence) => {
                    self.whereabouts = match presence {
                        Presence::Absent => Whereabouts::Absent,
                        Presence::Present { ours: true } => Whereabouts::Ours,
                        Presence::Present { ours: false } => Whereabouts::Foreign,
                        Presence::Misplaced { .. } => Whereabouts::Elsewhere,
                    };
                    self.after_gate(context, log)
                }
                Err(why) => {
                    self.also(&format!("nobody knows whether it is on {}: {why}", context.device));
                    self.silent = false;
                    self.undone()
                }
            },
            At::Address => match answer::done(effect) {
                Ok(()) => self.unprogram(context, log),
                Err(why) => {
                    let what = format!("it cannot be deleted from {}: {why}", context.device);
                    self.also(&what);
                    // Only the datapath keeps the kernel from answering for an address that it has.
                    self.silent &= self.programmed;
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
        let (address, device) = (context.address, &context.device);
        match (self.whereabouts, self.programmed) {
            (Whereabouts::Unknown, true | false) => {
                log.say("restore.undo-look", format!("is {address} on {device}"));
                self.at = At::Look;
                let command = Command::ReadAddress { address, device: device.clone() };
                Next::Run(self, command)
            }
            (Whereabouts::Elsewhere, true | false) | (Whereabouts::Foreign, true) => self.undone(),
            (Whereabouts::Absent, true | false) => self.unprogram(context, log),
            (Whereabouts::Ours, true | false) | (Whereabouts::Foreign, false) => {
                log.say("restore.undo-address", format!("delete {address} from {device}"));
                self.at = At::Address;
                let command = Command::DeleteAddress { address, device: device.clone() };
                Next::Run(self, command)
            }
        }
    }

    fn unprogram(mut self, context: &Context, log: &mut Log) -> Next {
        let ip = context.ip();
        log.say("restore.undo-program", format!("take {ip} out of the datapath"));
        self.at = At::Program;
        Next::Run(self, Command::Unprogram { address: ip })
    }

    fn also(&mut self, what: &str) {
        self.reason.push_str("; moreover ");
        self.reason.push_str(what);
    }

    fn undone(self) -> Next {
        Next::Undone(Failure { reason: self.reason, silent: self.silent })
    }
}
