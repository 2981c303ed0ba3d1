//! Holding a lease by one's own agreement alone (row CL-4): of two nodes, each keeps what it has when it loses the
//! other.
//!
//! A node asks the cluster for a *permission*, and extends its lease alone only while the replicated state, as it knows
//! it, has exactly the permission that it asked for. As long as the state has one, nobody takes over from the node
//! without the node's own refusal ([`super::quorum::Quorum::to_take_over`]). It gives the permission back itself, after
//! it has ceased to use it and the last lease extended so has run out. So it does not matter when anybody learns of a
//! change of the policy or of the members: a lease that is held alone is always covered by a permission in the state.
//!
//! Permissions are told apart ([`Alone`]): the return of an earlier one, which may still be on its way, ends no later
//! one; and a later life of the daemon uses none that an earlier one asked for and may be giving back.

use super::time::BootTime;
use crate::model::{Alone, ClusterState, Node, NodeId, Standing};

/// This node's side of it.
#[derive(Debug)]
pub struct Permission {
    asked: Option<Alone>,
    until: BootTime,
}

impl Permission {
    /// `until`: the deadline that was found in the kernel. An earlier life may have held it alone.
    pub fn new(until: BootTime) -> Self {
        Self { asked: None, until }
    }

    /// That this life of the daemon asked for and has not given up.
    pub fn asked(&self) -> Option<Alone> {
        self.asked
    }

    /// Counts from when the state has it.
    pub fn ask(&mut self, alone: Alone) {
        self.asked = Some(alone);
    }

    /// Extends the lease under no permission from now on. Answers until when the last such lease runs.
    pub fn give_up(&mut self) -> BootTime {
        self.asked = None;
        self.until
    }

    /// Whether the lease may be extended alone; `node` is this one, as the state has it.
    pub fn is_granted(&self, node: Option<&Node>) -> bool {
        self.asked.is_some() && node.is_some_and(|n| n.alone == self.asked)
    }

    /// The lease was extended alone.
    pub fn extended(&mut self, deadline: BootTime) {
        self.until = self.until.max(deadline);
    }
}

/// What is to be done about the permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// A permission of this life is wanted, and there is none.
    Ask,
    /// None may be used, and this one is still the cluster's to know of.
    Return(Alone),
    /// None may be used, and there is none to return.
    Stop,
}

/// `asked`: by this life of the daemon.
pub fn step(state: &ClusterState, me: NodeId, asked: Option<Alone>) -> Step {
    let Some(node) = state.nodes.get(&me) else { return Step::Stop };
    if state.freezes() {
        return match node.standing {
            Standing::Member if node.alone.is_none() || node.alone != asked => Step::Ask,
            Standing::Member | Standing::Joining => Step::Nothing,
            // Until it has rejoined.
            Standing::Deposed => Step::Stop,
        };
    }
    node.alone.map_or(Step::Stop, Step::Return)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        core::change::{Change, NewNode, apply},
        model::TwoNodes,
    };

    fn new(n: u8) -> NewNode {
        let at = ([10, 0, 0, n], 7411).into();
        NewNode { name: format!("n{n}"), rpc: at, paths: vec![at], witness: false }
    }

    fn two(policy: TwoNodes) -> ClusterState {
        let mut state = ClusterState::default();
        apply(&mut state, &Change::Found { name: "lab".into(), node: new(1) });
        apply(&mut state, &Change::Reserve { node: new(2) });
        apply(&mut state, &Change::Admit { node: 2 });
        state.defaults.two_nodes = policy;
        state
    }

    const MINE: Alone = Alone { life: 7, turn: 1 };
    const FORMER: Alone = Alone { life: 6, turn: 3 };

    #[test]
    fn asks_where_the_policy_says_so_and_returns_it_where_not() {
        let mut state = two(TwoNodes::Freeze);
        assert_eq!(step(&state, 1, None), Step::Ask);
        assert_eq!(step(&state, 1, Some(MINE)), Step::Ask, "asked, not granted");
        state.nodes.get_mut(&1).unwrap().alone = Some(FORMER);
        assert_eq!(step(&state, 1, None), Step::Ask, "that of an earlier life is not to be used");
        state.nodes.get_mut(&1).unwrap().alone = Some(MINE);
        assert_eq!(step(&state, 1, Some(MINE)), Step::Nothing);
        state.nodes.get_mut(&1).unwrap().standing = Standing::Deposed;
        assert_eq!(step(&state, 1, Some(MINE)), Step::Stop);
        state.nodes.get_mut(&1).unwrap().standing = Standing::Member;
        state.defaults.two_nodes = TwoNodes::Off;
        assert_eq!(step(&state, 1, Some(MINE)), Step::Return(MINE));
        state.nodes.get_mut(&1).unwrap().alone = None;
        assert_eq!(step(&state, 1, Some(MINE)), Step::Stop);
        assert_eq!(step(&state, 9, Some(MINE)), Step::Stop, "not of this cluster");
    }

    #[test]
    fn a_third_node_on_its_way_ends_it() {
        let mut state = two(TwoNodes::Freeze);
        state.nodes.get_mut(&2).unwrap().alone = Some(MINE);
        assert_eq!(step(&state, 2, Some(MINE)), Step::Nothing);
        apply(&mut state, &Change::Reserve { node: new(3) });
        assert_eq!(step(&state, 2, Some(MINE)), Step::Return(MINE));
    }

    #[test]
    fn only_what_was_asked_for_is_used_and_the_last_lease_is_remembered() {
        let mut state = two(TwoNodes::Freeze);
        let at = |ms| BootTime::ZERO.after(Duration::from_millis(ms));
        let mut permission = Permission::new(at(50));
        state.nodes.get_mut(&1).unwrap().alone = Some(FORMER);
        let granted = |p: &Permission, state: &ClusterState| p.is_granted(state.nodes.get(&1));
        assert!(!granted(&permission, &state));
        permission.ask(MINE);
        assert!(!granted(&permission, &state) && !permission.is_granted(None));
        state.nodes.get_mut(&1).unwrap().alone = Some(MINE);
        assert!(granted(&permission, &state));
        permission.extended(at(90));
        permission.extended(at(80));
        assert_eq!(permission.give_up(), at(90));
        assert!(!granted(&permission, &state), "the state may still have it");
        assert_eq!(Permission::new(at(50)).give_up(), at(50), "an earlier life's lease counts");
    }
}
