//! Members of a hierarchy on one node: their order, whatever becomes of each.

use proptest::prelude::*;

use super::*;
use crate::model::Threshold;

fn name(i: usize) -> Tag {
    format!("m{i}").parse().expect("a valid tag")
}

/// Members that depend on others with lower numbers, and a cluster that grants and releases all at once.
struct Bench {
    agent: Agent,
    state: ClusterState,
    now: u64,
    /// What runs, and under which members it began.
    running: BTreeMap<Tag, Operation>,
    log: Vec<(Operation, Tag)>,
    count: usize,
}

impl Bench {
    fn new(count: usize, edges: &[(usize, usize)], threshold: Threshold) -> Self {
        let mut state = ClusterState { resources: Map::default(), placements: Map::default(), ..starting(0) };
        for i in 0..count {
            // Another could take it: it is not kept here at any price.
            let nodes = [ME, 3].map(|id| (id, NodeSettings::new(id as u16, vec!["eth0".into()])));
            let own = addresses(&[u8::try_from(i + 1).expect("few")]);
            let mut resource = Resource::new(name(i), own, nodes);
            resource.policy.migration_threshold = Some(threshold);
            let of = |pick: fn(&(usize, usize)) -> (usize, usize)| {
                edges.iter().map(pick).filter(|(a, _)| *a == i).map(|(_, b)| name(b)).collect()
            };
            resource.children = of(|(parent, child)| (*parent, *child));
            resource.parents = of(|(parent, child)| (*child, *parent));
            state.resources.insert(name(i), resource);
            state.placements.insert(name(i), Placement::new(Desired::InService { on: None }, 0));
        }
        let (mut agent, log) = (Agent::new(ME), Vec::new());
        agent.set_peers([3].into());
        let mut bench = Self { agent, state, now: 0, running: BTreeMap::new(), log, count };
        bench.grant();
        bench
    }

    fn diamond(threshold: Threshold) -> Self {
        Self::new(4, &[(1, 0), (2, 0), (3, 1), (3, 2)], threshold)
    }

    fn grant(&mut self) {
        for i in 0..self.count {
            let p = self.state.placements.get_mut(&name(i)).unwrap();
            p.epoch += 1;
            p.grant = Some(Grant { owner: ME, lease_epoch: 1, phase: Phase::Starting });
        }
    }

    fn release(&mut self) {
        for i in 0..self.count {
            let p = self.state.placements.get_mut(&name(i)).unwrap();
            if let Some(grant) = &mut p.grant {
                grant.phase = Phase::Stopping;
            }
        }
    }

    fn is_free(&self) -> bool {
        self.state.placements.values().all(|p| p.grant.is_none())
    }

    fn all_up(&self) -> bool {
        (0..self.count).all(|i| self.agent.is_up(&name(i)))
    }

    /// Plans, checks the order of what begins, and takes note of what is reported.
    fn step(&mut self) {
        for action in self.agent.plan(at(self.now), &self.state, SOUND) {
            let Action::Start(start) = action else { continue };
            self.check(&start);
            self.running.insert(start.tag.clone(), start.operation);
            self.log.push((start.operation, start.tag));
        }
        let mut failed = false;
        for Report { tag, outcome, .. } in self.agent.reports(&self.state, SOUND) {
            let p = self.state.placements.get_mut(&tag).unwrap();
            match outcome {
                Outcome::Started => p.grant.as_mut().unwrap().phase = Phase::InService,
                Outcome::Recovered { count, .. } => p.recoveries = count,
                Outcome::Failed { .. } => {
                    p.end_grant();
                    failed = true;
                }
                Outcome::Released => p.end_grant(),
                Outcome::Restarted | Outcome::Amended { .. } => {}
            }
        }
        if failed {
            self.release();
        }
    }

    fn check(&self, start: &Start) {
        let resource = self.state.resources.get(&start.tag).unwrap();
        let placement = self.state.placements.get(&start.tag).unwrap();
        match start.operation {
            Operation::Restore => {
                for child in &resource.children {
                    let moves = matches!(self.running.get(child), Some(Operation::Remove));
                    assert!(
                        self.agent.is_up(child) && !moves,
                        "{} before {child}: {:?}",
                        start.tag,
                        self.log
                    );
                }
            }
            Operation::Remove => {
                let stops = placement.grant.is_none_or(|g| g.phase == Phase::Stopping);
                if stops || self.agent.locals[&start.tag].has_failed(placement.epoch) {
                    for parent in &resource.parents {
                        let gone = self.agent.locals.get(parent).is_none_or(Local::is_clear);
                        assert!(gone, "{} gone before {parent}: {:?}", start.tag, self.log);
                    }
                }
            }
            Operation::Quickcheck | Operation::Recover | Operation::Switch | Operation::Amend => {}
        }
    }

    fn finish(&mut self, tag: &Tag, result: Result<(), Failure>) {
        self.running.remove(tag);
        self.agent.finished(tag, result, at(self.now), CHECK, SOUND);
    }

    /// Everything succeeds until nothing is left to do now.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.step();
            let Some(tag) = self.running.keys().next().cloned() else { return };
            self.finish(&tag, Ok(()));
        }
        panic!("it never comes to rest: {:?}", self.log);
    }

    fn up(threshold: Threshold) -> Self {
        let mut bench = Self::diamond(threshold);
        bench.settle();
        assert!(bench.all_up(), "{:?}", bench.log);
        bench.step();
        bench.log.clear();
        bench
    }

    /// The one check that runs after a touch fails.
    fn break_one(&mut self, i: usize) {
        self.agent.touched(&name(i), at(self.now));
        self.step();
        self.finish(&name(i), failed("gone"));
    }

    fn order(&self) -> Vec<(Operation, String)> {
        self.log.iter().map(|(o, t)| (*o, t.to_string())).collect()
    }
}

