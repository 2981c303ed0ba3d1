//! `vipctl export`.

use clap::Args;

use super::{Session, output, session::unexpected};
use crate::api::{Answer, ApiError, Request};

/// Print the configuration as a file for 'vipctl apply'
///
/// Everything that operators set: resources, what depends on what, constraints, ping lists, monitored subnets,
/// connectivity hosts and defaults. Nodes are named in it, not made by it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl export > cluster.toml
  vipctl export | vipctl verify -")]
pub struct Export {}

impl Export {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        match session.ask(&Request::Export)? {
            Answer::Exported(text) if session.json => output::json(&serde_json::json!({ "toml": text })),
            Answer::Exported(text) => {
                output::print(&text);
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }
}
