//! CreateAll, AlterAddresses, and settings that depend on the addresses.

use super::*;
use crate::model::{AcceptBy, Kind, Range};

fn all(resources: Vec<Resource>) -> Change {
    Change::CreateAll { resources, on: 1 }
}

fn alter(add: &[&str], remove: &[&str]) -> Change {
    Change::AlterAddresses {
        tag: tag("vip"),
        add: add.iter().map(|a| a.parse::<IpNet>().unwrap()).collect(),
        remove: remove.iter().map(|r| r.parse::<Range>().unwrap()).collect(),
    }
}

#[test]
fn all_are_created_or_none() {
    let state = with_vip();
    let one = |name: &str, address: &str| resource(name, address, &[(1, 1), (2, 2)]);
    let good = || one("x", "10.0.0.20/24");
    refused(&state, all(vec![]), &["nothing to create"]);
    refused(&state, all(vec![good(), one("x", "10.0.0.21/24")]), &["'x' is there twice"]);
    refused(&state, all(vec![good(), one("vip", "10.0.0.21/24")]), &["'vip' is taken"]);
    refused(&state, all(vec![good(), one("y", "10.0.0.7/24")]), &["10.0.0.7 belongs to the resource 'vip'"]);
    refused(&state, all(vec![good(), one("y", "10.0.0.20/16")]), &["10.0.0.20 belongs to the resource 'x'"]);
    refused(&state, all(vec![good(), one("y", "224.0.0.9/24")]), &["224.0.0.9 cannot be a virtual address"]);
    refused(&state, all(vec![good(), resource("y", "10.0.0.21/24", &[(4, 1)])]), &["'w' is a witness"]);
    let mut after = state.clone();
    done(&mut after, all(vec![good(), one("y", "10.0.0.21/24"), one("z", "fd00::7/64")]));
    let ids: Vec<_> = ["x", "y", "z"].map(|t| after.resources[&tag(t)].id).into();
    assert_eq!(ids, [state.last_resource + 1, state.last_resource + 2, state.last_resource + 3]);
    assert!(["x", "y", "z"].iter().all(|t| place(&after, t).desired == Desired::InService { on: Some(1) }));
}

#[test]
fn a_set_that_spans_others_takes_none_of_theirs() {
    let state = with_vip();
    let mut wide = Addresses::default();
    wide.insert("10.0.0.0/24".parse().unwrap(), "10.0.0.5-10.0.0.9".parse().unwrap());
    let set = Resource { kind: resource_of(wide), ..resource("set", "10.0.0.1/24", &[(1, 1)]) };
    refused(&state, all(vec![set]), &["10.0.0.7 belongs to the resource 'vip'"]);
}

#[test]
fn what_was_taken_from_an_owned_set_is_nobodys_until_its_owner_says_that_it_is_gone() {
    let gone = |last: &str| [last.parse::<Range>().unwrap()].into_iter().collect::<Ranges>();
    let report = |gone: Ranges, alterations| Change::Report {
        node: 1,
        reports: vec![Report {
            tag: tag("vip"),
            epoch: 1,
            outcome: Outcome::Amended { alterations, gone, trouble: None },
        }],
    };
    let taken = || Change::Create { resource: resource("new", "10.0.0.7/24", &[(2, 1)]), on: 2 };
    let mut state = in_service();
    done(&mut state, alter(&["10.0.0.8/24"], &["10.0.0.7"]));
    assert_eq!(place(&state, "vip").retired, gone("10.0.0.7"));
    refused(&state, taken(), &["10.0.0.7 was taken from 'vip'", "try again"]);
    refused(&state, all(vec![resource("new", "10.0.0.7/24", &[(1, 1)])]), &["10.0.0.7 was taken from 'vip'"]);
    // It may be given back meanwhile, and taken again: what was said before that does not count.
    done(&mut state, alter(&["10.0.0.7/24"], &[]));
    assert!(place(&state, "vip").retired.is_empty());
    done(&mut state, alter(&[], &["10.0.0.7"]));
    refused(&state, report(gone("10.0.0.7"), 1), &["changed again"]);
    done(&mut state, report(gone("10.0.0.7"), 3));
    assert!(place(&state, "vip").retired.is_empty());
    done(&mut state, taken());

    // Without an owner nobody answers for anything.
    let mut state = in_service();
    done(&mut state, alter(&["10.0.0.8/24"], &["10.0.0.7"]));
    done(&mut state, Change::Depose { node: 1, lease_epoch: 1 });
    refused(&state, taken(), &["10.0.0.7 was taken from 'vip'"]);
    done(&mut state, Change::Vacate { node: 1, lease_epoch: 2, grants: vec![] });
    done(&mut state, taken());
}

