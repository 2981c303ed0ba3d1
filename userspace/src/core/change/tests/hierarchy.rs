//! What depends on what, where hierarchies are extended to, and what is wanted.

use std::collections::BTreeSet;

use super::*;
use crate::model::{Score, Switchback};

fn depend(parent: &str, child: &str) -> Change {
    Change::Depend { parent: tag(parent), child: tag(child) }
}

fn undepend(parent: &str, child: &str) -> Change {
    Change::Undepend { parent: tag(parent), child: tag(child) }
}

fn wish(name: &str, on: Option<NodeId>) -> Change {
    Change::InService { tag: tag(name), on, until: None }
}

fn stop(name: &str) -> Change {
    Change::OutOfService { tag: tag(name) }
}

fn delete(name: &str, hierarchy: bool) -> Change {
    Change::Delete { tag: tag(name), hierarchy }
}

fn tags(names: &[&str]) -> BTreeSet<Tag> {
    names.iter().map(|name| tag(name)).collect()
}

/// "app" depends on "db" and "ip", "db" on "ip"; "other" is alone. On nodes 1 and 2.
fn family() -> ClusterState {
    let mut state = cluster();
    for (name, host) in [("app", 1), ("db", 2), ("ip", 3), ("other", 4)] {
        let resource = resource(name, &format!("10.0.0.{host}/24"), &[(1, 1), (2, 2)]);
        done(&mut state, Change::Create { resource, on: 1 });
    }
    for (parent, child) in [("app", "db"), ("app", "ip"), ("db", "ip")] {
        done(&mut state, depend(parent, child));
    }
    state
}

#[test]
fn dependencies_make_one_hierarchy_and_their_end_makes_two() {
    let mut state = family();
    for name in ["app", "db", "ip"] {
        assert_eq!(state.hierarchy_of(&tag(name)), tags(&["app", "db", "ip"]));
    }
    let order: Vec<_> = state.bottom_up(&tags(&["app", "db", "ip"]));
    assert_eq!(order, [tag("ip"), tag("db"), tag("app")]);
    assert_eq!(state.with_descendants(&tag("db")), tags(&["db", "ip"]));
    assert_eq!(state.with_ancestors(&tag("db")), tags(&["app", "db"]));
    done(&mut state, undepend("app", "db"));
    assert_eq!(state.hierarchy_of(&tag("app")).len(), 3, "both still depend on 'ip'");
    done(&mut state, undepend("app", "ip"));
    assert_eq!(state.hierarchy_of(&tag("app")), tags(&["app"]));
    assert_eq!(state.hierarchy_of(&tag("ip")), tags(&["db", "ip"]));
}

#[test]
fn impossible_dependencies_are_refused() {
    let mut state = family();
    refused(&state, depend("app", "app"), &["'app' cannot depend on itself", "two resources"]);
    refused(&state, depend("app", "db"), &["'app' depends on 'db' already", "vipctl show app"]);
    refused(&state, depend("ip", "app"), &["'app' depends on 'ip', directly or not"]);
    refused(&state, depend("app", "nothing"), &["no resource 'nothing'", "vipctl status"]);
    refused(&state, undepend("db", "app"), &["'db' does not depend directly on 'app'", "vipctl show db"]);
    // Other nodes, or other priorities.
    for (name, host, nodes) in [("few", 7, vec![(1, 1)]), ("odd", 8, vec![(1, 1), (2, 9)])] {
        let resource = resource(name, &format!("10.0.0.{host}/24"), &nodes);
        done(&mut state, Change::Create { resource, on: 1 });
    }
    let says = ["'app' is extended to node 'b' and 'few' is not", "vipctl extend few --to b"];
    refused(&state, depend("app", "few"), &says);
    refused(&state, depend("few", "app"), &says);
    let says = [
        "on node 'b' the priority of 'app' is 2 and that of 'odd' is 9",
        "vipctl set odd priority=2 --node b",
    ];
    refused(&state, depend("app", "odd"), &says);
    // What is being deleted.
    done(&mut state, give("other", 1, 0));
    done(&mut state, delete("other", false));
    refused(&state, depend("app", "other"), &["'other'"]);
}

#[test]
fn nothing_is_moved_by_a_dependency() {
    let mut state = family();
    done(&mut state, give("ip", 1, 0));
    done(&mut state, give("other", 2, 0));
    let says = ["'ip' is on node 'a' and 'other' on node 'b'", "vipctl in-service other --on a"];
    refused(&state, depend("app", "other"), &says);
    // From any member, for the whole is in one place.
    refused(&state, give("app", 2, 0), &["'ip', of the hierarchy of 'app', is on node 'a'"]);
    done(&mut state, give("app", 1, 0));
}

