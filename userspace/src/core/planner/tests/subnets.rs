//! Monitored subnets (row NM-3).

use super::*;
use crate::model::MonitoredSubnet;

const SUBNETS: [&str; 2] = ["10.1.0.0/24", "10.2.0.0/24"];

/// In service on node 1, and in need of both subnets.
fn needing_both() -> ClusterState {
    let mut state = in_service_on(1);
    for subnet in SUBNETS {
        let settings = MonitoredSubnet::default();
        done(&mut state, Change::MonitorSubnet { subnet: subnet.parse().unwrap(), settings });
    }
    let setting = Setting::Subnets(SUBNETS.iter().map(|s| s.parse().unwrap()).collect());
    done(&mut state, Change::Set { tag: tag("vip"), node: None, setting });
    state
}

fn report_down(state: &mut ClusterState, node: NodeId, subnets: &[&str]) {
    let down = subnets.iter().map(|s| (s.parse().unwrap(), no_answer())).collect();
    done(state, Change::ReportSubnets { node, down });
}

#[test]
fn a_lost_subnet_moves_the_resource_and_its_return_does_not() {
    let mut state = needing_both();
    assert_eq!(planned(&state, &seen(&[])), []);
    report_down(&mut state, 1, &SUBNETS[1..]);
    let [decision] = &plan(&state, &seen(&[]))[..] else { panic!("one decision") };
    assert_eq!(decision.change, release(1));
    assert_eq!(
        decision.reason,
        "'vip' moves from node 'a' to 'b': subnet 10.2.0.0/24 is down there: no answer"
    );
    done(&mut state, release(1));
    assert_eq!(planned(&state, &seen(&[])), []);
    done(&mut state, report("vip", 1, 1, Outcome::Released));
    assert_eq!(planned(&state, &seen(&[])), [give("vip", 2, 1)]);
    done(&mut state, give("vip", 2, 1));
    done(&mut state, report("vip", 2, 2, Outcome::Started));
    report_down(&mut state, 1, &[]);
    assert_eq!(planned(&state, &seen(&[])), [], "intelligent: it stays");
    automatic(&mut state);
    assert_eq!(planned(&state, &seen(&[])), [release(2)]);
}

#[test]
fn a_fresh_loss_is_waited_on_until_it_is_known_who_else_has_it() {
    let mut state = needing_both();
    report_down(&mut state, 1, &SUBNETS[..1]);
    let lost: IpNet = SUBNETS[0].parse().unwrap();
    let fresh = Observed { fresh_losses: [(1, lost)].into(), ..seen(&[]) };
    assert_eq!(planned(&state, &fresh), []);
    assert_eq!(planned(&state, &Observed { fresh_losses: [(2, lost)].into(), ..seen(&[]) }), [release(1)]);
    // It is no place to start in the meantime.
    done(&mut state, release(1));
    done(&mut state, report("vip", 1, 1, Outcome::Released));
    assert_eq!(planned(&state, &fresh), [give("vip", 2, 1)]);
    // One of two losses is old enough.
    let mut state = needing_both();
    report_down(&mut state, 1, &SUBNETS);
    assert_eq!(planned(&state, &fresh), [release(1)]);
}

#[test]
fn only_a_node_with_all_subnets_gets_it() {
    let mut state = needing_both();
    report_down(&mut state, 1, &SUBNETS[..1]);
    report_down(&mut state, 2, &SUBNETS[1..]);
    done(&mut state, release(1));
    done(&mut state, report("vip", 1, 1, Outcome::Released));
    assert_eq!(planned(&state, &seen(&[])), [give("vip", 3, 1)]);
    report_down(&mut state, 3, &SUBNETS);
    assert_eq!(planned(&state, &seen(&[])), [], "nobody has all of them");
    report_down(&mut state, 2, &[]);
    assert_eq!(planned(&state, &seen(&[])), [give("vip", 2, 1)]);
}

#[test]
fn it_stays_where_nobody_is_better_off() {
    let mut state = needing_both();
    for node in 1..=3 {
        report_down(&mut state, node, &SUBNETS[..1]);
    }
    assert_eq!(planned(&state, &seen(&[])), []);
    wish(&mut state, Some(3));
    assert_eq!(planned(&state, &seen(&[])), [], "an operator's choice does not help either");
    // Also while the one that has all of them is not fit, or it has failed there.
    report_down(&mut state, 3, &[]);
    assert_eq!(planned(&state, &seen(&[(3, NodeHealth::default())])), []);
    state.placements.get_mut(&tag("vip")).unwrap().failed.insert(3, "failed".to_owned());
    assert_eq!(planned(&state, &seen(&[])), []);
}

#[test]
fn the_operators_choice_is_left_when_its_subnet_is_lost() {
    let mut state = needing_both();
    wish(&mut state, Some(1));
    report_down(&mut state, 1, &SUBNETS[..1]);
    assert_eq!(planned(&state, &seen(&[])), [release(1)]);
    done(&mut state, release(1));
    done(&mut state, report("vip", 1, 1, Outcome::Released));
    done(&mut state, give("vip", 2, 1));
    assert_eq!(state.placements[&tag("vip")].desired, Desired::InService { on: None });
    done(&mut state, report("vip", 2, 2, Outcome::Started));
    report_down(&mut state, 1, &[]);
    assert_eq!(planned(&state, &seen(&[])), [], "and it is not moved back by itself");
}

#[test]
fn the_operators_choice_is_preferred_as_a_refuge() {
    let mut state = needing_both();
    report_down(&mut state, 1, &SUBNETS);
    wish(&mut state, Some(3));
    let decisions = plan(&state, &seen(&[]));
    assert!(decisions[0].reason.contains("moves from node 'a' to 'c'"), "{decisions:?}");
}

#[test]
fn what_needs_no_subnet_is_left_alone() {
    let mut state = needing_both();
    done(&mut state, Change::Set { tag: tag("vip"), node: None, setting: Setting::Subnets(vec![]) });
    report_down(&mut state, 1, &SUBNETS);
    assert_eq!(planned(&state, &seen(&[])), []);
}

#[test]
fn a_proven_silent_owner_is_followed_by_one_with_all_subnets() {
    let mut state = needing_both();
    report_down(&mut state, 2, &SUBNETS[..1]);
    done(&mut state, Change::Depose { node: 1, lease_epoch: 1 });
    let grants = vec![NewGrant { tag: tag("vip"), to: 3, epoch: 1 }];
    let vacate = Change::Vacate { node: 1, lease_epoch: 2, grants };
    assert_eq!(planned(&state, &seen(&[(1, silent_below(2))])), [vacate]);
}
