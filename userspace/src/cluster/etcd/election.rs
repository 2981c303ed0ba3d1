//! Who plans. One key in etcd says who leads. It goes with an etcd lease of the claimant's, and whoever no
//! longer hears the claimant's heartbeats replaces it before that: so the loss of the leader's host costs no
//! etcd lease. The lease ends the claim of a leader that is heard and has lost etcd.
//!
//! A leader only proposes, and each proposal carries what it presumes: two that believe to lead do no harm.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use super::{
    kv::{Compare, KvError, Op},
    log::{Claim, Log},
    snapshot,
};
use crate::model::NodeId;

/// Of the claim's etcd lease. No shorter: it must outlast an election of etcd's own (0.75 to 2.2 s were
/// measured), and etcd prolongs all leases when its leader changes.
const TTL: Duration = Duration::from_secs(5);

/// Between two tries to tidy up, which are in vain while entries are made.
const TIDY: Duration = Duration::from_millis(500);

/// Whether a node was heard lately.
pub(crate) type Hears = Arc<dyn Fn(NodeId) -> bool + Send + Sync>;

/// Set once the heartbeats run.
pub(crate) type Ears = Arc<Mutex<Option<Hears>>>;

pub(crate) struct Election {
    pub(crate) me: NodeId,
    pub(crate) log: Arc<Log>,
    pub(crate) ears: Ears,
    /// Between two looks.
    pub(crate) pace: Duration,
    /// The claim that this node has made in this life.
    own: Option<Own>,
    /// Whether a snapshot is due is looked at from that index on.
    next_look: u64,
    /// Something may be left of what the last snapshot of this node replaced.
    untidy: bool,
    tidied: Instant,
    /// Since when somebody else ought to have claimed.
    waiting: Option<Instant>,
}

struct Own {
    lease: i64,
    /// When it was last known to be there.
    renewed: Instant,
    /// When that was asked, answered or not.
    asked: Instant,
}

/// What to do about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is right as it is.
    Follow,
    /// Claim, when so many others before this node have not done so in their turn.
    Claim { after: usize },
    /// This node cannot lead.
    Stand,
}

/// `hears` a majority of the voters, or nobody would follow what this node observes.
fn step(
    me: NodeId,
    claimant: Option<NodeId>,
    voters: &BTreeSet<NodeId>,
    hears: impl Fn(NodeId) -> bool,
) -> Step {
    let hears = |id: NodeId| id == me || hears(id);
    let claimant = claimant.filter(|c| voters.contains(c));
    if claimant.is_some_and(|c| c != me && hears(c)) {
        return Step::Follow;
    }
    let heard = voters.iter().filter(|v| hears(**v)).count();
    if !voters.contains(&me) || heard * 2 <= voters.len() {
        return Step::Stand;
    }
    if claimant == Some(me) {
        return Step::Follow;
    }
    Step::Claim { after: voters.iter().filter(|v| **v < me && hears(**v)).count() }
}

impl Election {
    pub(crate) fn new(me: NodeId, log: Arc<Log>, ears: Ears, pace: Duration) -> Self {
        Self {
            me,
            log,
            ears,
            pace,
            own: None,
            next_look: 0,
            untidy: false,
            tidied: Instant::now(),
            waiting: None,
        }
    }

    /// Runs until the store is closed.
    pub(crate) async fn run(mut self) {
        let mut claim = self.log.claim.subscribe();
        let mut trouble = self.log.trouble.subscribe();
        loop {
            let (revision, seen) = claim.borrow_and_update().clone();
            let lost = trouble.borrow_and_update().is_some();
            self.look(revision, seen, lost).await;
            if self.log.leadership().borrow().is_me {
                self.shelve().await;
            }
            tokio::select! {
                changed = claim.changed() => if changed.is_err() { return },
                changed = trouble.changed() => if changed.is_err() { return },
                () = sleep(self.pace) => {}
            }
        }
    }

    async fn look(&mut self, revision: i64, claim: Option<Claim>, lost: bool) {
        let voters = self.log.leadership().borrow().voters.clone();
        let hears = self.ears.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.renew().await;
        let own = self.own.as_ref().map(|o| o.lease);
        // A claim of this node's earlier life is nobody's.
        let claimant = claim.as_ref().filter(|c| c.node != self.me || own == Some(c.lease)).map(|c| c.node);
        let Some(hears) = hears.filter(|_| !lost) else {
            // Out of touch with etcd, or not heard yet: it cannot be said who leads, and it is not this node.
            let leader = claimant.filter(|c| !lost && *c != self.me);
            self.tell(revision, leader);
            return;
        };
        match step(self.me, claimant, &voters, &*hears) {
            Step::Follow => {
                self.waiting = None;
                self.tell(revision, claimant);
            }
            Step::Stand => {
                self.waiting = None;
                self.tell(revision, claimant.filter(|c| *c != self.me));
                if claimant == Some(self.me) {
                    self.resign(revision).await;
                }
            }
            Step::Claim { after } => {
                self.tell(revision, claimant.filter(|c| *c != self.me));
                let since = *self.waiting.get_or_insert_with(Instant::now);
                if since.elapsed() >= self.pace * 4 * after as u32
                    && let Err(e) = self.claim(revision, claim.is_some()).await
                {
                    tracing::debug!("the lead cannot be claimed: {e}");
                }
            }
        }
    }