fn all(operation: Operation, members: [&str; 4]) -> Vec<(Operation, String)> {
    members.iter().map(|m| (operation, (*m).to_owned())).collect()
}

#[test]
fn children_start_first_and_stop_last() {
    let mut bench = Bench::diamond(Threshold::Unlimited);
    bench.settle();
    assert_eq!(bench.order(), all(Operation::Restore, ["m0", "m1", "m2", "m3"]));
    bench.log.clear();
    bench.release();
    bench.settle();
    assert_eq!(bench.order(), all(Operation::Remove, ["m3", "m1", "m2", "m0"]));
    assert!(bench.is_free());
}

#[test]
fn a_child_that_may_not_be_mended_goes_after_all_that_depend_on_it() {
    let mut bench = Bench::up(Threshold::Failures(1));
    bench.break_one(0);
    bench.settle();
    let removed: Vec<_> = bench.order().into_iter().filter(|(o, _)| *o == Operation::Remove).collect();
    assert_eq!(removed, all(Operation::Remove, ["m3", "m1", "m2", "m0"]));
    assert!(bench.order().iter().all(|(o, _)| *o != Operation::Recover));
    assert!(bench.is_free(), "all were reported");
}

#[test]
fn a_child_that_is_mended_takes_nobody_along() {
    let mut bench = Bench::up(Threshold::Unlimited);
    bench.break_one(0);
    bench.settle();
    let expected = [(Operation::Quickcheck, "m0".to_owned()), (Operation::Recover, "m0".to_owned())];
    assert_eq!(bench.order(), expected);
    assert!(bench.all_up());
}

#[test]
fn one_that_must_not_stay_goes_after_its_parents() {
    let mut bench = Bench::up(Threshold::Unlimited);
    let id = bench.state.resources.get(&name(1)).unwrap().id;
    bench.agent.give_up(&name(1), id, "somebody else has it".into());
    bench.step();
    assert_eq!(bench.order(), [(Operation::Remove, "m3".to_owned())]);
    bench.finish(&name(3), Ok(()));
    bench.step();
    assert_eq!(bench.order().last(), Some(&(Operation::Remove, "m1".to_owned())));
}

#[test]
fn nobody_waits_where_silence_depends_on_the_daemon() {
    let mut bench = Bench::up(Threshold::Unlimited);
    let bare = Situation { lease_valid: false, guarded: false, ..SOUND };
    let begun = bench.agent.plan(at(1), &bench.state, bare);
    let removes = |a: &&Action| matches!(a, Action::Start(s) if s.operation == Operation::Remove);
    assert_eq!(begun.iter().filter(removes).count(), 4, "{begun:?}");
}

/// The order to the parents came to nothing, or has yet to come.
#[test]
fn a_child_that_is_asked_alone_waits_for_its_parents() {
    let mut bench = Bench::up(Threshold::Unlimited);
    let stop = |bench: &mut Bench, i| {
        let placement = bench.state.placements.get_mut(&name(i)).unwrap();
        placement.grant.as_mut().unwrap().phase = Phase::Stopping;
    };
    stop(&mut bench, 0);
    bench.settle();
    assert!(bench.all_up(), "{:?}", bench.log);
    (1..4).for_each(|i| stop(&mut bench, i));
    bench.settle();
    let removed: Vec<_> = bench.order().into_iter().filter(|(o, _)| *o == Operation::Remove).collect();
    assert_eq!(removed, all(Operation::Remove, ["m3", "m1", "m2", "m0"]));
}

/// What happens next: a member's sequence ends well or badly, a member is looked at, all are released or granted.
#[derive(Clone, Debug)]
enum Event {
    Ends(prop::sample::Index, bool),
    Touched(prop::sample::Index),
    Release,
    Later,
}

fn events() -> impl Strategy<Value = Event> {
    let any = any::<prop::sample::Index>;
    prop_oneof![
        12 => (any(), prop::bool::weighted(0.75)).prop_map(|(i, ok)| Event::Ends(i, ok)),
        4 => any().prop_map(Event::Touched),
        1 => Just(Event::Release),
        3 => Just(Event::Later),
    ]
}

proptest! {
    /// [`Bench::check`] holds at every step, and in the end it comes to rest with all in service.
    #[test]
    fn order_holds_whatever_fails(
        count in 1..6usize,
        wires in proptest::collection::vec(any::<bool>(), 10),
        mended in any::<bool>(),
        all in proptest::collection::vec(events(), 0..80),
    ) {
        let pairs = (0..count).flat_map(|p| (0..p).map(move |c| (p, c)));
        let edges: Vec<_> = pairs.zip(&wires).filter(|(_, w)| **w).map(|(e, _)| e).collect();
        let threshold = if mended { Threshold::Unlimited } else { Threshold::Failures(1) };
        let mut bench = Bench::new(count, &edges, threshold);
        for event in all {
            bench.step();
            if bench.is_free() {
                bench.grant();
                bench.step();
            }
            match event {
                Event::Ends(i, ok) if !bench.running.is_empty() => {
                    let tag = i.get(&bench.running.keys().cloned().collect::<Vec<_>>()).clone();
                    bench.finish(&tag, if ok { Ok(()) } else { failed("by chance") });
                }
                Event::Ends(..) => {}
                Event::Touched(i) => bench.agent.touched(&name(i.index(count)), at(bench.now)),
                Event::Release => bench.release(),
                Event::Later => bench.now += 2500,
            }
        }
        for _ in 0..20 {
            bench.settle();
            bench.now += 20_000;
            if bench.is_free() {
                bench.grant();
            }
        }
        bench.settle();
        prop_assert!(bench.all_up(), "{:?}", bench.log);
    }
}
