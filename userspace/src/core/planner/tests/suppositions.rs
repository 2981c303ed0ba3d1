//! What would move where.

use super::{
    simulate::{WhatIf, simulate},
    *,
};
use crate::model::{Constraint, OrderKind, Score};

/// "p" and "q" in service on node 1, "r" on node 2.
fn three() -> ClusterState {
    let mut state = cluster();
    for (name, host, on) in [("p", 1, 1), ("q", 2, 1), ("r", 3, 2)] {
        let resource = resource(name, &format!("10.0.0.{host}/24"), &[(1, 1), (2, 2), (3, 3)]);
        done(&mut state, Change::Create { resource, on });
        done(&mut state, give(name, on, 0));
        done(&mut state, report(name, on, 1, Outcome::Started));
    }
    state
}

fn moves(state: &ClusterState, what: &[WhatIf]) -> Vec<(String, Option<NodeId>, Option<NodeId>)> {
    let before = state.clone();
    let moves = simulate(state, &seen(&[]), what);
    assert_eq!(state, &before);
    assert!(moves.iter().all(|m| !m.reason.is_empty()), "{moves:?}");
    moves.into_iter().map(|m| (m.tag.to_string(), m.from, m.to)).collect()
}

fn moved(
    name: &str,
    from: NodeId,
    to: impl Into<Option<NodeId>>,
) -> (String, Option<NodeId>, Option<NodeId>) {
    (name.to_owned(), Some(from), to.into())
}

#[test]
fn a_node_fails_or_goes_to_standby() {
    let state = three();
    assert_eq!(moves(&state, &[]), []);
    for what in [WhatIf::NodeFails(1), WhatIf::Standby(1)] {
        assert_eq!(
            moves(&state, std::slice::from_ref(&what)),
            [moved("p", 1, 2), moved("q", 1, 2)],
            "{what:?}"
        );
    }
    let both = [WhatIf::NodeFails(1), WhatIf::Standby(2)];
    assert_eq!(moves(&state, &both), [moved("p", 1, 3), moved("q", 1, 3), moved("r", 2, 3)]);
    let all = [WhatIf::NodeFails(1), WhatIf::NodeFails(2), WhatIf::Standby(3)];
    assert_eq!(moves(&state, &all), [moved("p", 1, None), moved("q", 1, None), moved("r", 2, None)]);
    let told = simulate(&state, &seen(&[]), &all);
    assert!(
        told[0].reason.contains("node 'a' fails") && told[0].reason.contains("c: on standby"),
        "{told:?}"
    );
}

#[test]
fn interfaces_fail() {
    let mut state = three();
    let two = Setting::Devices(vec!["eth0".to_owned(), "eth1".to_owned()]);
    done(&mut state, Change::Set { tag: tag("q"), node: None, setting: two });
    let fails = |device: &str| WhatIf::LinkFails { node: 1, device: device.to_owned() };
    assert_eq!(moves(&state, &[fails("eth0")]), [moved("p", 1, 2)], "'q' has another");
    assert_eq!(moves(&state, &[fails("eth0"), fails("eth1")]), [moved("p", 1, 2), moved("q", 1, 2)]);
    assert_eq!(moves(&state, &[fails("eth7")]), []);
}

#[test]
fn what_follows_from_constraints_is_told() {
    let mut state = three();
    let together = Constraint::Colocation { tag: tag("r"), with: tag("p"), score: Score::INFINITY };
    for (id, constraint) in [
        ("c", together),
        ("o", Constraint::Order { first: tag("p"), then: tag("r"), kind: OrderKind::Mandatory }),
    ] {
        done(&mut state, Change::AddConstraint { id: id.to_owned(), constraint });
    }
    // It would go to node 1 anyway: that is no consequence of the failure.
    assert_eq!(moves(&state, &[]), []);
    let fails = [WhatIf::NodeFails(1)];
    assert_eq!(moves(&state, &fails), [moved("p", 1, 2), moved("q", 1, 2), moved("r", 1, 2)]);
}
