//! Majorities, also while the membership is changing.

use std::collections::BTreeSet;

use crate::model::NodeId;

/// The sets of voters of which a majority is needed: one, or two while a membership change is under
/// way (joint consensus).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quorum {
    configs: Vec<BTreeSet<NodeId>>,
}

impl Quorum {
    pub fn new(configs: Vec<BTreeSet<NodeId>>) -> Self {
        Self { configs }
    }

    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.configs.iter().flatten().copied().collect()
    }

    /// Whether those voters who satisfy the predicate are a majority of every set. False without voters.
    pub fn is_met(&self, by: impl Fn(NodeId) -> bool) -> bool {
        !self.configs.is_empty()
            && self.configs.iter().all(|c| c.iter().filter(|&&n| by(n)).count() * 2 > c.len())
    }

    /// Whose agreement a holder needs for its lease: a majority's, or, where it holds its lease alone, its own.
    pub fn to_hold(configs: Vec<BTreeSet<NodeId>>, holder: NodeId, alone: bool) -> Self {
        if alone { Self::new(vec![BTreeSet::from([holder])]) } else { Self::new(configs) }
    }

    /// Whose refusal a take-over from the holder needs: a majority's, and, where it may hold its lease alone, its
    /// own too. So whatever agreed to a lease and whatever lets a take-over happen have a voter in common.
    pub fn to_take_over(mut configs: Vec<BTreeSet<NodeId>>, holder: NodeId, alone: bool) -> Self {
        // Without voters nobody decides anything.
        if alone && !configs.is_empty() {
            configs.push(BTreeSet::from([holder]));
        }
        Self::new(configs)
    }

    /// The greatest value that a majority of every set has reached, each voter's value given by `of`.
    pub fn reached<T: Ord + Copy>(&self, of: impl Fn(NodeId) -> Option<T>) -> Option<T> {
        let per_config = self.configs.iter().map(|voters| {
            let mut values: Vec<T> = voters.iter().filter_map(|&n| of(n)).collect();
            values.sort_unstable_by(|a, b| b.cmp(a));
            values.get(voters.len() / 2).copied()
        });
        per_config.min().flatten()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quorum(configs: &[&[NodeId]]) -> Quorum {
        Quorum::new(configs.iter().map(|c| c.iter().copied().collect()).collect())
    }

    #[test]
    fn majority_of_one_to_five() {
        for (n, needed) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
            let q = Quorum::new(vec![(1..=n).collect()]);
            assert!(q.is_met(|v| v <= needed), "{needed} of {n}");
            assert!(!q.is_met(|v| v < needed), "{} of {n}", needed - 1);
            assert_eq!(q.reached(|v| (v <= needed).then_some(7)), Some(7));
            assert_eq!(q.reached(|v| (v < needed).then_some(7)), None);
        }
    }

    #[test]
    fn both_sets_of_a_joint_membership_count() {
        let q = quorum(&[&[1, 2, 3], &[3, 4, 5]]);
        assert!(!q.is_met(|v| v <= 3));
        assert!(q.is_met(|v| (2..=4).contains(&v)));
        assert_eq!(q.reached(|v| Some(10 - v)), Some(6), "the slower set decides");
    }

    #[test]
    fn nobody_is_no_majority() {
        assert!(!quorum(&[]).is_met(|_| true));
        assert_eq!(quorum(&[]).reached(Some), None);
    }

    #[test]
    fn who_may_hold_alone_is_asked_itself() {
        let configs = || vec![BTreeSet::from([1, 2, 3])];
        assert!(Quorum::to_hold(configs(), 1, true).is_met(|v| v == 1));
        assert!(!Quorum::to_hold(configs(), 1, false).is_met(|v| v == 1));
        let take_over = Quorum::to_take_over(configs(), 1, true);
        assert!(!take_over.is_met(|v| v != 1), "not without its word");
        assert!(!take_over.is_met(|v| v == 1), "its word alone does not do");
        assert!(take_over.is_met(|v| v != 3));
        assert!(Quorum::to_take_over(configs(), 1, false).is_met(|v| v != 1));
        assert!(!Quorum::to_take_over(vec![], 1, true).is_met(|_| true));
    }

    fn configs() -> impl Strategy<Value = Vec<BTreeSet<NodeId>>> {
        prop::collection::vec(prop::collection::btree_set(1..8_u64, 1..6), 1..3)
    }

    proptest! {
        /// The safety rule of leases: who agreed to one and who lets it be taken over are never strangers. A holder
        /// may count on a majority while others believe that it holds alone, never the other way round.
        #[test]
        fn a_lease_and_a_take_over_share_a_voter(
            configs in configs(), holder in 1..8_u64, alone in any::<bool>(), uses_it in any::<bool>(),
            agree in prop::collection::btree_set(1..8_u64, 0..8), refuse in prop::collection::btree_set(1..8_u64, 0..8),
        ) {
            let held = Quorum::to_hold(configs.clone(), holder, alone && uses_it).is_met(|v| agree.contains(&v));
            let taken = Quorum::to_take_over(configs, holder, alone).is_met(|v| refuse.contains(&v));
            if held && taken {
                prop_assert!(agree.intersection(&refuse).next().is_some(), "{agree:?} {refuse:?}");
            }
        }

        /// Whatever the voters are, also others than the holder knows of, which a majority could not do.
        #[test]
        fn who_holds_alone_is_safe_from_voters_it_does_not_know(
            known in configs(), newer in configs(), holder in 1..8_u64,
            refuse in prop::collection::btree_set(1..8_u64, 0..8),
        ) {
            prop_assert!(Quorum::to_hold(known, holder, true).is_met(|v| v == holder));
            let taken = Quorum::to_take_over(newer, holder, true).is_met(|v| refuse.contains(&v));
            prop_assert!(!taken || refuse.contains(&holder));
        }
    }
}
