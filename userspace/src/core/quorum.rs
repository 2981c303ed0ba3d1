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
}
