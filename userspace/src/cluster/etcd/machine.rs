//! The replicated state as far as this node has applied it, and who votes on leases.
//!
//! The voters are the nodes that the state calls admitted, and the index of the entry that changed them last
//! is the number of the membership. Leases under an older set are refused only by voters that know a newer
//! one, so a change of the voters may follow another only once a majority knows that one (`Log::propose`
//! asks); an entry that changes them says after which membership it was made, and does nothing after another.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::parts::Parts;
use crate::{
    core::change::{self, Applied, Change, Refusal},
    model::{ClusterState, NodeId, Standing},
};

/// A change in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Entry {
    /// Of this proposal alone: who repeats it after a lost answer finds it by that.
    pub(crate) id: String,
    /// Changes the voters, and presumes that this membership is still the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) membership: Option<u64>,
    pub(crate) change: Change,
}

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Applied(Applied),
    /// It would change the voters after another change of them that it did not know.
    Overtaken,
}

/// The whole state at an index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Image {
    pub(crate) applied: u64,
    pub(crate) membership: u64,
    pub(crate) state: Arc<ClusterState>,
}

#[derive(Default)]
pub(crate) struct Machine {
    pub(crate) now: Image,
    /// Every single entry after this one was applied here.
    pub(crate) known_from: u64,
    /// How often entries were skipped for a snapshot: what became of them is not known here.
    pub(crate) jumps: u64,
    /// Entries whose text is in parts of their own.
    pub(crate) long: BTreeMap<u64, Parts>,
    /// Proposals of this node that wait for their outcome.
    waiting: HashMap<String, Option<Outcome>>,
}

pub(crate) fn voters(state: &ClusterState) -> BTreeSet<NodeId> {
    state.nodes.values().filter(|n| n.standing != Standing::Joining).map(|n| n.id).collect()
}

/// Any two majorities of the two sets share a voter. The founder has nobody before it.
fn one_at_a_time(old: &BTreeSet<NodeId>, new: &BTreeSet<NodeId>) -> bool {
    old.is_empty() || old.symmetric_difference(new).count() <= 1
}

/// Whether a change would change the voters.
pub(crate) fn changes_voters(state: &ClusterState, change: &Change) -> bool {
    let mut after = state.clone();
    change::apply(&mut after, change);
    voters(state) != voters(&after)
}

impl Machine {
    /// Goes on from what an earlier life remembered.
    pub(crate) fn new(image: Image) -> Self {
        Self { known_from: image.applied, now: image, ..Self::default() }
    }

    /// Applies the next entry; false when it is not the next.
    pub(crate) fn apply(&mut self, index: u64, entry: &Entry) -> bool {
        if index != self.now.applied + 1 {
            return false;
        }
        let before = self.now.state.clone();
        let applied = change::apply(Arc::make_mut(&mut self.now.state), &entry.change);
        let mut outcome = Outcome::Applied(applied);
        let (old, new) = (voters(&before), voters(&self.now.state));
        if old != new {
            if !one_at_a_time(&old, &new) {
                self.now.state = before;
                let rule = "the members of a cluster are added and removed one at a time";
                outcome = Outcome::Applied(Applied::Refused(Refusal(rule.to_owned())));
            } else if entry.membership != Some(self.now.membership) {
                self.now.state = before;
                outcome = Outcome::Overtaken;
            } else {
                self.now.membership = index;
            }
        }
        self.now.applied = index;
        if let Some(waiting) = self.waiting.get_mut(&entry.id) {
            *waiting = Some(outcome);
        }
        true
    }

    /// Goes on from a newer image.
    pub(crate) fn jump(&mut self, image: Image) {
        if image.applied > self.now.applied {
            self.known_from = image.applied;
            self.now = image;
            self.jumps += 1;
        }
    }

    pub(crate) fn expect(&mut self, id: &str) {
        self.waiting.entry(id.to_owned()).or_default();
    }

    /// What became of an expected entry, if it was applied.
    pub(crate) fn outcome(&self, id: &str) -> Option<Outcome> {
        self.waiting.get(id).cloned().flatten()
    }

    pub(crate) fn forget(&mut self, id: &str) {
        self.waiting.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::change::NewNode;

    fn apply(machine: &mut Machine, membership: Option<u64>, change: Change) -> Outcome {
        let index = machine.now.applied + 1;
        let entry = Entry { id: index.to_string(), membership, change };
        machine.expect(&entry.id);
        assert!(machine.apply(index, &entry));
        machine.outcome(&entry.id).unwrap()
    }

    #[test]
    fn a_change_of_voters_after_another_that_it_did_not_know_does_nothing() {
        let node = |n: u8| {
            let at = |port| std::net::SocketAddr::from(([127, 0, 0, n], port));
            NewNode { name: format!("n{n}"), rpc: at(1), paths: vec![at(2)], witness: false }
        };
        let done = Outcome::Applied(Applied::Done);
        let mut m = Machine::default();
        assert_eq!(apply(&mut m, Some(0), Change::Found { name: "lab".into(), node: node(1) }), done);
        for n in [2, 3] {
            apply(&mut m, None, Change::Reserve { node: node(n) });
        }
        assert_eq!((m.now.membership, m.now.applied), (1, 3));
        assert_eq!(apply(&mut m, None, Change::Admit { node: 2 }), Outcome::Overtaken, "it presumes nothing");
        assert_eq!(apply(&mut m, Some(1), Change::Admit { node: 2 }), done);
        // Its maker asked whether the founder's set is known, when it was the newest.
        assert_eq!(apply(&mut m, Some(1), Change::Admit { node: 3 }), Outcome::Overtaken);
        assert_eq!((voters(&m.now.state), m.now.membership), ([1, 2].into(), 5));
        assert_eq!(apply(&mut m, Some(5), Change::Admit { node: 3 }), done);
        assert_eq!((voters(&m.now.state), m.now.membership), ([1, 2, 3].into(), 7));
        assert_eq!(apply(&mut m, None, Change::Admit { node: 3 }), done, "changes nothing");
        let entry = Entry { id: "x".into(), membership: None, change: Change::Admit { node: 3 } };
        assert!(!m.apply(7, &entry) && !m.apply(10, &entry), "only the next entry");
    }

    #[test]
    fn neighbouring_sets_of_voters_share_a_voter_in_any_two_majorities() {
        let sets =
            (0_u64..1 << 5).map(|bits| (0..5).filter(|i| bits >> i & 1 == 1).collect::<BTreeSet<NodeId>>());
        let sets: Vec<_> = sets.filter(|s| !s.is_empty()).collect();
        let majorities = |of: &BTreeSet<NodeId>| {
            let of = of.clone();
            let all = sets.iter().filter(move |s| s.is_subset(&of) && s.len() * 2 > of.len());
            all.cloned().collect::<Vec<_>>()
        };
        for old in &sets {
            for new in sets.iter().filter(|new| one_at_a_time(old, new)) {
                for a in majorities(old) {
                    assert!(majorities(new).iter().all(|b| !a.is_disjoint(b)), "{old:?} {new:?}");
                }
            }
        }
        assert!(one_at_a_time(&BTreeSet::new(), &[1].into()), "the founder");
        assert!(!one_at_a_time(&[1, 2, 3].into(), &[1, 2, 4].into()), "a replacement is two changes");
    }
}
