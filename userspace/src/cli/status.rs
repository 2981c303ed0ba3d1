//! `vipctl status`.

mod text;

use std::{io::IsTerminal, thread, time::Duration};

use clap::Args;

use super::{Session, output, session::unexpected};
use crate::api::{self, Answer, ApiError, Request};

pub use text::cluster_text;

/// Resources up to which each has a line of its own.
const GROUPED_ABOVE: usize = 40;

/// Show the cluster, its resources, this node's links, lease and datapath
///
/// States: ISP in service, OSU out of service, OSF failed, starting, stopping, moving. More than 40 resources are
/// shown in runs of consecutive addresses that are alike.
#[derive(Debug, Args)]
pub struct Status {
    /// Show it anew every second, until Ctrl-C; with --json one document a line
    #[arg(long, short)]
    watch: bool,
    /// Give every resource a line of its own
    #[arg(long, short)]
    all: bool,
}

impl Status {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        if !self.watch {
            let status = ask(session)?;
            if session.json {
                return output::json(&status);
            }
            output::print(&text::status(&status, self.join(&status)));
            return Ok(());
        }
        loop {
            match ask(session) {
                Ok(status) if session.json => output::json_line(&status)?,
                Ok(status) => output::print(&framed(&text::status(&status, self.join(&status)))),
                // A daemon that is being restarted comes back; one that may not be asked does not.
                Err(e) if session.json => output::error(true, &e),
                Err(e) => output::print(&framed(&format!("vipctl: {}\n", e.message))),
            }
            thread::sleep(Duration::from_secs(1));
        }
    }

    fn join(&self, status: &api::Status) -> bool {
        !self.all && status.resources.len() > GROUPED_ABOVE
    }
}

fn ask(session: &Session) -> Result<Box<api::Status>, ApiError> {
    match session.ask(&Request::Status)? {
        Answer::Status(status) => Ok(status),
        other => Err(unexpected(&other)),
    }
}

/// On a terminal each picture replaces the one before: home, every line cleared to its end, the rest too.
fn framed(text: &str) -> String {
    if !std::io::stdout().is_terminal() {
        return format!("{text}\n");
    }
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}
