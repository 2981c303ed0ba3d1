//! `vipctl out-of-service`.

use clap::Args;

use super::Session;
use crate::{
    api::{ApiError, Request},
    model::Tag,
};

/// Take a resource out of service everywhere, and all that depends on it
#[derive(Debug, Args)]
pub struct OutOfService {
    tag: Tag,
    /// Return at once, not when nobody holds it any more
    #[arg(long)]
    no_wait: bool,
}

impl OutOfService {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        session.order(&Request::OutOfService { tag: self.tag, wait: !self.no_wait })
    }
}
