//! In front of moto: tells clients apart, keeps a journal of their calls, and fails as it is told.
//!
//! Beside faults it evens out what moto does otherwise than EC2: DryRun executes nothing, who lacks a permission reads
//! `UnauthorizedOperation`, long lists come in pages where a test wants them to.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::sync::Mutex as AsyncMutex;

use super::{
    canned,
    faults::{Fault, RuleId, Rules, When},
    form,
    http::{self, Handler, Reply, Request, Response, Server},
    journal::{Call, Execution, Outcome},
    moto::{Keyring, query},
};
use crate::{netns::NetNs, timeline::Moment};

/// Ends with its connections when this is dropped.
pub struct Proxy {
    shared: Arc<Mutex<Shared>>,
    server: Server,
}

#[derive(Default)]
struct Shared {
    rules: Rules,
    calls: Vec<Call>,
    executed: usize,
    latency: Duration,
    page: Option<usize>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Listens in the namespace in which the server is.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn start(ns: &NetNs, listen: SocketAddr, server: SocketAddr, keys: Keyring) -> Result<Self> {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let state = Arc::clone(&shared);
        let make = move || Front { shared: state, server, keys, turn: AsyncMutex::new(()) };
        Ok(Self { shared, server: Server::start(ns, listen, make)? })
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// From now on, until the rule is used up or lifted. Of several rules for a call the oldest decides.
    pub fn inject(&self, when: When, fault: Fault) -> RuleId {
        lock(&self.shared).rules.add(when, fault)
    }

    /// Calls that the rule holds up go on.
    pub fn lift(&self, rule: RuleId) {
        lock(&self.shared).rules.lift(Some(rule));
    }

    /// As [`Proxy::lift`], of all rules.
    pub fn lift_all(&self) {
        lock(&self.shared).rules.lift(None);
    }

    /// How long every call takes before it is executed.
    pub fn set_latency(&self, latency: Duration) {
        lock(&self.shared).latency = latency;
    }

    /// Lists come in pages of at most so many entries, or whole.
    pub fn set_page(&self, entries: Option<usize>) {
        lock(&self.shared).page = entries;
    }

    /// The journal so far, in the order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.calls_since(0)
    }

    /// The journal without its first so many calls.
    pub fn calls_since(&self, mark: usize) -> Vec<Call> {
        lock(&self.shared).calls.get(mark..).unwrap_or_default().to_vec()
    }

    /// How many calls there were so far.
    pub fn mark(&self) -> usize {
        lock(&self.shared).calls.len()
    }

    /// Calls of this action so far.
    pub fn count(&self, action: &str) -> usize {
        lock(&self.shared).calls.iter().filter(|call| call.action == action).count()
    }
}

struct Front {
    shared: Arc<Mutex<Shared>>,
    server: SocketAddr,
    keys: Keyring,
    /// moto gains nothing from calls side by side, and this way there is one order of all that it did.
    turn: AsyncMutex<()>,
}

/// A call in the journal.
struct Entry {
    number: usize,
    action: String,
    dry_run: bool,
    access_key: Option<String>,
    token: Option<String>,
    limit: Option<usize>,
}

impl Handler for Front {
    async fn answer(&self, request: Request, client: IpAddr) -> Reply {
        let parameters = form::decode(&String::from_utf8_lossy(&request.body));
        let action = parameters.get("Action").cloned().unwrap_or_else(|| request.target.clone());
        let access_key = signer(&request);
        let (entry, fault, latency) = {
            let mut shared = lock(&self.shared);
            let fault = shared.rules.take(client, &action, &parameters);
            let entry = Entry {
                number: shared.calls.len(),
                action: action.clone(),
                dry_run: parameters.get("DryRun").is_some_and(|value| value == "true"),
                access_key: access_key.clone(),
                token: parameters.get("NextToken").cloned(),
                limit: parameters.get("MaxResults").and_then(|n| n.parse().ok()),
            };
            shared.calls.push(Call {
                at: Moment::now(),
                client,
                action,
                parameters,
                access_key,
                fault: fault.as_ref().map(|(fault, _)| *fault),
                executed: None,
                outcome: Outcome::Pending,
            });
            (entry, fault, shared.latency)
        };
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let reply = match fault {
            None => self.execute(&request, &entry).await,
            Some((fault, mut lifted)) => {
                let lifted = async move {
                    // The rules are gone only with the proxy.
                    let _ = lifted.wait_for(|lifted| *lifted).await;
                };
                self.fail(fault, lifted, &request, &entry).await
            }
        };
        self.note(&entry, |call| {
            call.outcome = match &reply {
                Reply::Answer(answer) => Outcome::Answered(answer.status),
                Reply::Cut(..) => Outcome::Cut,
                Reply::Close => Outcome::Closed,
                Reply::Reset => Outcome::Reset,
            };
        });
        reply
    }
}

