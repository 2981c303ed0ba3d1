//! Whether those who stay can go on deciding when a node is taken out.

use std::collections::BTreeSet;

use crate::{
    core::{change::Refusal, quorum::Quorum},
    model::{ClusterState, NodeId},
};

/// The voters without `gone`, set by set; those that would be empty are left out.
pub(super) fn rest(configs: &[BTreeSet<NodeId>], gone: NodeId) -> Vec<BTreeSet<NodeId>> {
    let without = configs.iter().map(|c| c.iter().copied().filter(|id| *id != gone).collect::<BTreeSet<_>>());
    without.filter(|c| !c.is_empty()).collect()
}

/// `answered`: who was asked just now and answered. What was heard of a node a moment ago says nothing: it may have
/// died since, and its vote would be missed for ever.
pub(super) fn check(
    state: &ClusterState,
    rest: Vec<BTreeSet<NodeId>>,
    gone: NodeId,
    answered: &BTreeSet<NodeId>,
) -> Result<(), Refusal> {
    let silent = rest.iter().flatten().filter(|id| !answered.contains(id)).map(|id| state.node_name(*id));
    let silent: BTreeSet<String> = silent.map(|name| format!("'{name}'")).collect();
    if rest.is_empty() || Quorum::new(rest).is_met(|id| answered.contains(&id)) {
        return Ok(());
    }
    let silent = silent.into_iter().collect::<Vec<_>>().join(" and ");
    Err(Refusal(format!(
        "without node '{}' too few would be left to decide anything, for {silent} does not answer: bring it back, or \
         remove it first",
        state.node_name(gone)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::change::tests::cluster;

    fn allowed(configs: &[&[NodeId]], gone: NodeId, answered: &[NodeId]) -> bool {
        let configs: Vec<BTreeSet<NodeId>> = configs.iter().map(|c| c.iter().copied().collect()).collect();
        check(&cluster(), rest(&configs, gone), gone, &answered.iter().copied().collect()).is_ok()
    }

    #[test]
    fn a_majority_of_those_who_stay_must_be_there() {
        assert!(allowed(&[&[1, 2, 3]], 3, &[1, 2]), "a dead one goes");
        assert!(!allowed(&[&[1, 2, 3]], 2, &[1, 2]), "with one dead, a living one stays");
        assert!(allowed(&[&[1, 2, 3, 4]], 4, &[1, 2, 4]));
        assert!(allowed(&[&[1, 2]], 2, &[1]) && allowed(&[&[1]], 1, &[]));
        assert!(!allowed(&[&[1, 2, 3], &[1, 2]], 1, &[1, 3]), "of both sets");
    }

    #[test]
    fn the_refusal_names_who_is_missed() {
        let state = cluster();
        let refusal = check(&state, vec![[1, 3].into()], 2, &[1].into()).unwrap_err().0;
        assert!(refusal.contains("'b'") && refusal.contains("for 'c' does not answer"), "{refusal}");
    }
}
