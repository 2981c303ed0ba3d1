//! Constraints: which are accepted, and what they do to others.

use super::*;
use crate::model::{ConstraintId, OrderKind, Score};

fn four() -> ClusterState {
    let mut state = cluster();
    for (i, name) in ["p", "q", "r", "s"].iter().enumerate() {
        let resource = resource(name, &format!("10.0.0.{}/24", i + 1), &[(1, 1), (2, 2)]);
        done(&mut state, Change::Create { resource, on: 1 });
    }
    state
}

fn add(id: &str, constraint: Constraint) -> Change {
    Change::AddConstraint { id: ConstraintId::from(id), constraint }
}

fn remove(id: &str) -> Change {
    Change::RemoveConstraint { id: id.to_owned() }
}

fn with(name: &str, other: &str, score: Score) -> Constraint {
    Constraint::Colocation { tag: tag(name), with: tag(other), score }
}

fn order(first: &str, then: &str) -> Constraint {
    Constraint::Order { first: tag(first), then: tag(then), kind: OrderKind::Mandatory }
}

fn location(name: &str, node: NodeId) -> Constraint {
    Constraint::Location { tag: tag(name), node, score: Score::new(5) }
}

fn group(members: &[&str]) -> Constraint {
    Constraint::Group { members: members.iter().map(|name| tag(name)).collect() }
}

fn clones(members: &[&str], per_node: u16) -> Constraint {
    Constraint::Clone { members: members.iter().map(|name| tag(name)).collect(), per_node }
}

fn depend(parent: &str, child: &str) -> Change {
    Change::Depend { parent: tag(parent), child: tag(child) }
}

#[test]
fn every_kind_is_added_and_removed() {
    let mut state = four();
    let all = [
        location("p", 1),
        with("p", "q", Score::INFINITY),
        order("q", "p"),
        clones(&["p", "q", "r"], 1),
        group(&["r", "s"]),
    ];
    for (n, constraint) in all.iter().enumerate() {
        let id = format!("c{n}");
        done(&mut state, add(&id, constraint.clone()));
        assert_eq!(&state.constraints[&id], constraint);
    }
    for n in 0..all.len() {
        done(&mut state, remove(&format!("c{n}")));
    }
    assert!(state.constraints.is_empty());
    refused(&state, remove("c0"), &["no constraint 'c0'", "vipctl constraint list"]);
}

#[test]
fn names_are_unique_and_plain() {
    let mut state = four();
    done(&mut state, add("a", location("p", 1)));
    refused(&state, add("a", location("p", 2)), &["a constraint 'a' already", "vipctl constraint remove a"]);
    refused(&state, add("b", location("p", 1)), &["constraint 'a' says the same"]);
    for bad in ["", "a b", "ä", &"x".repeat(129)] {
        refused(&state, add(bad, location("q", 1)), &["no name for a constraint", "1 to 128"]);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut state = four();
    refused(&state, add("x", location("nothing", 1)), &["no resource 'nothing'"]);
    refused(&state, add("x", location("p", 9)), &["no node number 9"]);
    refused(&state, add("x", with("p", "p", Score::INFINITY)), &["'p' is in one hierarchy"]);
    refused(&state, add("x", group(&["p"])), &["two members at least"]);
    refused(&state, add("x", clones(&["p"], 1)), &["two instances at least"]);
    refused(&state, add("x", clones(&["p", "q"], 0)), &["one at least on each node"]);
    done(&mut state, depend("p", "q"));
    for constraint in [with("p", "q", Score::INFINITY), order("q", "p"), clones(&["p", "q"], 1)] {
        refused(&state, add("x", constraint), &["is in one hierarchy with another resource named here"]);
    }
}

#[test]
fn circles_are_refused_also_through_hierarchies() {
    let mut state = four();
    done(&mut state, add("one", with("p", "q", Score::INFINITY)));
    done(&mut state, add("two", with("q", "r", Score::new(3))));
    let circle = add("x", with("r", "p", Score::MINUS_INFINITY));
    refused(&state, circle, &["'p' is placed with 'r' already", "there is no order"]);
    // One way each: an order does not make a circle with a colocation.
    done(&mut state, add("three", order("p", "q")));
    done(&mut state, add("four", order("q", "r")));
    refused(&state, add("x", order("r", "p")), &["'r' is started after 'p' already"]);
    done(&mut state, depend("s", "r"));
    refused(&state, add("x", order("s", "p")), &["'s' is started after 'p' already"]);
}

#[test]
fn dependencies_do_not_close_circles_nor_join_what_constraints_speak_of() {
    let mut state = four();
    done(&mut state, add("apart", with("p", "q", Score::MINUS_INFINITY)));
    refused(
        &state,
        depend("p", "q"),
        &["'apart' speaks of both 'p' and 'q'", "vipctl constraint remove apart"],
    );
    refused(&state, add("x", group(&["q", "p"])), &["'apart' speaks of both"]);
    done(&mut state, add("next", with("q", "r", Score::INFINITY)));
    refused(&state, depend("p", "r"), &["go in a circle", "vipctl constraint remove"]);
    refused(&state, depend("r", "p"), &["go in a circle"]);
    done(&mut state, remove("next"));
    done(&mut state, depend("p", "r"));
    // Through a member of the hierarchy, too.
    refused(&state, depend("r", "q"), &["'apart' speaks of both"]);
    done(&mut state, add("clones", clones(&["p", "s"], 1)));
    refused(&state, depend("r", "s"), &["'clones' speaks of both"]);
}

#[test]
fn a_group_is_a_chain_of_dependencies() {
    let mut state = four();
    done(&mut state, add("g", group(&["p", "q", "r"])));
    assert!(state.resources[&tag("q")].children.contains(&tag("p")));
    assert!(state.resources[&tag("r")].children.contains(&tag("q")));
    assert_eq!(state.hierarchy_of(&tag("p")).len(), 3);
    refused(&state, add("x", group(&["r", "p"])), &["directly or not"]);
    done(&mut state, remove("g"));
    assert!(state.resources.values().all(crate::model::Resource::stands_alone));
}

#[test]
fn what_speaks_of_a_deleted_resource_goes_with_it() {
    let mut state = four();
    for (id, constraint) in [
        ("l", location("p", 1)),
        ("w", with("p", "q", Score::new(1))),
        ("o", order("q", "p")),
        ("two", clones(&["p", "q"], 1)),
        ("three", clones(&["p", "q", "r"], 1)),
        ("else", location("q", 1)),
    ] {
        done(&mut state, add(id, constraint));
    }
    done(&mut state, Change::Delete { tag: tag("p"), hierarchy: false });
    let left: Vec<_> = state.constraints.keys().map(String::as_str).collect();
    assert_eq!(left, ["else", "three"]);
    assert_eq!(state.constraints["three"], clones(&["q", "r"], 1));
}