impl Front {
    async fn fail(
        &self,
        fault: Fault,
        lifted: impl Future<Output = ()>,
        request: &Request,
        entry: &Entry,
    ) -> Reply {
        match fault {
            Fault::Delay(delay) => {
                tokio::time::sleep(delay).await;
                self.execute(request, entry).await
            }
            Fault::Hang => {
                lifted.await;
                self.execute(request, entry).await
            }
            Fault::HangAnswer => {
                let reply = self.execute(request, entry).await;
                lifted.await;
                reply
            }
            Fault::LoseAnswer => {
                self.execute(request, entry).await;
                Reply::Close
            }
            Fault::Truncate => match self.execute(request, entry).await {
                Reply::Answer(answer) => {
                    let half = answer.body.len() / 2;
                    Reply::Cut(answer, half)
                }
                other => other,
            },
            Fault::Reset => Reply::Reset,
            Fault::Throttle => Reply::Answer(canned::throttled()),
            Fault::InternalError => Reply::Answer(canned::internal_error()),
            Fault::Unavailable => Reply::Answer(canned::unavailable()),
            Fault::Denied => Reply::Answer(canned::denied(&entry.action)),
            Fault::FalseSuccess if entry.dry_run => Reply::Answer(canned::would_succeed()),
            Fault::FalseSuccess => Reply::Answer(canned::success(&entry.action)),
            Fault::Garbage => Reply::Answer(canned::garbage()),
        }
    }

    /// By the server, unless it is a DryRun.
    async fn execute(&self, request: &Request, entry: &Entry) -> Reply {
        let done =
            if entry.dry_run { self.rehearse(entry).await } else { self.forward(request, entry).await };
        match done {
            Ok(answer) => Reply::Answer(answer),
            Err(error) => {
                eprintln!("the proxy cannot pass {} on: {error:#}", entry.action);
                Reply::Close
            }
        }
    }

    async fn forward(&self, request: &Request, entry: &Entry) -> Result<Response> {
        let answer = {
            let _turn = self.turn.lock().await;
            let answer = http::forward(self.server, request).await?;
            let mut shared = lock(&self.shared);
            let order = shared.executed;
            shared.executed += 1;
            let done = Execution { order, at: Moment::now(), status: answer.status };
            shared.calls[entry.number].executed = Some(done);
            answer
        };
        let answer = canned::as_ec2_denies(&entry.action, answer);
        let size = match (lock(&self.shared).page, entry.limit) {
            (None, None) => return Ok(answer),
            (page, limit) => page.unwrap_or(usize::MAX).min(limit.unwrap_or(usize::MAX)),
        };
        canned::page(&entry.action, size, entry.token.as_deref(), answer)
    }

    /// moto would execute it. Where policies are enforced, it is asked about the permission by a call of the same
    /// user that lacks all parameters, and so does nothing.
    async fn rehearse(&self, entry: &Entry) -> Result<Response> {
        if !self.keys.is_enforced() {
            return Ok(canned::would_succeed());
        }
        let unknown = || {
            canned::error(401, "AuthFailure", "AWS was not able to validate the provided access credentials")
        };
        let Some(credentials) = entry.access_key.as_deref().and_then(|key| self.keys.find(key)) else {
            return Ok(unknown());
        };
        let form = form::encode(&[("Action", &entry.action), ("Version", "2016-11-15")]);
        let request = query(&self.server.to_string(), "ec2", &form, Some(&credentials));
        let _turn = self.turn.lock().await;
        let answer =
            http::forward(self.server, &request).await.context("moto does not say who may do what")?;
        let answer = canned::as_ec2_denies(&entry.action, answer);
        Ok(if [401, 403].contains(&answer.status) { answer } else { canned::would_succeed() })
    }

    fn note(&self, entry: &Entry, change: impl FnOnce(&mut Call)) {
        change(&mut lock(&self.shared).calls[entry.number]);
    }
}

/// The access key of `Authorization: AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/...`.
fn signer(request: &Request) -> Option<String> {
    let (_, credential) = request.header("authorization")?.split_once("Credential=")?;
    credential.split('/').next().map(str::to_owned)
}
