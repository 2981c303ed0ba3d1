//! Duties of nodes, connectivity hosts, defaults and policies, and batches.

use std::collections::BTreeSet;

use super::*;
use crate::model::{Connectivity, Score, Threshold};

fn duty(node: NodeId, duty: Duty) -> Change {
    Change::SetNode { node, duty }
}

fn set(setting: Setting) -> Change {
    Change::Set { tag: tag("vip"), node: None, setting }
}

#[test]
fn nodes_are_sent_to_standby_and_maintenance_and_back() {
    let mut state = cluster();
    done(&mut state, duty(1, Duty::Standby));
    assert!(state.nodes[&1].standby && !state.nodes[&1].is_available());
    done(&mut state, duty(1, Duty::Maintenance(true)));
    done(&mut state, duty(1, Duty::Online));
    assert!(state.nodes[&1].maintenance && !state.nodes[&1].standby, "online ends no maintenance");
    done(&mut state, duty(1, Duty::Maintenance(false)));
    assert!(state.nodes[&1].is_available());
    state.nodes.get_mut(&1).unwrap().gave_up = Some("failfast".to_owned());
    assert!(!state.nodes[&1].is_available());
    done(&mut state, duty(1, Duty::Online));
    assert_eq!(state.nodes[&1].gave_up, None);
    refused(&state, duty(4, Duty::Standby), &["'w' is a witness", "nothing to take from it"]);
    refused(&state, duty(9, Duty::Standby), &["no node number 9", "vipctl status"]);
}

fn hosts(names: &[&str]) -> BTreeSet<IpAddr> {
    names.iter().map(|h| h.parse().unwrap()).collect()
}

fn connectivity(names: &[&str]) -> Connectivity {
    Connectivity { hosts: hosts(names), ..Connectivity::default() }
}

#[test]
fn connectivity_hosts_are_watched_and_reported() {
    let mut state = with_vip();
    let two = connectivity(&["192.0.2.1", "192.0.2.2"]);
    done(&mut state, Change::SetConnectivity { settings: two });
    let lost = |node, names: &[&str]| Change::ReportConnectivity { node, unreached: hosts(names) };
    done(&mut state, lost(1, &["192.0.2.1", "198.51.100.9"]));
    assert_eq!((state.reached_by(1), state.reached_by(2)), (1, 2));
    assert_eq!(state.unreached[&1], hosts(&["192.0.2.1"]), "others are not asked for");
    refused(&state, lost(9, &[]), &["no node number 9"]);
    // Without the host nobody misses it.
    done(&mut state, Change::SetConnectivity { settings: connectivity(&["192.0.2.2"]) });
    assert!(state.unreached.is_empty());
    done(&mut state, lost(1, &["192.0.2.2"]));
    done(&mut state, lost(1, &[]));
    assert!(state.unreached.is_empty());
}

