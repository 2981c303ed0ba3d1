//! `vipctl clear` and `vipctl cleanup`.

use clap::Args;

use super::Session;
use crate::{
    api::{ApiError, Request},
    model::Tag,
};

/// Leave it to the cluster again where a resource is, after 'in-service --on'
#[derive(Debug, Args)]
pub struct Clear {
    tag: Tag,
}

impl Clear {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        session.order(&Request::Clear { tag: self.tag })
    }
}

/// Forget the failures of a resource and its hierarchy, which are mended
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl cleanup ip-192.0.2.10
  vipctl cleanup ip-192.0.2.10 --node node-b")]
pub struct Cleanup {
    tag: Tag,
    /// Those on this node [default: on every node]
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
}

impl Cleanup {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        session.order(&Request::Cleanup { tag: self.tag, node: self.node })
    }
}
