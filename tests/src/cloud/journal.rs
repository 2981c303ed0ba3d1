//! Every call that reached the proxy, and what became of it.

use std::{collections::BTreeMap, net::IpAddr};

use super::faults::Fault;
use crate::timeline::Moment;

#[derive(Clone, Debug)]
pub struct Call {
    /// When it had arrived as a whole.
    pub at: Moment,
    pub client: IpAddr,
    pub action: String,
    /// All of the form, `Action` included.
    pub parameters: BTreeMap<String, String>,
    /// Who signed it.
    pub access_key: Option<String>,
    pub fault: Option<Fault>,
    /// Nothing when the server has not executed it (yet).
    pub executed: Option<Execution>,
    pub outcome: Outcome,
}

/// The server's work on a call. It does one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execution {
    /// Counts what the server executed, from 0.
    pub order: usize,
    /// When it was done.
    pub at: Moment,
    /// The server's own answer, whatever became of it.
    pub status: u16,
}

/// What the client got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing so far.
    Pending,
    /// An answer with this status.
    Answered(u16),
    /// Part of an answer.
    Cut,
    /// The end of the connection.
    Closed,
    /// A RST.
    Reset,
}

impl Call {
    pub fn is_dry_run(&self) -> bool {
        self.parameters.get("DryRun").is_some_and(|value| value == "true")
    }

    pub fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    /// Whether it changed something at the server.
    pub fn is_effective_write(&self) -> bool {
        let reads = ["Describe", "Get", "List"].iter().any(|verb| self.action.starts_with(verb));
        !reads && !self.is_dry_run() && self.executed.is_some_and(|done| done.status == 200)
    }
}

/// Calls by client and action.
pub fn count(calls: &[Call]) -> BTreeMap<(IpAddr, String), usize> {
    let mut counts = BTreeMap::new();
    for call in calls {
        *counts.entry((call.client, call.action.clone())).or_default() += 1;
    }
    counts
}
