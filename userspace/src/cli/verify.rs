//! `vipctl verify`.

use clap::Args;

use super::{Session, apply, given, output, session::unexpected};
use crate::api::{Answer, ApiError, Declare, DeclareAim, Request};

/// Tell whether the cluster is exactly as a file says
///
/// Exit code 0 when it is; 1 when something differs, when something is there that the file does not name, or when this
/// node does not have the interfaces. What is in Amazon EC2 is checked by all its nodes as at its creation: what they
/// object to is told, with its remedy (exit code 1). Nothing is changed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl verify cluster.toml
  vipctl --json verify cluster.toml")]
pub struct Verify {
    /// The file, '-' for stdin
    file: String,
}

impl Verify {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        let (name, text) = given::file(&self.file)?;
        let aim = DeclareAim::Verify;
        let wanted = Declare { name: name.clone(), text, prune: true, force: true, aim };
        let planned = match session.ask(&Request::Declare(wanted))? {
            Answer::Planned(planned) => planned,
            other => return Err(unexpected(&other)),
        };
        if session.json {
            output::json(&planned)?;
        } else {
            output::print(&apply::text(&planned, apply::Style::new()));
        }
        match planned.differences.len() + planned.findings.len() {
            0 => Ok(()),
            1 => Err(ApiError::failed(format!("the cluster is not as {name} says: 1 difference"))),
            n => Err(ApiError::failed(format!("the cluster is not as {name} says: {n} differences"))),
        }
    }
}
