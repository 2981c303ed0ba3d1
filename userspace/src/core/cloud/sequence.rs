//! One run: look, write what is wrong, look again, until all is as it should be.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use vipd_ec2::{Call, CallError, ElasticIp, Nic, Purpose, RouteTable};

use super::{
    Answer, Ask, CloudContext, CloudReport, Goal, Strangers, Verb, eip,
    judgement::{Finding, Judgement},
    kinds::Kinds,
    route,
};
use crate::{
    core::{
        command::{Command, Effect, LinkState},
        sequence::{Cause, Failure, Input, Step, StepNote},
    },
    model::Addresses,
};

/// Before what did not succeed is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How often it is doubled.
const DOUBLINGS: u32 = 4;

/// ```text
///  Begin --disabled, a route's removal--> done
///    |
///  Link (of an Elastic IP's interface; that of a route's is its IP resource's business) --none--> failed
///    |
///  Look (interface, then tables or addresses) --right--> done
///    |  ^  \ not answered: a check is done, all others pause and look again (a removal fails)
///    |  |
///    |  +---- all were answered, or pause
///    v                |
///  Write, one after another --not permitted, overtaken--> failed
///    wrong still after that often --> failed
/// ```
#[derive(Clone, Debug)]
enum State {
    Begin,
    Link,
    Look(VecDeque<Ask>),
    Write { asked: Ask, rest: VecDeque<Ask> },
    Pausing,
    Ended,
}

/// What was seen since the last write.
#[derive(Clone, Debug, Default)]
struct View {
    nic: Option<Nic>,
    tables: Arc<Vec<RouteTable>>,
    eip: Option<ElasticIp>,
    eips: Vec<ElasticIp>,
}

#[derive(Clone, Debug)]
pub struct CloudSequence {
    verb: Verb,
    context: CloudContext,
    state: State,
    view: View,
    notes: Vec<StepNote>,
    /// How often something was written.
    written: u32,
    /// Of those, so many were given the time to be seen.
    awaited: u32,
    /// How often it was paused.
    pauses: u32,
    /// Why it was paused last, and whether that was for want of an answer.
    paused: Option<(String, bool)>,
    /// Something was changed, or may have been.
    changed: bool,
    report: CloudReport,
}

impl CloudSequence {
    pub fn new(verb: Verb, context: CloudContext) -> Self {
        Self {
            verb,
            context,
            state: State::Begin,
            view: View::default(),
            notes: Vec::new(),
            written: 0,
            awaited: 0,
            pauses: 0,
            paused: None,
            changed: false,
            report: CloudReport::default(),
        }
    }

    pub fn verb(&self) -> Verb {
        self.verb
    }

    pub fn report(&self) -> &CloudReport {
        &self.report
    }

    pub fn limit(&self) -> Duration {
        let tunables = &self.context.tunables;
        match self.verb {
            Verb::Restore | Verb::Switch | Verb::Amend => tunables.restore_timeout,
            Verb::Remove => tunables.remove_timeout,
            Verb::Quickcheck => tunables.quickcheck_timeout,
            Verb::Recover => tunables.recover_timeout,
        }
    }

    pub fn step(&mut self, input: Input) -> Step {
        match (mem::replace(&mut self.state, State::Ended), input) {
            (State::Begin, _) => self.begin(),
            (State::Link, Input::Effect(Effect::Link(link))) => self.linked(link),
            (State::Look(rest), Input::Effect(Effect::Cloud(answer))) => self.looked(answer, rest),
            (State::Write { asked, rest }, Input::Effect(Effect::Cloud(answer))) => {
                self.wrote(&asked, answer, rest)
            }
            (State::Pausing, Input::Effect(Effect::Cloud(_))) => self.look(),
            (_, Input::Effect(Effect::Failed(reason))) => self.fail(reason, Cause::Other),
            (_, Input::Start | Input::Effect(_)) => {
                self.fail("the sequence has ended already".to_owned(), Cause::Other)
            }
        }
    }

