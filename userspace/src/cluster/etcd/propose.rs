//! Making entries: one task of a node makes all of its proposals, many in one transaction.
//!
//! The outcome of a transaction may be unknown: its answer was lost. Then the log is read: the entry is there
//! (it is known by its id), or the transaction is tried again. Both the lost try and the new one presume the
//! same head, so at most one of them is carried out: nothing is ever applied twice.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::join_all;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout_at},
};

use super::{
    kv::{KvError, Op},
    log::{INLINE, Log, Stored},
    machine::{Entry, Outcome, changes_voters},
    parts::{self, PART, Parts},
};
use crate::{
    cluster::{
        identity::random,
        store::{StoreError, Trouble},
    },
    core::{
        change::{Applied, Change},
        quorum::Quorum,
    },
    model::NodeId,
};

/// Entries of one transaction; etcd allows 128 operations.
const BATCH: usize = 64;

/// Proposals that may queue.
const QUEUE: usize = 4096;

/// Between two attempts when etcd does not answer.
const RETRY: Duration = Duration::from_millis(50);

/// How far another node has applied the log.
#[async_trait]
pub(crate) trait Known: Send + Sync + 'static {
    /// None: it does not answer.
    async fn applied(&self, node: NodeId) -> Option<u64>;
}

struct Proposal {
    entry: Entry,
    text: Vec<u8>,
    /// Where the text is, once it is written there.
    parts: Option<Parts>,
    /// A try was made whose outcome is not known.
    doubtful: bool,
    jumps: u64,
    answer: oneshot::Sender<Result<Outcome, StoreError>>,
}

#[derive(Clone)]
pub(crate) struct Proposer {
    log: Arc<Log>,
    known: Arc<dyn Known>,
    queue: mpsc::Sender<Proposal>,
}