#[test]
fn useless_connectivity_hosts_are_refused() {
    let state = with_vip();
    let set = |settings| Change::SetConnectivity { settings };
    refused(
        &state,
        set(connectivity(&["10.0.0.7"])),
        &["10.0.0.7 is a virtual address (of 'vip')", "outside"],
    );
    let many: Vec<String> = (0..65).map(|n| format!("192.0.2.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    refused(&state, set(connectivity(&many)), &["65 hosts are too many", "64 at most"]);
    refused(&state, set(connectivity(&["224.0.0.1"])), &["224.0.0.1"]);
    for wrong in [
        Connectivity { interval: Duration::ZERO, ..connectivity(&["192.0.2.1"]) },
        Connectivity { fall: 0, ..connectivity(&["192.0.2.1"]) },
        Connectivity { rise: 0, ..connectivity(&["192.0.2.1"]) },
    ] {
        refused(&state, set(wrong), &["the connectivity hosts"]);
    }
}

#[test]
fn policies_are_the_hierarchys_or_the_resources_own() {
    let mut state = with_vip();
    let child = resource("child", "10.0.0.8/24", &[(1, 10), (2, 20), (3, 30)]);
    done(&mut state, Change::Create { resource: child, on: 1 });
    done(&mut state, Change::Depend { parent: tag("vip"), child: tag("child") });
    for setting in [
        Setting::Switchback(Switchback::Automatic),
        Setting::Stickiness(Some(Score::new(7))),
        Setting::Maintenance(true),
        Setting::IgnoresConnectivity(true),
        Setting::MigrationThreshold(Some(Threshold::Failures(3))),
        Setting::FailureTimeout(Some(Duration::from_secs(5))),
        Setting::ServiceFailfast(true),
        Setting::NodeFailfast(true),
    ] {
        let for_one = Change::Set { tag: tag("vip"), node: Some(1), setting: setting.clone() };
        refused(&state, for_one, &["for 'vip' as a whole", "without --node"]);
        done(&mut state, set(setting));
    }
    let (vip, child) = (&state.resources[&tag("vip")], &state.resources[&tag("child")]);
    assert_eq!(child.switchback, Switchback::Automatic);
    assert_eq!(child.policy.stickiness, vip.policy.stickiness);
    assert!(child.policy.maintenance && child.policy.ignores_connectivity);
    assert_eq!(vip.policy.migration_threshold, Some(Threshold::Failures(3)));
    assert!(vip.policy.service_failfast && vip.policy.node_failfast);
    let own = (child.policy.migration_threshold, child.policy.failure_timeout);
    assert_eq!(own, (None, None), "how often it may fail is each resource's own");
    assert!(!child.policy.service_failfast && !child.policy.node_failfast);
    done(&mut state, Change::Set { tag: tag("child"), node: Some(2), setting: Setting::Priority(25) });
    assert_eq!(state.resources[&tag("vip")].nodes[&2].priority, 25, "one priority for all members");
}

#[test]
fn thresholds_and_times_have_bounds() {
    let mut state = with_vip();
    let none = Threshold::Failures(0);
    let says = ["0 failures", "1 or more", "unlimited"];
    refused(&state, set(Setting::MigrationThreshold(Some(none))), &says);
    refused(&state, Change::SetDefault { setting: DefaultSetting::MigrationThreshold(none) }, &says);
    for time in [Duration::from_millis(999), Duration::from_secs(31 * 24 * 3600)] {
        let says = ["cannot be forgotten after", "1 second to 30 days"];
        refused(&state, set(Setting::FailureTimeout(Some(time))), &says);
        refused(&state, Change::SetDefault { setting: DefaultSetting::FailureTimeout(time) }, &says);
    }
    for setting in [
        DefaultSetting::Stickiness(Score::new(9)),
        DefaultSetting::MigrationThreshold(Threshold::Failures(2)),
        DefaultSetting::FailureTimeout(Duration::from_secs(9)),
        DefaultSetting::Maintenance(true),
    ] {
        done(&mut state, Change::SetDefault { setting });
    }
    let policy = &state.resources[&tag("vip")].policy;
    assert_eq!(policy.stickiness(&state.defaults), Score::new(9));
    assert_eq!(policy.migration_threshold(&state.defaults), Threshold::Failures(2));
    assert_eq!(policy.failure_timeout(&state.defaults), Duration::from_secs(9));
    assert!(state.in_maintenance(&state.resources[&tag("vip")], None));
}

#[test]
fn failures_are_counted_up_to_the_threshold() {
    let mut state = in_service();
    done(&mut state, set(Setting::MigrationThreshold(Some(Threshold::Failures(3)))));
    let recovered = |count| report("vip", 1, 1, Outcome::Recovered { count, reason: "gone".to_owned() });
    for (count, counted) in [(1, 1), (1, 1), (2, 2)] {
        done(&mut state, recovered(count));
        assert_eq!(place(&state, "vip").failures[&1].count, counted, "a repeated report counts once");
        assert!(place(&state, "vip").failed.is_empty());
    }
    done(&mut state, recovered(3));
    assert!(place(&state, "vip").failed[&1].contains("failed 3 times"));
    assert_eq!(
        owner(&state, "vip"),
        Some((1, Phase::InService)),
        "it stays in service until it can be moved"
    );
    done(&mut state, Change::Forgive { tag: tag("vip"), node: 1 });
    assert!(place(&state, "vip").failed.is_empty() && place(&state, "vip").failures.is_empty());
}

#[test]
fn failfast_gives_up_the_node() {
    for (setting, started, gives_up) in [
        (Setting::ServiceFailfast(true), true, true),
        (Setting::ServiceFailfast(true), false, false),
        (Setting::NodeFailfast(true), false, true),
        (Setting::NodeFailfast(true), true, true),
        (Setting::NodeFailfast(false), true, false),
    ] {
        let mut state = with_vip();
        done(&mut state, set(setting.clone()));
        done(&mut state, give("vip", 1, 0));
        if started {
            done(&mut state, report("vip", 1, 1, Outcome::Started));
        }
        done(&mut state, report("vip", 1, 1, failure()));
        let reason = state.nodes[&1].gave_up.as_deref();
        assert_eq!(reason.is_some(), gives_up, "{setting:?}, started {started}");
        assert!(reason.is_none_or(|r| r.contains("failfast of 'vip': no carrier")));
    }
}

#[test]
fn a_batch_is_all_or_nothing_and_of_its_revision() {
    let mut state = with_vip();
    let revision = state.revision;
    let good = duty(1, Duty::Standby);
    let bad = duty(4, Duty::Standby);
    let batch = |revision, changes: &[&Change]| Change::Batch {
        revision,
        changes: changes.iter().map(|c| (*c).clone()).collect(),
    };
    refused(&state, batch(None, &[&good, &bad]), &["'w' is a witness"]);
    refused(&state, batch(Some(revision + 1), &[&good]), &["by somebody else", "look again"]);
    done(&mut state, batch(Some(revision), &[&good, &duty(2, Duty::Standby)]));
    assert!(state.nodes[&1].standby && state.nodes[&2].standby);
    assert_eq!(state.revision, revision + 1);
    // What the cluster does by itself is no change by an operator.
    done(&mut state, give("vip", 3, 0));
    assert_eq!(state.revision, revision + 1);
}