fn resource_of(addresses: Addresses) -> Kind {
    Resource::new(tag("x"), addresses, []).kind
}

#[test]
fn addresses_are_added_and_removed_in_service() {
    let mut state = in_service();
    let before = place(&state, "vip").clone();
    done(&mut state, alter(&["10.0.0.8/24", "fd00::8/64"], &[]));
    done(&mut state, alter(&["10.0.0.8/24"], &["10.0.0.7"]));
    let now: Vec<String> = state.resources[&tag("vip")].addresses().iter().map(|a| a.to_string()).collect();
    assert_eq!(now, ["10.0.0.8/24", "fd00::8/64"]);
    let after = place(&state, "vip");
    assert_eq!((after.grant, after.epoch), (before.grant, before.epoch), "it stays where it is");
    refused(&state, alter(&[], &["10.0.0.7"]), &["10.0.0.7 is not one of the addresses of 'vip'"]);
    refused(&state, alter(&[], &["10.0.0.8", "fd00::8"]), &["without an address", "vipctl delete vip"]);
    refused(&state, alter(&["10.0.0.8/24"], &["10.0.0.8"]), &["10.0.0.8 cannot be added and removed"]);
    done(&mut state, Change::Create { resource: resource("b", "10.0.0.9/24", &[(1, 1)]), on: 1 });
    refused(&state, alter(&["10.0.0.9/24"], &[]), &["10.0.0.9 belongs to the resource 'b'"]);
    let other =
        Change::AlterAddresses { tag: tag("no"), add: Addresses::default(), remove: Ranges::default() };
    refused(&state, other, &["no resource 'no'"]);
}

#[test]
fn a_source_address_is_for_ipv4() {
    let mut state = cluster();
    done(&mut state, Change::Create { resource: resource("six", "fd00::7/64", &[(1, 1)]), on: 1 });
    let set = |on| Change::Set { tag: tag("six"), node: Some(1), setting: Setting::Source(on) };
    refused(&state, set(true), &["has no IPv4 address", "IP-12"]);
    done(&mut state, set(false));
}

#[test]
fn an_operators_choice_is_known_as_such() {
    let mut state = with_vip();
    assert_eq!(state.resources[&tag("vip")].ip().unwrap().accept_by, AcceptBy::Size);
    let setting = Setting::Accept(Accept::Route);
    done(&mut state, Change::Set { tag: tag("vip"), node: None, setting });
    let ip = state.resources[&tag("vip")].ip().unwrap();
    assert_eq!((ip.accept, ip.accept_by), (Accept::Route, AcceptBy::Operator));
}

#[test]
fn what_the_owner_says_of_a_change_holds_until_its_grant_ends() {
    let report = |alterations, trouble: Option<&str>| {
        let trouble = trouble.map(str::to_owned);
        let outcome = Outcome::Amended { alterations, gone: Ranges::default(), trouble };
        Change::Report { node: 1, reports: vec![Report { tag: tag("vip"), epoch: 1, outcome }] }
    };
    let known = |state: &ClusterState| {
        let p = place(state, "vip");
        (p.alterations, p.amended, p.trouble.clone())
    };
    let mut state = in_service();
    done(&mut state, alter(&["10.0.0.8/24"], &[]));
    assert_eq!(known(&state), (1, 0, None), "ordered, not done");
    for _ in 0..2 {
        done(&mut state, report(1, Some("in use")));
        assert_eq!(known(&state), (1, 1, Some("in use".into())));
    }
    let mut mended = state.clone();
    done(&mut mended, report(1, None));
    assert_eq!(known(&mended), (1, 1, None));
    done(&mut state, alter(&["10.0.0.9/24"], &[]));
    refused(&state, report(1, None), &["changed again"]);
    // The next owner brings up all of them.
    done(&mut state, Change::Depose { node: 1, lease_epoch: 1 });
    done(&mut state, Change::Vacate { node: 1, lease_epoch: 2, grants: vec![] });
    assert_eq!(known(&state), (2, 2, None));
    done(&mut state, alter(&["10.0.0.10/24"], &[]));
    assert_eq!(known(&state), (3, 3, None), "nobody has to do it");
}