#[test]
fn what_a_wanted_resource_depends_on_is_wanted() {
    let mut state = family();
    done(&mut state, stop("other"));
    done(&mut state, depend("app", "other"));
    assert_eq!(place(&state, "other").desired, Desired::InService { on: None });
    // A parent that is not wanted wants nothing.
    let mut state = family();
    done(&mut state, stop("other"));
    done(&mut state, depend("other", "app"));
    assert_eq!(place(&state, "other").desired, Desired::OutOfService);
    assert!(place(&state, "app").is_wanted());
}

#[test]
fn wishes_go_down_and_their_end_goes_up() {
    let mut state = family();
    let wanted = |state: &ClusterState| {
        let all = state.placements.iter().filter(|(_, p)| p.is_wanted());
        all.map(|(t, _)| t.as_str().to_owned()).collect::<Vec<_>>()
    };
    done(&mut state, stop("db"));
    assert_eq!(wanted(&state), ["ip", "other"]);
    done(&mut state, stop("ip"));
    assert_eq!(wanted(&state), ["other"]);
    done(&mut state, wish("db", None));
    assert_eq!(wanted(&state), ["db", "ip", "other"]);
    done(&mut state, wish("app", None));
    assert_eq!(wanted(&state).len(), 4);
}

#[test]
fn a_choice_takes_along_all_that_is_wanted_and_clears_failures_there() {
    let mut state = family();
    done(&mut state, stop("app"));
    for name in ["db", "ip"] {
        for node in [1, 2] {
            let placement = state.placements.get_mut(&tag(name)).unwrap();
            placement.failed.insert(node, "failed".to_owned());
            placement.failures.entry(node).or_default().count = 2;
        }
    }
    done(&mut state, Change::InService { tag: tag("ip"), on: Some(2), until: Some(77) });
    for (name, on) in [("ip", Some(2)), ("db", Some(2))] {
        assert_eq!(place(&state, name).desired, Desired::InService { on }, "{name}");
        assert_eq!(place(&state, name).choice_ends, Some(77), "{name}");
        assert_eq!(place(&state, name).failed.keys().collect::<Vec<_>>(), [&1], "{name}");
        assert_eq!(place(&state, name).failures.keys().collect::<Vec<_>>(), [&1], "{name}");
    }
    assert_eq!(place(&state, "app").desired, Desired::OutOfService, "nobody asked for it");
    done(&mut state, Change::Clear { tag: tag("db") });
    for name in ["ip", "db"] {
        assert_eq!(place(&state, name).desired, Desired::InService { on: None });
        assert_eq!(place(&state, name).choice_ends, None);
    }
    done(&mut state, wish("db", None));
    assert!(place(&state, "db").failed.is_empty() && place(&state, "db").failures.is_empty());
}

#[test]
fn a_choice_that_cannot_be_followed_is_refused() {
    let state = family();
    refused(&state, wish("app", Some(3)), &["'app'", "'c'"]);
    let until = Change::InService { tag: tag("app"), on: None, until: Some(7) };
    refused(&state, until, &["only the choice of a node can end by itself", "--on"]);
    for (duty, says) in [
        (Duty::Standby, ["'b' is on standby", "vipctl node online b"]),
        (Duty::Maintenance(true), ["'b' is in maintenance", "vipctl node maintenance b off"]),
    ] {
        let mut state = state.clone();
        done(&mut state, Change::SetNode { node: 2, duty });
        refused(&state, wish("app", Some(2)), &says);
        done(&mut state, wish("app", Some(1)));
    }
    let mut state = state;
    state.nodes.get_mut(&2).unwrap().gave_up = Some("node failfast".to_owned());
    refused(
        &state,
        wish("app", Some(2)),
        &["'b' gave up everything (node failfast)", "vipctl node online b"],
    );
}

#[test]
fn failures_are_cleaned_up_for_the_whole_hierarchy() {
    let mut state = family();
    for node in [1, 2] {
        state.placements.get_mut(&tag("ip")).unwrap().failed.insert(node, "failed".to_owned());
    }
    refused(&state, Change::Cleanup { tag: tag("app"), node: Some(3) }, &["'app'", "'c'"]);
    done(&mut state, Change::Cleanup { tag: tag("app"), node: Some(2) });
    assert_eq!(place(&state, "ip").failed.keys().collect::<Vec<_>>(), [&1]);
    done(&mut state, Change::Cleanup { tag: tag("db"), node: None });
    assert!(place(&state, "ip").failed.is_empty());
}

fn extend(to: NodeId, members: &[(&str, u16)]) -> Change {
    let members = members.iter().map(|(name, priority)| (tag(name), settings(*priority))).collect();
    Change::Extend { to, members }
}

