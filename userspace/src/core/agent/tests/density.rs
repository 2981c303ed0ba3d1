//! Hundreds and thousands of resources.

use super::*;

#[test]
fn those_that_came_together_are_not_checked_together() {
    let mut a = Agent::new(ME);
    let mut s = starting(1);
    let (resource, placement) = (s.resources[&tag()].clone(), s.placements[&tag()].clone());
    let tags: Vec<Tag> = (0..200).map(|i| format!("t{i}").parse().expect("a tag")).collect();
    for t in &tags {
        s.resources.insert(t.clone(), Resource { tag: t.clone(), ..resource.clone() });
        s.placements.insert(t.clone(), placement.clone());
    }
    assert_eq!(a.plan(at(0), &s, SOUND).len(), 201);
    tags.iter().for_each(|t| a.finished(t, Ok(()), at(0), CHECK, SOUND));
    assert_eq!(a.plan(at(0), &s, SOUND), []);
    let halves = [at(5_000), at(10_000)].map(|now| a.plan(now, &s, SOUND).len());
    assert_eq!(halves.iter().sum::<usize>(), 200, "once in the interval");
    assert!(halves.iter().all(|n| *n > 50), "{halves:?}");
}

#[test]
fn one_change_among_ten_thousand_is_looked_at_alone() {
    let mut a = Agent::new(ME);
    let mut s = starting(1);
    let (resource, placement) = (s.resources[&tag()].clone(), s.placements[&tag()].clone());
    let many = || (0..10_000).map(|i| format!("t{i}").parse::<Tag>().expect("a tag"));
    s.resources = many().map(|t| (t.clone(), Resource { tag: t, ..resource.clone() })).collect();
    s.placements = many().map(|t| (t, placement.clone())).collect();
    assert_eq!(a.plan(at(0), &s, SOUND).len(), 10_000);
    many().for_each(|t| a.finished(&t, Ok(()), at(0), CHECK, SOUND));
    assert_eq!(a.plan(at(0), &s, SOUND), []);
    assert_eq!(a.reports(&s, SOUND).len(), 10_000);
    for placement in many().collect::<Vec<_>>() {
        let placement = s.placements.get_mut(&placement).expect("a placement");
        placement.grant = placement.grant.map(|g| Grant { phase: Phase::InService, ..g });
    }
    assert_eq!(a.plan(at(0), &s, SOUND), []);
    assert_eq!(a.reports(&s, SOUND), []);
    let one = many().nth(5000).expect("one");
    let before = s.clone();
    let placement = s.placements.get_mut(&one).expect("a placement");
    placement.grant = placement.grant.map(|g| Grant { phase: Phase::Stopping, ..g });
    drop(before);
    let actions = a.plan(at(0), &s, SOUND);
    assert!(matches!(&actions[..], [Action::Start(s)] if s.tag == one && s.operation == Operation::Remove));
    assert_eq!(a.reports(&s, SOUND), []);
    assert!(a.next_deadline().is_some());
}
