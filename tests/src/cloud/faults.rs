//! What the proxy does wrong, to whose calls, and how often.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Executed only after this long.
    Delay(Duration),
    /// Neither executed nor answered until the rule is lifted; then both, even where the client has gone meanwhile.
    Hang,
    /// Executed, and the answer held back until the rule is lifted.
    HangAnswer,
    /// Executed; then the connection is closed without an answer.
    LoseAnswer,
    /// Not executed: the connection is broken off with a RST.
    Reset,
    /// Not executed: 503 RequestLimitExceeded.
    Throttle,
    /// Not executed: 500 InternalError.
    InternalError,
    /// Not executed: 503 Unavailable.
    Unavailable,
    /// Not executed: 403 UnauthorizedOperation; what DryRun asks is denied as well.
    Denied,
    /// Not executed, and answered as if it were. Says DryRun, too.
    FalseSuccess,
    /// Executed; the answer breaks off in the middle of its body.
    Truncate,
    /// Not executed: 200 with something that is no answer.
    Garbage,
}

impl Fault {
    /// All that can befall a write without EC2 having said that it will not have it: whether it was done is not known, or
    /// is told wrongly.
    pub const OF_WRITES: [Self; 10] = [
        Self::LoseAnswer,
        Self::Reset,
        Self::InternalError,
        Self::Unavailable,
        Self::FalseSuccess,
        Self::Truncate,
        Self::Garbage,
        Self::Delay(Duration::from_millis(700)),
        Self::Hang,
        Self::HangAnswer,
    ];
}

/// Which calls a rule is for.
#[derive(Clone, Debug, Default)]
pub struct When {
    action: Option<String>,
    client: Option<IpAddr>,
    parameters: Vec<(String, String)>,
    times: Option<usize>,
}

impl When {
    /// Every call of every client, until lifted.
    pub fn any() -> Self {
        Self::default()
    }

    /// Calls of one action.
    pub fn action(action: &str) -> Self {
        Self { action: Some(action.to_owned()), ..Self::default() }
    }

    /// Only a client's calls, told by its source address.
    pub fn from(mut self, client: impl Into<IpAddr>) -> Self {
        self.client = Some(client.into());
        self
    }

    /// Only calls with this parameter.
    pub fn with(mut self, parameter: &str, value: &str) -> Self {
        self.parameters.push((parameter.to_owned(), value.to_owned()));
        self
    }

    /// Only the next so many calls.
    pub fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    fn applies(&self, client: IpAddr, action: &str, parameters: &BTreeMap<String, String>) -> bool {
        self.action.as_deref().is_none_or(|wanted| wanted == action)
            && self.client.is_none_or(|wanted| wanted == client)
            && self.parameters.iter().all(|(key, value)| parameters.get(key) == Some(value))
            && self.times != Some(0)
    }
}

/// Names a rule so that it can be lifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleId(usize);

struct Rule {
    id: RuleId,
    when: When,
    fault: Fault,
    lifted: watch::Sender<bool>,
}

/// Rules in the order in which they were made; the first one that applies to a call decides.
#[derive(Default)]
pub(super) struct Rules {
    made: usize,
    rules: Vec<Rule>,
}

impl Rules {
    pub(super) fn add(&mut self, when: When, fault: Fault) -> RuleId {
        let id = RuleId(self.made);
        self.made += 1;
        self.rules.push(Rule { id, when, fault, lifted: watch::Sender::new(false) });
        id
    }

    /// All rules, or one; whatever it holds up goes on.
    pub(super) fn lift(&mut self, id: Option<RuleId>) {
        self.rules.retain(|rule| {
            let lifted = id.is_none_or(|id| id == rule.id);
            if lifted {
                rule.lifted.send_replace(true);
            }
            !lifted
        });
    }

    /// The fault for a call, which counts from now on, and how to learn that it was lifted.
    pub(super) fn take(
        &mut self,
        client: IpAddr,
        action: &str,
        parameters: &BTreeMap<String, String>,
    ) -> Option<(Fault, watch::Receiver<bool>)> {
        let rule = self.rules.iter_mut().find(|rule| rule.when.applies(client, action, parameters))?;
        if let Some(times) = &mut rule.when.times {
            *times -= 1;
        }
        Some((rule.fault, rule.lifted.subscribe()))
    }
}