#[test]
fn a_hierarchy_is_extended_and_unextended_as_a_whole() {
    let mut state = family();
    refused(&state, extend(3, &[]), &["nothing to extend"]);
    refused(&state, extend(3, &[("app", 3), ("db", 3)]), &["'app' and 'ip' depend on each other"]);
    refused(&state, extend(3, &[("app", 3), ("other", 3)]), &["different hierarchies"]);
    let odd = extend(3, &[("app", 3), ("db", 4), ("ip", 3)]);
    refused(&state, odd, &["one hierarchy", "same priority on node 'c'", "3 and 4"]);
    refused(&state, extend(2, &[("app", 3), ("db", 3), ("ip", 3)]), &["extended to node 'b' already"]);
    done(&mut state, extend(3, &[("app", 3), ("db", 3), ("ip", 3)]));
    assert!(["app", "db", "ip"].iter().all(|name| state.resources[&tag(name)].nodes.contains_key(&3)));
    done(&mut state, wish("app", Some(3)));
    done(&mut state, give("ip", 3, 0));
    let unextend = |from| Change::Unextend { tag: tag("app"), from };
    refused(&state, unextend(3), &["'ip' is in service on node 'c'", "vipctl in-service ip --on NODE"]);
    done(&mut state, unextend(1));
    assert!(["app", "db", "ip"].iter().all(|name| !state.resources[&tag(name)].nodes.contains_key(&1)));
    done(&mut state, report("ip", 3, 1, failure()));
    done(&mut state, unextend(3));
    assert!(place(&state, "ip").failed.is_empty(), "what failed there is forgotten");
    assert_eq!(place(&state, "app").desired, Desired::InService { on: None }, "the choice is spent");
    refused(&state, unextend(2), &["node 'b' is the only one of 'app'", "vipctl delete app"]);
}

#[test]
fn deleting_takes_what_depends_on_it_or_is_refused() {
    let mut state = family();
    let says = ["'app' depends on 'db'", "vipctl undepend app db", "vipctl delete db --hierarchy"];
    refused(&state, delete("db", false), &says);
    done(&mut state, delete("app", false));
    assert!(state.resources[&tag("db")].parents.is_empty(), "a parent that is gone is nobody's parent");
    done(&mut state, give("ip", 1, 0));
    done(&mut state, delete("ip", true));
    assert!(!state.resources.contains_key(&tag("db")), "nobody had it");
    assert!(place(&state, "ip").deleting, "it has to be stopped first");
    done(&mut state, report("ip", 1, 1, failure()));
    assert!(!state.resources.contains_key(&tag("ip")));
    assert!(state.resources.contains_key(&tag("other")));
}

/// What holds for a hierarchy as a whole is the same for both, or it would be that of whichever comes first.
#[test]
fn different_settings_of_whole_hierarchies_do_not_become_one() {
    let cases = [
        (Setting::Switchback(Switchback::Automatic), "switchback=intelligent"),
        (Setting::Stickiness(Some(Score::new(7))), "stickiness=default"),
        (Setting::Maintenance(true), "maintenance=off"),
        (Setting::IgnoresConnectivity(true), "connectivity=use"),
    ];
    for (setting, remedy) in cases {
        let mut state = family();
        let set = |name: &str| Change::Set { tag: tag(name), node: None, setting: setting.clone() };
        done(&mut state, set("other"));
        let remedy = format!("vipctl set other {remedy}");
        refused(&state, depend("app", "other"), &["'app'", "'other'", "placed as one", &remedy]);
        refused(&state, depend("other", "ip"), &["vipctl set ip"]);
        done(&mut state, set("ip"));
        done(&mut state, depend("app", "other"));
    }
}

#[test]
fn nothing_comes_to_depend_on_what_is_being_stopped() {
    let mut state = family();
    for name in ["app", "db", "ip", "other"] {
        done(&mut state, give(name, 1, 0));
        done(&mut state, report(name, 1, 1, Outcome::Started));
    }
    done(&mut state, Change::Release { tag: tag("other"), epoch: 1 });
    refused(&state, depend("app", "other"), &["'other' is being stopped", "'app' would have to stop"]);
    done(&mut state, report("other", 1, 1, Outcome::Released));
    done(&mut state, depend("app", "other"));
}

/// It could never be stopped, and nothing about it could be changed any more.
#[test]
fn what_somebody_has_is_not_deleted_in_maintenance() {
    let mut state = in_service();
    let delete = || Change::Delete { tag: tag("vip"), hierarchy: false };
    done(&mut state, Change::SetNode { node: 1, duty: Duty::Maintenance(true) });
    refused(&state, delete(), &["on node 'a', which is in maintenance", "vipctl node maintenance a off"]);
    done(&mut state, Change::SetNode { node: 1, duty: Duty::Maintenance(false) });
    let maintain = |on| Change::Set { tag: tag("vip"), node: None, setting: Setting::Maintenance(on) };
    done(&mut state, maintain(true));
    refused(&state, delete(), &["is in maintenance", "maintenance=off"]);
    done(&mut state, report("vip", 1, 1, failure()));
    done(&mut state, delete());
    assert!(state.resources.is_empty(), "nobody has it");
}
