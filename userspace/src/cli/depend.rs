//! `vipctl depend` and `vipctl undepend`.

use clap::Args;

use super::Session;
use crate::{
    api::{ApiError, Request},
    model::Tag,
};

/// Make a resource depend on another
///
/// The child starts before the parent and stops after it; both are one hierarchy from now on, which is placed, moved
/// and fails over as one. Both must be extended to the same nodes with the same priorities, and nothing is moved by
/// this: bring them together first. All of their nodes check first that
/// they can have both.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl depend web ip-192.0.2.10")]
pub struct Depend {
    /// Starts last, stops first
    parent: Tag,
    /// Starts first, stops last
    child: Tag,
    /// Go on although a node that has to check it is down or does not answer
    #[arg(long)]
    force: bool,
}

impl Depend {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        session.order(&Request::Depend { parent: self.parent, child: self.child, force: self.force })
    }
}

/// End a dependency; both resources stay where they are
#[derive(Debug, Args)]
pub struct Undepend {
    parent: Tag,
    child: Tag,
    /// Go on although it is being started or stopped on a node, or a node does not answer
    #[arg(long)]
    force: bool,
}

impl Undepend {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        session.order(&Request::Undepend { parent: self.parent, child: self.child, force: self.force })
    }
}
