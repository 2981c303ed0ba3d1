use proptest::prelude::*;

use super::*;
use crate::{
    core::change::{Change, DefaultSetting, NewNode, apply},
    model::{Addresses, Grant, NodeSettings, Phase, Resource, Standing, TwoNodes},
};

fn two() -> ClusterState {
    let new = |n: u8| {
        let at = ([10, 0, 0, n], 7411).into();
        NewNode { name: format!("n{n}"), rpc: at, paths: vec![at], witness: false }
    };
    let mut state = ClusterState::default();
    apply(&mut state, &Change::Found { name: "lab".into(), node: new(1) });
    apply(&mut state, &Change::Reserve { node: new(2) });
    apply(&mut state, &Change::Admit { node: 2 });
    state.connectivity.hosts = ["10.0.0.254".parse().unwrap()].into();
    apply(&mut state, &Change::SetDefault { setting: DefaultSetting::TwoNodes(TwoNodes::TieBreaker) });
    state
}

fn serve(state: &mut ClusterState, n: u8, owner: NodeId) {
    let address: ipnet::IpNet = format!("10.0.0.{n}/24").parse().unwrap();
    let tag: Tag = format!("ip{n}").parse().unwrap();
    let nodes = [1, 2].map(|id| (id, NodeSettings::new(id as u16, vec![format!("eth{id}")])));
    let resource = Resource::new(tag.clone(), Addresses::from(address), nodes);
    apply(state, &Change::Create { resource, on: owner });
    let grant = Grant { owner, lease_epoch: 1, phase: Phase::InService };
    state.placements.get_mut(&tag).unwrap().grant = Some(grant);
}

fn voters(all: &[NodeId]) -> BTreeSet<NodeId> {
    all.iter().copied().collect()
}

#[test]
fn the_one_that_owned_most_goes_first() {
    let mut state = two();
    let both = voters(&[1, 2]);
    let first = |state: &ClusterState, me| case(state, &both, me).unwrap().first;
    assert_eq!((first(&state, 1), first(&state, 2)), (true, false), "as much: the lower number");
    serve(&mut state, 50, 2);
    assert_eq!((first(&state, 1), first(&state, 2)), (false, true));
    serve(&mut state, 51, 1);
    assert_eq!((first(&state, 1), first(&state, 2)), (true, false));
}

#[test]
fn only_one_of_two_full_members_under_the_policy_goes_on() {
    let state = two();
    let both = voters(&[1, 2]);
    assert!(case(&state, &both, 1).is_some());
    assert_eq!(case(&state, &voters(&[1]), 1), None, "it has gone on");
    assert_eq!(case(&state, &voters(&[1, 2, 3]), 1), None, "three voters decide");
    assert_eq!(case(&state, &both, 9), None);
    let changed = |change: &dyn Fn(&mut ClusterState)| {
        let mut state = two();
        change(&mut state);
        case(&state, &both, 1)
    };
    assert_eq!(changed(&|s| s.defaults.two_nodes = TwoNodes::Off), None);
    assert_eq!(changed(&|s| s.defaults.two_nodes = TwoNodes::Freeze), None);
    assert_eq!(changed(&|s| s.nodes.get_mut(&1).unwrap().declared_dead = true), None);
    assert_eq!(changed(&|s| s.nodes.get_mut(&1).unwrap().standing = Standing::Deposed), None);
    assert_eq!(changed(&|s| s.nodes.get_mut(&1).unwrap().witness = true), None);
    assert_eq!(changed(&|s| s.nodes.get_mut(&2).unwrap().standing = Standing::Joining), None);
}

#[test]
fn what_the_other_owned_is_looked_at_where_this_node_could_have_it() {
    let mut state = two();
    serve(&mut state, 50, 1);
    serve(&mut state, 51, 1);
    serve(&mut state, 52, 2);
    let looked = |state: &ClusterState, me| {
        let case = case(state, &voters(&[1, 2]), me).unwrap();
        let all = watched(state, me, case);
        all.into_iter().map(|w| (w.devices[0].clone(), w.addresses[0].to_string())).collect::<Vec<_>>()
    };
    let at = |device: &str, address: &str| (device.to_owned(), address.to_owned());
    assert_eq!(looked(&state, 2), [at("eth2", "10.0.0.50"), at("eth2", "10.0.0.51")]);
    assert_eq!(looked(&state, 1).len(), 3, "the first looks at its own as well");
    let resource = state.resources.get_mut(&"ip50".parse::<Tag>().unwrap()).unwrap();
    resource.nodes.get_mut(&1).unwrap().restore_and_recover = false;
    assert_eq!(looked(&state, 2), [at("eth2", "10.0.0.51")], "not on the network");
}

#[test]
fn maintenance_of_the_cluster_or_of_a_node_counts() {
    let mut state = two();
    assert!(!is_maintained(&state));
    state.nodes.get_mut(&2).unwrap().maintenance = true;
    assert!(is_maintained(&state));
    state = two();
    state.defaults.maintenance = true;
    assert!(is_maintained(&state));
}

fn clear() -> Look {
    Look { maintained: false, reached: 1, hosts: 1, agrees: false, seen: Seen::Nobody, late: false }
}

fn somebody(probing: bool) -> Seen {
    Seen::Somebody { address: "10.0.0.50".parse().unwrap(), mac: "02:00:00:00:00:01".into(), probing }
}