    fn tell(&self, term: i64, leader: Option<NodeId>) {
        let is_me = leader == Some(self.me);
        if self.log.set_leader(term.unsigned_abs(), leader, is_me) {
            match leader {
                Some(_) if is_me => tracing::info!("this node leads in term {term}"),
                Some(id) => tracing::info!("node {id} leads in term {term}"),
                None => tracing::info!("no leader in term {term}"),
            }
        }
    }

    /// Keeps the claim's lease, and forgets it when it is gone or may be.
    async fn renew(&mut self) {
        let Some(own) = &mut self.own else { return };
        if own.asked.elapsed() >= TTL / 4 {
            own.asked = Instant::now();
            let asked = own.asked;
            match timeout(TTL / 4, self.log.kv.keep_alive(own.lease)).await {
                Ok(Ok(true)) => own.renewed = asked,
                Ok(Ok(false)) => return self.own = None,
                Ok(Err(_)) | Err(_) => {}
            }
        }
        if own.renewed.elapsed() >= TTL {
            self.own = None;
        }
    }

    async fn claim(&mut self, revision: i64, present: bool) -> Result<(), KvError> {
        let asked = Instant::now();
        let lease = self.log.kv.grant(TTL).await?;
        self.own = Some(Own { lease, renewed: asked, asked });
        let key = self.log.keys.leader();
        let claim = serde_json::to_vec(&Claim { node: self.me, lease })
            .map_err(|e| KvError::Refused(e.to_string()))?;
        // Of the same cluster still.
        let mut compares: Vec<Compare> = self.log.presumes(0).into_iter().take(1).collect();
        compares.push(if present {
            Compare::Revision(key.clone(), revision)
        } else {
            Compare::Absent(key.clone())
        });
        let ops = vec![Op::Put(key, claim, Some(lease))];
        self.log.kv.commit(compares, ops).await?;
        // Whoever was first is seen by that.
        self.log.catch_up().await.map_err(|e| KvError::Failed(e.to_string()))
    }

    /// Others hear this node, and would wait for what it does.
    async fn resign(&mut self, revision: i64) {
        self.own = None;
        let key = self.log.keys.leader();
        let ops = vec![Op::Delete(key.clone(), format!("{key}\0"))];
        if let Err(e) = self.log.kv.commit(vec![Compare::Revision(key, revision)], ops).await {
            tracing::debug!("the lead cannot be given away, it will run out: {e}");
        }
    }

    async fn shelve(&mut self) {
        if self.untidy && self.tidied.elapsed() >= TIDY {
            self.tidied = Instant::now();
            match snapshot::tidy(&self.log).await {
                Ok(done) => self.untidy = !done,
                Err(e) => tracing::debug!("not tidied up yet: {e}"),
            }
        }
        let applied = self.log.image().applied;
        if applied < self.next_look {
            return;
        }
        match snapshot::take(&self.log, snapshot::EVERY).await {
            Ok((taken, due)) => {
                self.untidy |= taken;
                self.next_look = due;
            }
            Err(e) => {
                tracing::warn!("no snapshot could be taken, the log goes on growing: {e}");
                self.next_look = applied + snapshot::EVERY / 10;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(me: NodeId, claimant: Option<NodeId>, heard: &[NodeId]) -> Step {
        step(me, claimant, &(1..=3).collect(), |id| heard.contains(&id))
    }

    #[test]
    fn the_lowest_that_is_heard_comes_first() {
        assert_eq!(at(1, None, &[2, 3]), Step::Claim { after: 0 });
        assert_eq!(at(2, None, &[1, 3]), Step::Claim { after: 1 });
        assert_eq!(at(3, None, &[1, 2]), Step::Claim { after: 2 });
        assert_eq!(at(3, None, &[2]), Step::Claim { after: 1 });
    }

    #[test]
    fn a_claim_stands_while_the_claimant_is_heard() {
        assert_eq!(at(1, Some(3), &[2, 3]), Step::Follow);
        assert_eq!(at(1, Some(3), &[2]), Step::Claim { after: 0 });
        assert_eq!(at(2, Some(3), &[1]), Step::Claim { after: 1 });
        assert_eq!(at(3, Some(3), &[2]), Step::Follow);
        assert_eq!(at(1, Some(9), &[2, 9]), Step::Claim { after: 0 }, "no longer a member");
    }

    #[test]
    fn who_hears_no_majority_does_not_lead() {
        assert_eq!(at(3, Some(3), &[]), Step::Stand);
        assert_eq!(at(1, None, &[]), Step::Stand);
        assert_eq!(at(4, None, &[1, 2, 3]), Step::Stand, "not a voter");
        assert_eq!(step(1, None, &[1].into(), |_| false), Step::Claim { after: 0 });
    }
}
