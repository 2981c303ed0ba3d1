//! `vipctl delete`.

use clap::Args;

use super::Session;
use crate::{
    api::{ApiError, Request},
    model::Tag,
};

/// Take a resource out of service and forget it
///
/// The ping lists of its subnet stay.
#[derive(Debug, Args)]
pub struct Delete {
    tag: Tag,
    /// Return at once, not when it is gone
    #[arg(long)]
    no_wait: bool,
}

impl Delete {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        session.order(&Request::Delete { tag: self.tag, wait: !self.no_wait })
    }
}