/// A name that nobody else has.
pub(crate) fn unique() -> Result<String, StoreError> {
    let bytes: [u8; 16] = random().map_err(|e| StoreError::Storage(e.to_string()))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

fn no_answer(trouble: &Option<Trouble>) -> StoreError {
    let reason = trouble.as_ref().map_or("etcd did not answer in time", |t| t.reason.as_str());
    StoreError::Away(format!("{reason}; look whether the change was made"))
}

impl Proposer {
    /// Must be called within the runtime on which the entries are to be made.
    pub(crate) fn start(log: Arc<Log>, known: Arc<dyn Known>) -> Self {
        let (queue, proposals) = mpsc::channel(QUEUE);
        tokio::spawn(make(log.clone(), proposals));
        Self { log, known, queue }
    }

    /// Commits a change and answers what it answered when it was applied.
    pub(crate) async fn propose(&self, change: Change, deadline: Instant) -> Result<Applied, StoreError> {
        loop {
            let now = self.log.image();
            let membership = if changes_voters(&now.state, &change) {
                self.membership_is_known(deadline).await?;
                Some(self.log.image().membership)
            } else {
                None
            };
            let entry = Entry { id: unique()?, membership, change: change.clone() };
            let text = serde_json::to_vec(&entry).map_err(|e| StoreError::Etcd(e.to_string()))?;
            let (answer, answered) = oneshot::channel();
            let proposal = Proposal { entry, text, parts: None, doubtful: false, jumps: 0, answer };
            let late = || no_answer(&self.log.trouble.borrow());
            let stopping = |()| StoreError::NoQuorum("vipd is stopping".into());
            timeout_at(deadline, self.queue.send(proposal))
                .await
                .map_err(|_| late())?
                .map_err(|_| stopping(()))?;
            let outcome =
                timeout_at(deadline, answered).await.map_err(|_| late())?.map_err(|_| stopping(()))??;
            match outcome {
                Outcome::Applied(applied) => return Ok(applied),
                Outcome::Overtaken if Instant::now() < deadline => {}
                Outcome::Overtaken => {
                    return Err(StoreError::NoQuorum(
                        "others are changing the members at the same time".into(),
                    ));
                }
            }
        }
    }

    /// Until a majority of the voters knows that they are the voters: from then on no majority of the voters
    /// before them renews a lease. See [`super::machine`].
    async fn membership_is_known(&self, deadline: Instant) -> Result<(), StoreError> {
        loop {
            let lead = self.log.leadership().borrow().clone();
            if lead.voters.is_empty() {
                return Ok(());
            }
            let asked = lead.voters.iter().map(|voter| async { (*voter, self.known.applied(*voter).await) });
            let asked = timeout_at(deadline, join_all(asked)).await.unwrap_or_default();
            let knows = |voter| asked.iter().any(|(v, at)| *v == voter && *at >= Some(lead.membership));
            if Quorum::new(lead.configs).is_met(knows) {
                return Ok(());
            }
            if Instant::now() + RETRY >= deadline {
                return Err(StoreError::NoQuorum(
                    "the members are changed one at a time, and a majority of the nodes has yet to learn of the \
                     last change"
                        .into(),
                ));
            }
            sleep(RETRY).await;
        }
    }
}

/// Makes the proposals until all who could propose are gone.
async fn make(log: Arc<Log>, mut proposals: mpsc::Receiver<Proposal>) {
    let mut open: VecDeque<Proposal> = VecDeque::new();
    let mut lost = 0;
    loop {
        if open.is_empty() {
            match proposals.recv().await {
                Some(proposal) => open.push_back(proposal),
                None => return,
            }
        }
        while open.len() < BATCH
            && let Ok(proposal) = proposals.try_recv()
        {
            open.push_back(proposal);
        }
        // Nobody waits for these any more.
        open.retain(|p| {
            let closed = p.answer.is_closed();
            if closed {
                log.machine().forget(&p.entry.id);
            }
            !closed
        });
        match attempt(&log, &mut open).await {
            Ok(true) => lost = 0,
            Ok(false) => {
                lost += 1;
                // Another node was first: it goes on, and so do we, not in step with it.
                if lost > 1 {
                    sleep(jitter(lost)).await;
                }
            }
            Err(e) => {
                if let KvError::Refused(reason) = e
                    && let Some(first) = open.pop_front()
                {
                    log.machine().forget(&first.entry.id);
                    // Whoever proposed it may have given up.
                    let _ = first.answer.send(Err(KvError::Refused(reason).into()));
                } else {
                    sleep(RETRY).await;
                }
            }
        }
        settle(&log, &mut open);
    }
}

/// Up to a few milliseconds, longer the more often it was in vain.
fn jitter(lost: u32) -> Duration {
    let [byte] = random().unwrap_or([0]);
    Duration::from_micros(u64::from(byte) * u64::from(lost.min(16)) * 4)
}

/// Tries to append what is open; whether it was appended. The log is read where that is not certain.
async fn attempt(log: &Log, open: &mut VecDeque<Proposal>) -> Result<bool, KvError> {
    let head = {
        let mut machine = log.machine();
        open.iter_mut().for_each(|p| {
            machine.expect(&p.entry.id);
            if !p.doubtful {
                p.jumps = machine.jumps;
            }
        });
        machine.now.applied
    };
    let mut compares = log.presumes(head);
    let mut ops = Vec::new();
    let mut size = 0;
    let mut count = 0;
    for proposal in open.iter_mut() {
        let index = head + 1 + count as u64;
        let stored = if proposal.text.len() <= INLINE {
            serde_json::to_vec(&Stored::Here(&proposal.entry))
        } else {
            let parts = match &proposal.parts {
                Some(parts) => parts.clone(),
                None => parts::write(&*log.kv, &log.keys, proposal.entry.id.clone(), &proposal.text).await?,
            };
            compares.push(parts.present(&log.keys));
            proposal.parts = Some(parts.clone());
            serde_json::to_vec(&Stored::<Entry>::Parts(parts))
        };
        let stored = stored.map_err(|e| KvError::Refused(e.to_string()))?;
        size += stored.len();
        if size > PART && count > 0 {
            break;
        }
        ops.push(Op::Put(log.keys.entry(index), stored, None));
        count += 1;
    }
    if count == 0 {
        return Ok(true);
    }
    ops.push(Op::Put(log.keys.head(), (head + count as u64).to_string().into_bytes(), None));
    match log.kv.commit(compares, ops).await {
        Ok(true) => {
            for (n, p) in open.iter().take(count).enumerate() {
                log.apply(head + 1 + n as u64, &p.entry, p.parts.clone());
            }
            Ok(true)
        }
        Ok(false) => {
            // Either another was first, or parts were tidied away, or an earlier try of this one succeeded.
            open.iter_mut().take(count).for_each(|p| {
                p.doubtful = true;
                p.parts = None;
            });
            log.catch_up().await.map_err(failed)?;
            // Had it been carried out, it would be among what was read.
            let jumps = log.machine().jumps;
            open.iter_mut().take(count).filter(|p| p.jumps == jumps).for_each(|p| p.doubtful = false);
            Ok(false)
        }
        Err(KvError::Refused(reason)) => Err(KvError::Refused(reason)),
        Err(KvError::Failed(reason)) => {
            open.iter_mut().take(count).for_each(|p| p.doubtful = true);
            log.catch_up().await.map_err(failed)?;
            Err(KvError::Failed(reason))
        }
    }
}

fn failed(e: StoreError) -> KvError {
    KvError::Failed(e.to_string())
}

/// Answers those whose outcome is known.
fn settle(log: &Log, open: &mut VecDeque<Proposal>) {
    let mut rest = VecDeque::new();
    for proposal in open.drain(..) {
        let id = proposal.entry.id.clone();
        let mut machine = log.machine();
        let outcome = match machine.outcome(&id) {
            Some(outcome) => Ok(outcome),
            None if proposal.doubtful && machine.jumps != proposal.jumps => Err(StoreError::NoQuorum(
                "this node was left behind while it made the change; look whether it was made".into(),
            )),
            None => {
                rest.push_back(proposal);
                continue;
            }
        };
        machine.forget(&id);
        // Whoever proposed it may have given up.
        let _ = proposal.answer.send(outcome);
    }
    *open = rest;
}
