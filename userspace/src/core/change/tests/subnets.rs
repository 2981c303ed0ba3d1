//! MonitorSubnet, UnmonitorSubnet, ReportSubnets, and subnets that resources need.

use std::time::Duration;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn settings_with(targets: &[&str]) -> MonitoredSubnet {
    let targets = targets.iter().map(|t| t.parse().unwrap()).collect();
    MonitoredSubnet { targets, ..MonitoredSubnet::default() }
}

fn monitor(subnet: &str, targets: &[&str]) -> Change {
    Change::MonitorSubnet { subnet: net(subnet), settings: settings_with(targets) }
}

fn need(subnets: &[&str]) -> Change {
    let setting = Setting::Subnets(subnets.iter().map(|s| net(s)).collect());
    Change::Set { tag: tag("vip"), node: None, setting }
}

fn down(node: NodeId, subnets: &[&str]) -> Change {
    Change::ReportSubnets { node, down: subnets.iter().map(|s| (net(s), no_answer())).collect() }
}

#[test]
fn host_bits_and_repeated_targets_do_not_count() {
    let mut state = cluster();
    done(&mut state, monitor("10.1.0.7/24", &["10.1.0.9", "10.1.0.9", "192.0.2.1"]));
    assert_eq!(state.subnets[&net("10.1.0.0/24")].targets.len(), 2, "also a target beyond a router");
    done(&mut state, monitor("10.1.0.0/24", &[]));
    assert_eq!(state.subnets.len(), 1, "set anew");
    assert!(state.subnets[&net("10.1.0.0/24")].targets.is_empty());
    done(&mut state, Change::UnmonitorSubnet { subnet: net("10.1.0.3/24") });
    assert!(state.subnets.is_empty());
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let state = cluster();
    for (subnet, targets, says) in [
        ("10.1.0.0/24", &["fd00::1"][..], "same family"),
        ("10.1.0.0/24", &["10.1.0.255"], "single hosts"),
        ("10.1.0.0/24", &["255.255.255.255"], "single hosts"),
        ("fd00::/64", &["ff02::1"], "single hosts"),
        ("10.1.0.0/24", &["127.0.0.1"], "single hosts"),
        ("0.0.0.0/0", &[], "no network"),
        ("127.0.0.0/8", &[], "no network"),
    ] {
        refused(&state, monitor(subnet, targets), &[says]);
    }
    refused(&with_vip(), monitor("10.0.0.0/24", &["10.0.0.7"]), &["virtual address", "'vip'"]);
    let with = |change: &dyn Fn(&mut MonitoredSubnet)| {
        let mut settings = MonitoredSubnet::default();
        change(&mut settings);
        Change::MonitorSubnet { subnet: net("10.1.0.0/24"), settings }
    };
    refused(&state, with(&|s| s.interval = Duration::from_millis(99)), &["0.1 to 3600"]);
    refused(&state, with(&|s| s.interval = Duration::from_secs(3601)), &["0.1 to 3600"]);
    refused(&state, with(&|s| s.fall = 0), &["fall 0", "1 to 1000"]);
    refused(&state, with(&|s| s.rise = 1001), &["rise 1001"]);
    refused(
        &state,
        with(&|s| s.targets = (1..=65).map(|n| IpAddr::from([10, 1, 0, n])).collect()),
        &["65 targets"],
    );
}

#[test]
fn a_resource_needs_only_what_is_monitored() {
    let mut state = with_vip();
    refused(&state, need(&["10.1.0.0/24"]), &["10.1.0.0/24 is not monitored", "vipctl subnet monitor"]);
    done(&mut state, monitor("10.1.0.0/24", &[]));
    done(&mut state, need(&["10.1.0.5/24"]));
    assert_eq!(state.resources[&tag("vip")].monitored, [net("10.1.0.0/24")].into());
    refused(&state, Change::UnmonitorSubnet { subnet: net("10.1.0.0/24") }, &["needed by vip", "subnets="]);
    let Change::Set { tag: t, setting, .. } = need(&[]) else { panic!("a Set") };
    refused(&state, Change::Set { tag: t, node: Some(1), setting }, &["without --node"]);
    done(&mut state, need(&[]));
    done(&mut state, Change::UnmonitorSubnet { subnet: net("10.1.0.0/24") });

    let mut wanting = resource("x", "10.0.0.9/24", &[(1, 1)]);
    wanting.monitored = [net("10.1.0.0/24")].into();
    refused(&state, Change::Create { resource: wanting.clone(), on: 1 }, &["not monitored"]);
    done(&mut state, monitor("10.1.0.0/24", &[]));
    done(&mut state, Change::Create { resource: wanting, on: 1 });
    assert_eq!(state.resources[&tag("x")].monitored.len(), 1);
}

#[test]
fn a_report_replaces_the_one_before() {
    let mut state = with_vip();
    for subnet in ["10.1.0.0/24", "10.2.0.0/24"] {
        done(&mut state, monitor(subnet, &[]));
    }
    done(&mut state, need(&["10.1.0.0/24"]));
    let lacks = |state: &ClusterState, node| {
        let lacking = state.lacking_subnets(&state.resources[&tag("vip")], node).next();
        lacking.map(|(subnet, down)| (subnet.to_string(), down.reason.clone()))
    };
    done(&mut state, down(1, &["10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"]));
    assert_eq!(lacks(&state, 1), Some(("10.1.0.0/24".into(), "no answer".into())));
    assert_eq!(lacks(&state, 2), None, "a subnet is up unless it is said to be down");
    assert_eq!(state.subnets_down[&1].len(), 2, "what is not monitored is not kept");
    done(&mut state, down(1, &["10.2.0.0/24"]));
    assert_eq!(lacks(&state, 1), None);
    done(&mut state, down(2, &["10.1.0.0/24"]));
    done(&mut state, Change::UnmonitorSubnet { subnet: net("10.2.0.0/24") });
    assert_eq!(state.subnets_down.keys().collect::<Vec<_>>(), [&2]);
    done(&mut state, down(2, &[]));
    assert!(state.subnets_down.is_empty());
    refused(&state, down(9, &[]), &["no node number 9"]);
}