#[test]
fn every_reason_to_stay() {
    let take = |first, look| Contest::default().take(first, look);
    assert_eq!((take(true, clear()), take(false, clear())), (Step::Go, Step::Go));
    for (reached, hosts, goes) in
        [(0, 1, false), (1, 2, false), (2, 2, true), (1, 3, false), (2, 3, true), (0, 0, false)]
    {
        let step = take(true, Look { reached, hosts, ..clear() });
        assert_eq!(step == Step::Go, goes, "{reached} of {hosts}");
    }
    let stays = |first, look| matches!(take(first, look), Step::Stay(_));
    for first in [true, false] {
        assert!(stays(first, Look { maintained: true, ..clear() }));
        assert!(stays(first, Look { agrees: true, ..clear() }));
        assert!(stays(first, Look { seen: Seen::Blind, ..clear() }));
        assert!(stays(first, Look { seen: somebody(false), ..clear() }));
        assert!(stays(first, Look { seen: somebody(true), ..clear() }));
        assert_eq!(stays(first, Look { seen: Seen::Nothing, ..clear() }), !first);
    }
}

#[test]
fn who_is_late_looks_for_long_and_without_a_break() {
    let mut contest = Contest::default();
    let late = || Look { late: true, ..clear() };
    assert_eq!(contest.take(false, late()), Step::Go, "the one that waits hears the first in one look");
    let mut contest = Contest::default();
    for _ in 1..LOOKS_WHEN_LATE {
        assert_eq!(contest.take(true, late()), Step::Again);
    }
    assert!(matches!(contest.take(true, Look { seen: somebody(false), ..late() }), Step::Stay(_)));
    assert_eq!(contest.take(true, late()), Step::Again, "from the beginning");
}

/// In tenths of a second.
const TICK: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Waiting { until: u32 },
    Looking { until: u32, answered: bool, probed: bool },
    Going { until: u32 },
    On,
}

struct Player {
    first: bool,
    doing: Doing,
    contest: Contest,
    /// When it reaches the hosts: it does from an even entry on, and not from an odd one.
    reach: Vec<u32>,
    going: u32,
}

impl Player {
    fn probes(&self) -> bool {
        matches!(self.doing, Doing::Looking { .. } | Doing::Going { .. })
    }

    fn step(&mut self, now: u32, lease_over: u32, answered: bool, probed: bool) {
        let ticks = |d: Duration| (d.as_millis() / TICK.as_millis()) as u32;
        let look = || Doing::Looking { until: now + ticks(LOOK), answered: false, probed: false };
        match &mut self.doing {
            Doing::Waiting { until } if now >= *until => self.doing = look(),
            Doing::Looking { until, answered: a, probed: p } => {
                (*a, *p) = (*a || answered, *p || probed);
                if now < *until {
                    return;
                }
                let seen = if *a || *p { somebody(!*a) } else { Seen::Nobody };
                let since = TICK * (now - ticks(LOOK)).saturating_sub(lease_over);
                let late = is_late(since, SUSPICION, MARGIN);
                let reached = self.reach.iter().filter(|at| **at <= now).count() % 2;
                let look_again = look();
                self.doing = match self.contest.take(self.first, Look { reached, seen, late, ..clear() }) {
                    Step::Go => Doing::Going { until: now + self.going },
                    Step::Again => look_again,
                    Step::Stay(why) => Doing::Waiting { until: now + ticks(why.pause(self.first)) },
                };
            }
            Doing::Going { until } if now >= *until => self.doing = Doing::On,
            Doing::Waiting { .. } | Doing::Going { .. } | Doing::On => {}
        }
    }
}

const SUSPICION: Duration = Duration::from_millis(1500);
const MARGIN: Duration = Duration::from_millis(100);
const LEASE: Duration = Duration::from_secs(2);

proptest! {
    /// Each loses the other at a time of its own, reaches the hosts at times of its own, and takes its own time to
    /// answer; the first does not hear the other's probes. One goes on, at most.
    #[test]
    fn never_both(
        (lost_by_first, lost_by_second) in (0..300u32, 0..300u32),
        reach in (proptest::collection::vec(0..600u32, 0..6), proptest::collection::vec(0..600u32, 0..6)),
        going in (1..80u32, 1..80u32),
    ) {
        let ticks = |d: Duration| (d.as_millis() / TICK.as_millis()) as u32;
        let due = |lost: u32, first| Doing::Waiting { until: lost + ticks(SUSPICION + turn(first, LEASE, MARGIN)) };
        let player = |first, lost, reach, going| Player {
            first, doing: due(lost, first), contest: Contest::default(), reach, going,
        };
        let mut a = player(true, lost_by_first, reach.0, going.0);
        let mut b = player(false, lost_by_second, reach.1, going.1);
        // The other agrees to a lease as long as it hears who asks, and the answer must be heard.
        let lease_over = lost_by_first.min(lost_by_second) + ticks(LEASE);
        for now in 0..1500 {
            let (a_on, b_on) = (a.doing == Doing::On, b.doing == Doing::On);
            let a_probes = a.probes();
            a.step(now, lease_over, b_on, false);
            b.step(now, lease_over, a_on, a_probes);
            let goes = |p: &Player| matches!(p.doing, Doing::Going { .. } | Doing::On);
            prop_assert!(!(goes(&a) && goes(&b)), "both at {now}: {:?}, {:?}", a.doing, b.doing);
        }
    }
}
