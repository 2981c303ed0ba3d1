//! Reads effects: what was asked for, or why it is not there.

use std::net::IpAddr;

use super::{
    super::command::{Claim, Effect, LinkState, Presence},
    Input,
};

impl Input {
    /// The effect of the last command. A start in the middle is the runner's mistake and counts as a
    /// failed command, so that the sequence undoes what it did.
    pub(super) fn effect(self) -> Effect {
        match self {
            Self::Start => Effect::Failed("the sequence was started twice".to_owned()),
            Self::Effect(effect) => effect,
        }
    }
}

pub(super) fn done(effect: Effect) -> Result<(), String> {
    match effect {
        Effect::Done => Ok(()),
        Effect::Failed(reason) => Err(reason),
        other => Err(unexpected(&other)),
    }
}

pub(super) fn link(effect: Effect) -> Result<LinkState, String> {
    match effect {
        Effect::Link(state) => Ok(state),
        Effect::Failed(reason) => Err(reason),
        other => Err(unexpected(&other)),
    }
}

pub(super) fn presence(effect: Effect) -> Result<Presence, String> {
    match effect {
        Effect::Presence(presence) => Ok(presence),
        Effect::Failed(reason) => Err(reason),
        other => Err(unexpected(&other)),
    }
}

pub(super) fn claims(effect: Effect) -> Result<Vec<Claim>, String> {
    match effect {
        Effect::Claims(claims) => Ok(claims),
        Effect::Failed(reason) => Err(reason),
        other => Err(unexpected(&other)),
    }
}

pub(super) fn answers(effect: Effect) -> Result<Vec<IpAddr>, String> {
    match effect {
        Effect::Answers(answers) => Ok(answers),
        Effect::Failed(reason) => Err(reason),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(effect: &Effect) -> String {
    format!("the command was answered with {effect:?}, which it does not ask for")
}