    /// It took too long and is dropped: what that means.
    pub fn overrun(&mut self) -> Step {
        let limit = self.limit();
        let last = self.paused.take();
        let waits = matches!(self.state, State::Look(_) | State::Write { .. });
        let cause = if waits || last.as_ref().is_some_and(|(_, unanswered)| *unanswered) {
            Cause::Unanswered
        } else {
            Cause::Other
        };
        let said = match last {
            Some((last, _)) => format!(": {last}"),
            None if waits => ": EC2 has not answered".to_owned(),
            None => String::new(),
        };
        let name = self.verb.name();
        let reason = format!("{name} did not finish within {limit:?}, which is its limit{said}");
        match self.verb {
            // Silence says nothing about where things lead (row EC2-4).
            Verb::Quickcheck => self.doubt(reason),
            Verb::Restore | Verb::Remove | Verb::Recover | Verb::Switch | Verb::Amend => {
                self.fail(reason, cause)
            }
        }
    }

    fn kinds(&self) -> &'static Kinds {
        self.verb.kinds()
    }

    fn begin(&mut self) -> Step {
        if !self.context.restore_and_recover {
            let message = "nothing is asked of EC2: restore-and-recover is disabled on this node";
            return self.succeed(self.kinds().disabled, message.to_owned());
        }
        if let (Verb::Remove, Some(heir)) = (self.verb, &self.context.left_to) {
            let message =
                format!("{} is left where it is: '{heir}' has it in service here now", self.subject());
            return self.succeed(self.kinds().left, message);
        }
        match (self.verb, &self.context.goal) {
            (Verb::Remove, Goal::Routes(_)) => {
                let message = "the routes are left as they are: whoever takes over turns them to itself";
                self.succeed(self.kinds().left, message.to_owned())
            }
            (Verb::Remove, Goal::Eip(_)) | (_, Goal::Routes(_)) => self.look(),
            (_, Goal::Eip(_)) if self.context.no_link_check => self.look(),
            (_, Goal::Eip(_)) => {
                let device = self.context.device.clone();
                self.say(self.kinds().link, format!("has {device} a link"));
                self.state = State::Link;
                Step::Do { command: Command::ReadLink { device }, notes: mem::take(&mut self.notes) }
            }
        }
    }

    fn linked(&mut self, link: LinkState) -> Step {
        let device = &self.context.device;
        let why = match link {
            LinkState::Up => return self.look(),
            LinkState::Missing => format!("{device} does not exist"),
            LinkState::Down => format!("{device} is set down"),
            LinkState::NoCarrier => format!("{device} has no carrier"),
        };
        self.fail(format!("{why}: nothing gets to {} there", self.subject()), Cause::Interface)
    }

    /// All of it anew: meanwhile anything may have changed.
    fn look(&mut self) -> Step {
        let device = self.context.device.clone();
        self.say(self.kinds().interface, format!("which network interface of EC2 is {device}"));
        self.view = View::default();
        // What was seen before is no news when this one ends, which may be long after.
        (self.report.targets, self.report.answered) = (Vec::new(), false);
        self.state = State::Look(VecDeque::new());
        self.ask(Ask::Nic { device })
    }

    fn looked(&mut self, answer: Answer, mut rest: VecDeque<Ask>) -> Step {
        match answer {
            Answer::Nic(nic) => {
                rest = self.what_to_look_at(&nic);
                self.report.interface = Some(nic.id.clone());
                self.view.nic = Some(nic);
            }
            Answer::Routes(tables) => self.view.tables = tables,
            Answer::Eip(eip) => self.view.eip = eip,
            Answer::Eips(eips) => self.view.eips = eips,
            Answer::Failed(error) => return self.not_seen(&error),
            Answer::Written(_) | Answer::Paused => {
                return self.fail("an answer to something else".to_owned(), Cause::Other);
            }
        }
        match rest.pop_front() {
            Some(next) => {
                self.state = State::Look(rest);
                self.ask(next)
            }
            None => self.judge(),
        }
    }

    fn what_to_look_at(&mut self, nic: &Nic) -> VecDeque<Ask> {
        match &self.context.goal {
            Goal::Routes(addresses) => {
                let what = format!("where in {} do the routes to {addresses} lead", nic.vpc);
                self.say(self.kinds().look, what);
                let checks = self.verb == Verb::Quickcheck;
                [Ask::Routes { vpc: nic.vpc.clone(), checks }].into()
            }
            Goal::Eip(address) => {
                let (address, interface) = (*address, nic.id.clone());
                self.say(self.kinds().look, format!("where is {address}, and what is on {interface}"));
                [Ask::Eip { address }, Ask::EipsOf { interface }].into()
            }
        }
    }

    fn judge(&mut self) -> Step {
        let Some(nic) = self.view.nic.clone() else {
            return self.fail("the interface was not looked at".to_owned(), Cause::Other);
        };
        let Finding { targets, judgement } = match &self.context.goal {
            Goal::Routes(addresses) => route::judge(&self.view.tables, addresses, &nic.vpc, &nic.id),
            Goal::Eip(address) => eip::judge(*address, self.view.eip.as_ref(), &self.view.eips, &nic.id),
        };
        (self.report.targets, self.report.answered) = (targets, true);
        if self.verb == Verb::Remove {
            return self.part(&nic);
        }
        let subject = self.subject();
        match judgement {
            Judgement::Right { lacking } => {
                if let Some(lacking) = lacking {
                    self.trouble(lacking);
                }
                self.report.mended = self.changed;
                let message = format!("{subject} is on {} ({})", nic.id, self.context.device);
                self.succeed(self.kinds().done, message)
            }
            Judgement::Nothing { what } if self.verb == Verb::Quickcheck => self.doubt(what),
            Judgement::Nothing { what } => self.fail(what, Cause::Other),
            Judgement::Wrong { .. } if let Some(borne) = self.borne() => self.live_with(borne),
            Judgement::Wrong { what, .. } if self.verb == Verb::Quickcheck => {
                let device = &self.context.device;
                self.fail(format!("{subject} is not on {} ({device}): {what}", nic.id), Cause::Other)
            }
            Judgement::Wrong { what, .. } if self.awaited < self.written => {
                self.pause(format!("{subject} was written, and EC2 still says {what}"), false)
            }
            Judgement::Wrong { what, .. }
                if self.written > self.context.tunables.max_retry && self.only_lacks_solitude() =>
            {
                self.live_with(self.strangers(what))
            }
            Judgement::Wrong { what, .. } if self.written > self.context.tunables.max_retry => {
                let reason = format!("{subject} was written {} times, and still {what}", self.written);
                self.fail(reason, Cause::Other)
            }
            Judgement::Wrong { what, writes } => {
                self.say(self.kinds().write, format!("{what}: to {} ({})", nic.id, self.context.device));
                self.write(writes.into())
            }
        }
    }

    /// The Elastic IP is here, and all that could not be done is to take others off the interface: what it is for, it
    /// does. Elsewhere it would be of no more use, and those who call it would be cut off on the way.
    fn only_lacks_solitude(&self) -> bool {
        let Some(nic) = self.view.nic.as_ref().filter(|_| self.verb != Verb::Remove) else { return false };
        match &self.context.goal {
            Goal::Routes(_) => false,
            Goal::Eip(_) => eip::farewell(self.view.eip.as_ref(), &nic.id).is_some(),
        }
    }

    /// Those that were seen beside the Elastic IP.
    fn strangers(&self, why: String) -> Strangers {
        Strangers { associations: eip::beside(&self.context.goal, &self.view.eips), why }
    }

    /// For whom a check does not fail, if nobody else is there.
    fn borne(&self) -> Option<Strangers> {
        let borne = self.context.borne.as_ref()?;
        let same = self.strangers(borne.why.clone()) == *borne;
        (self.verb == Verb::Quickcheck && same && self.only_lacks_solitude()).then(|| borne.clone())
    }

    /// It does what it is for, with them beside it.
    fn live_with(&mut self, strangers: Strangers) -> Step {
        let why = strangers.why.clone();
        self.report.strangers = Some(strangers);
        self.doubt(why)
    }

    /// The opposite of all others: the Elastic IP is not to be here.
    fn part(&mut self, nic: &Nic) -> Step {
        let subject = self.subject();
        match eip::farewell(self.view.eip.as_ref(), &nic.id) {
            None => {
                let message = format!("{subject} is not on {} ({})", nic.id, self.context.device);
                self.parted(message)
            }
            Some(_) if self.awaited < self.written => self
                .pause(format!("{subject} was taken off {}, and EC2 still says it is there", nic.id), false),
            Some(_) if self.written > self.context.tunables.max_retry => {
                let reason = format!("{subject} is still on {} after {} attempts", nic.id, self.written);
                self.fail(reason, Cause::Other)
            }
            Some(association) => {
                self.say(self.kinds().write, format!("{subject} is taken off {}", nic.id));
                self.write([Ask::Disassociate { associations: vec![association] }].into())
            }
        }
    }

    /// It is not on this interface; on to the next.
    fn parted(&mut self, message: String) -> Step {
        match self.context.others.pop() {
            Some(device) => {
                self.say(self.kinds().look, message);
                self.context.device = device;
                (self.written, self.awaited) = (0, 0);
                self.look()
            }
            None => self.succeed(self.kinds().done, message),
        }
    }

    fn write(&mut self, mut writes: VecDeque<Ask>) -> Step {
        match writes.pop_front() {
            Some(next) => {
                self.state = State::Write { asked: next.clone(), rest: writes };
                self.ask(next)
            }
            None => {
                self.written += 1;
                self.look()
            }
        }
    }

    fn wrote(&mut self, asked: &Ask, answer: Answer, rest: VecDeque<Ask>) -> Step {
        let results = match answer {
            Answer::Written(results) => results,
            Answer::Failed(error) => vec![Err(error)],
            _ => return self.fail("an answer to something else".to_owned(), Cause::Other),
        };
        self.changed |= results.iter().any(|r| r.as_ref().err().is_none_or(CallError::is_passing));
        let asked_for = results.len();
        let failed = results.into_iter().enumerate().filter_map(|(n, r)| Some((n, r.err()?)));
        let errors: Vec<(String, CallError)> = failed.map(|(n, e)| (object(asked, n), e)).collect();
        if errors.is_empty() {
            return self.write(rest);
        }
        let lines: Vec<String> = errors.iter().map(|(object, e)| format!("{object}: {e}")).collect();
        let what = route::named(&lines);
        if errors.iter().any(|(_, e)| matches!(e, CallError::Overtaken(_))) {
            return self.fail(what, Cause::Overtaken);
        }
        if errors.iter().any(|(_, e)| is_final(e)) {
            return self.barred(what, errors.len() < asked_for);
        }
        // What EC2 did not answer is no attempt: whether it was one is not known.
        let unanswered = errors.iter().all(|(_, e)| e.is_passing());
        if !unanswered {
            self.written += 1;
        }
        self.again(what, unanswered)
    }

    /// It is not let do this, at any attempt. Whatever leads here already goes on to: the others have the same policy, as
    /// a rule, and would not be let either, so that an entry too many in a table would put out of service what all other
    /// tables lead to.
    fn barred(&mut self, why: String, some_written: bool) -> Step {
        if self.only_lacks_solitude() {
            return self.live_with(self.strangers(why));
        }
        let leads = match (&self.context.goal, &self.view.nic) {
            (Goal::Routes(addresses), Some(nic)) => {
                some_written || route::some_lead(&self.view.tables, addresses, &nic.id)
            }
            (Goal::Routes(_), None) | (Goal::Eip(_), _) => false,
        };
        let stays = self.verb == Verb::Recover && leads;
        self.fail(why, if stays { Cause::Unanswered } else { Cause::Other })
    }

    fn not_seen(&mut self, error: &CallError) -> Step {
        match (self.verb, error) {
            // The one answer of the metadata service that says something: the interface is no longer there.
            (Verb::Remove, CallError::Missing { .. }) if self.view.nic.is_none() => {
                self.parted(format!("nothing can be on it any more: {error}"))
            }
            (Verb::Quickcheck, CallError::Missing { .. }) if self.view.nic.is_none() => {
                self.fail(error.to_string(), Cause::Interface)
            }
            (Verb::Quickcheck, _) => self.doubt(error.to_string()),
            (Verb::Remove, _) => self.fail(error.to_string(), Cause::Unanswered),
            (Verb::Restore | Verb::Recover | Verb::Switch | Verb::Amend, error) if error.is_passing() => {
                self.again(error.to_string(), true)
            }
            (Verb::Restore | Verb::Recover | Verb::Switch | Verb::Amend, CallError::Missing { .. })
                if self.view.nic.is_none() =>
            {
                self.fail(error.to_string(), Cause::Interface)
            }
            // It is in service, and whether it still has to be mended is not known.
            (Verb::Recover, error) => self.fail(error.to_string(), Cause::Unanswered),
            (Verb::Restore | Verb::Switch | Verb::Amend, error) => self.fail(error.to_string(), Cause::Other),
        }
    }

    fn again(&mut self, why: String, unanswered: bool) -> Step {
        if self.verb == Verb::Remove {
            // The next owner takes it in any case: nobody is kept waiting.
            return self.fail(why, Cause::Unanswered);
        }
        if self.written > self.context.tunables.max_retry {
            return self.fail(why, Cause::Other);
        }
        self.pause(why, unanswered)
    }

    /// Then it is looked at anew. EC2 answers from copies of which some lag behind: after a write they are given some
    /// time to be seen before it is repeated.
    fn pause(&mut self, why: String, unanswered: bool) -> Step {
        self.awaited = self.written;
        let about = FIRST_PAUSE * (1 << self.pauses.min(DOUBLINGS));
        self.pauses += 1;
        let message = format!("{why}; it is tried again in about {about:?}");
        self.notes.push(StepNote { kind: self.kinds().again, message, routine: false });
        self.paused = Some((why, unanswered));
        self.state = State::Pausing;
        self.ask(Ask::Pause { about })
    }

    /// What it is about, for people.
    fn subject(&self) -> String {
        match &self.context.goal {
            Goal::Routes(addresses) => format!("the route to {}", brief(addresses)),
            Goal::Eip(address) => address.to_string(),
        }
    }

    fn ask(&mut self, ask: Ask) -> Step {
        let tunables = &self.context.tunables;
        let call = Call {
            region: self.context.region.clone(),
            attempt_timeout: tunables.call_timeout,
            retries: tunables.max_retry,
            purpose: Purpose::Service,
        };
        Step::Do { command: Command::Cloud { call, ask }, notes: mem::take(&mut self.notes) }
    }

    fn say(&mut self, kind: &'static str, message: String) {
        let routine = self.verb == Verb::Quickcheck;
        self.notes.push(StepNote { kind, message, routine });
    }

    /// Told by whoever keeps the report, once when it begins and once when it ends.
    fn trouble(&mut self, what: String) {
        self.notes.push(StepNote { kind: self.kinds().trouble, message: what.clone(), routine: true });
        self.report.trouble = Some(what);
    }

    /// It stays in service: what was found, or not found, is no failure of this node.
    fn doubt(&mut self, why: String) -> Step {
        self.trouble(why);
        Step::Done { result: Ok(()), notes: mem::take(&mut self.notes) }
    }

    fn succeed(&mut self, kind: &'static str, message: String) -> Step {
        self.say(kind, message);
        Step::Done { result: Ok(()), notes: mem::take(&mut self.notes) }
    }

    fn fail(&mut self, reason: String, cause: Cause) -> Step {
        self.notes.push(StepNote { kind: self.kinds().failed, message: reason.clone(), routine: false });
        self.report.trouble = Some(reason.clone());
        let failure = Failure {
            reason,
            // A removal writes nothing more, and no node needs another one's silence to take an Elastic IP.
            silent: self.verb == Verb::Remove,
            cause,
            in_service: Addresses::default(),
        };
        Step::Done { result: Err(failure), notes: mem::take(&mut self.notes) }
    }
}

