//! `vipctl status`.

mod text;

use std::{io::IsTerminal, thread, time::Duration};

use clap::Args;

use super::{Session, output, session::unexpected};
use crate::api::{self, Answer, ApiError, Request, Selection};

pub use text::cluster_text;

/// Resources up to which each has a line of its own.
const GROUPED_ABOVE: usize = 40;

const STATES: [&str; 6] = ["ISP", "OSU", "OSF", "starting", "stopping", "moving"];

/// Lines of resources that are printed unless more are asked for.
const LINES: usize = 200;

/// Show the cluster, its resources, this node's links, lease and datapath
///
/// States: ISP in service, OSU out of service, OSF failed, starting, stopping, moving. More than 40 resources are
/// shown in runs of consecutive addresses that are alike. --resources, --owner and --state show some of the resources
/// and nothing else.
#[derive(Debug, Args)]
pub struct Status {
    /// Show it anew every second, until Ctrl-C; with --json one document a line
    #[arg(long, short)]
    watch: bool,
    /// Give every resource a line of its own, however many there are
    #[arg(long, short)]
    all: bool,
    /// Only the resources: all, or those whose tag has PATTERN in it (or fits it, with * and ?) or that have the
    /// address PATTERN
    #[arg(long, short, value_name = "PATTERN", num_args = 0..=1, default_missing_value = "*")]
    resources: Option<String>,
    /// Only resources that this node owns
    #[arg(long, value_name = "NODE")]
    owner: Option<String>,
    /// Only resources in this state: ISP, OSU, OSF, starting, stopping or moving
    #[arg(long, value_name = "S", ignore_case = true, value_parser = STATES)]
    state: Option<String>,
    /// At most so many lines of resources [default: 200; with --all or --json no limit]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Leave so many out before
    #[arg(long, value_name = "N", default_value_t = 0)]
    offset: usize,
}

impl Status {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        let request = Request::StatusOf(self.selection(session.json));
        if !self.watch {
            let status = ask(session, &request)?;
            if session.json {
                return output::json(&status);
            }
            output::print(&self.text(&status));
            return Ok(());
        }
        loop {
            match ask(session, &request) {
                Ok(status) if session.json => output::json_line(&status)?,
                Ok(status) => output::print(&framed(&self.text(&status))),
                // A daemon that is being restarted comes back; one that may not be asked does not.
                Err(e) if session.json => output::error(true, &e),
                Err(e) => output::print(&framed(&format!("vipctl: {}\n", e.message))),
            }
            thread::sleep(Duration::from_secs(1));
        }
    }

    fn selection(&self, json: bool) -> Selection {
        let everything = self.all || json;
        Selection {
            pattern: self.resources.clone().filter(|p| p != "*"),
            owner: self.owner.clone(),
            state: self.state.clone(),
            join_above: (!everything).then_some(GROUPED_ABOVE),
            limit: self.limit.or((!everything).then_some(LINES)),
            offset: self.offset,
        }
    }

    fn text(&self, status: &api::Status) -> String {
        let only = self.resources.is_some() || self.owner.is_some() || self.state.is_some();
        if only { text::resources(status) } else { text::status(status) }
    }
}

fn ask(session: &Session, request: &Request) -> Result<Box<api::Status>, ApiError> {
    match session.ask(request)? {
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