/// No other attempt of this node could end otherwise.
fn is_final(error: &CallError) -> bool {
    match error {
        CallError::Denied { .. }
        | CallError::Unaccepted { .. }
        | CallError::NoCredentials(_)
        | CallError::Overtaken(_)
        | CallError::Absent => true,
        // Somebody else may have changed it between the look and the write: another look tells.
        CallError::Missing { .. } | CallError::Refused { .. } => false,
        CallError::Silent { .. }
        | CallError::Unreachable { .. }
        | CallError::Throttled { .. }
        | CallError::Unavailable { .. } => false,
    }
}

/// What the nth write of these is about.
fn object(asked: &Ask, n: usize) -> String {
    match asked {
        Ask::ReplaceRoutes { entries, .. } => {
            entries.get(n).map_or_else(String::new, |e| format!("{} in {}", e.destination, e.table))
        }
        Ask::Disassociate { associations } => associations.get(n).cloned().unwrap_or_default(),
        Ask::Associate { allocation, .. } => allocation.clone(),
        Ask::Nic { .. } | Ask::Routes { .. } | Ask::Eip { .. } | Ask::EipsOf { .. } | Ask::Pause { .. } => {
            String::new()
        }
    }
}

fn brief(addresses: &Addresses) -> String {
    match (addresses.count(), addresses.first()) {
        (1, Some(one)) => one.addr().to_string(),
        _ => addresses.to_string(),
    }
}
