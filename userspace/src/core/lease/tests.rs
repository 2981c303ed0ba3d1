use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const L: Duration = Duration::from_millis(2000);

fn at(ms: u64) -> BootTime {
    BootTime(ms * 1_000_000)
}

fn of(n: u64) -> Quorum {
    Quorum::new(vec![(1..=n).collect::<BTreeSet<_>>()])
}

#[test]
fn valid_from_the_moment_of_asking_once_a_majority_agreed() {
    let mut h = Holder::new(L, 1);
    h.agreed(1, 1, at(100));
    assert_eq!(h.deadline(&of(3)), None, "one of three is no majority");
    h.agreed(2, 1, at(90));
    assert_eq!(h.deadline(&of(3)), Some(at(2090)), "the older of the two counts");
    h.agreed(3, 1, at(95));
    assert_eq!(h.deadline(&of(3)), Some(at(2095)));
    h.agreed(3, 1, at(50));
    assert_eq!(h.deadline(&of(3)), Some(at(2095)), "a late answer takes nothing back");
}

#[test]
fn another_epoch_starts_from_nothing() {
    let mut h = Holder::new(L, 1);
    h.agreed(1, 1, at(100));
    h.agreed(2, 1, at(100));
    h.adopt(2);
    assert_eq!(h.deadline(&of(3)), None);
    h.agreed(1, 1, at(200));
    h.agreed(2, 1, at(200));
    assert_eq!(h.deadline(&of(3)), None, "answers to the old epoch are void");
}

#[test]
fn voter_refuses_what_is_old_or_while_it_does_not_know() {
    let mut g = Granter::new(at(0), Duration::ZERO);
    assert_eq!(g.ask(at(1), 9, 1, (5, 5), L), Err(Refused::NotReady));
    g.caught_up([]);
    assert_eq!(g.ask(at(1), 9, 1, (4, 5), L), Err(Refused::OldMembership));
    assert_eq!(g.ask(at(1), 9, 1, (5, 5), L), Ok(()));
    assert_eq!(g.refuse_below(at(1), 9, 2), L + drift_margin(L));
    assert_eq!(g.ask(at(2), 9, 1, (5, 5), L), Err(Refused::OldEpoch));
    assert_eq!(g.ask(at(2), 9, 2, (5, 5), L), Ok(()));
}

#[test]
fn a_restarted_voter_presumes_that_it_promised() {
    let mut g = Granter::new(at(1000), L);
    assert_eq!(g.refuse_below(at(1500), 9, 2), Duration::from_millis(1525));
    let mut fresh = Granter::new(at(1000), Duration::ZERO);
    assert_eq!(fresh.refuse_below(at(1500), 9, 2), Duration::ZERO);
}

#[test]
fn a_restarted_voter_goes_on_refusing_what_it_refused() {
    let mut g = Granter::new(at(0), L);
    // Its earlier life testified that it refuses node 9's epochs below 2.
    g.caught_up([(9, 2)]);
    assert_eq!(g.ask(at(1), 9, 1, (5, 5), L), Err(Refused::OldEpoch));
    assert_eq!(g.ask(at(1), 9, 2, (5, 5), L), Ok(()));
}

#[test]
fn proof_waits_for_a_majority_and_for_former_voters() {
    let mut p = Proof::new(2);
    p.testimony(1, at(10), Duration::from_millis(1000));
    assert_eq!(p.complete_at(&of(3), at(0)), None);
    p.testimony(2, at(10), Duration::from_millis(500));
    assert_eq!(p.complete_at(&of(3), at(0)), Some(at(1020)), "the later of the two, with drift");
    p.testimony(3, at(10), Duration::ZERO);
    assert_eq!(p.complete_at(&of(3), at(0)), Some(at(515)), "the earliest majority");
    let mut late = Proof::new(2);
    (1..=3).for_each(|v| late.testimony(v, at(10), Duration::ZERO));
    assert_eq!(late.complete_at(&of(3), at(9000)), Some(at(9000)));
}

/// One step of a small world: 3 or 5 voters, node 1 holds, a leader wants to take over.
#[derive(Clone, Debug)]
enum Step {
    /// The holder asks these voters; answers arrive after the delays (ms).
    Ask(Vec<(u64, u64)>),
    Pass(u64),
    /// The leader asks this voter to refuse the old epoch.
    Query(u64),
    /// The voter dies and starts again, remembering only how long it ever promised.
    Restart(u64),
    /// The holder's kernel is asked to shut the old epoch; its word arrives after the delay (ms).
    Fence(u64),
}

fn steps(voters: u64) -> impl Strategy<Value = Vec<Step>> {
    let voter = 1..=voters;
    let step = prop_oneof![
        4 => prop::collection::vec((voter.clone(), 0u64..3000), 1..=5).prop_map(Step::Ask),
        4 => (0u64..900).prop_map(Step::Pass),
        2 => voter.clone().prop_map(Step::Query),
        1 => voter.prop_map(Step::Restart),
        1 => (0u64..300).prop_map(Step::Fence),
    ];
    prop::collection::vec(step, 1..60)
}

/// Clock rates: each voter's clock and the leader's run up to 0.4 % off, half of what is assumed.
fn check(voters: u64, steps: &[Step], rates: &[i64]) -> Result<(), TestCaseError> {
    let quorum = of(voters);
    // True time in microseconds; a host's own clock from it.
    let clock = |who: u64, now_us: u64| {
        let ppm = rates[who as usize % rates.len()];
        let own = i128::from(now_us) * (1_000_000 + i128::from(ppm)) / 1000;
        BootTime(u64::try_from(own).expect("positive"))
    };
    let mut now = 1_000_000_u64;
    let mut holder = Holder::new(L, 1);
    let mut granters: BTreeMap<u64, Granter> = (1..=voters)
        .map(|v| {
            let mut g = Granter::new(clock(v, now), Duration::ZERO);
            g.caught_up([]);
            (v, g)
        })
        .collect();
    // Deposing is committed before the first query; a restarted voter catches up with it.
    let mut deposed = false;
    let mut proof = Proof::new(2);
    let mut fence = 0;
    let mut fenced_at = None;
    let mut in_flight: Vec<(u64, u64, BootTime)> = Vec::new();
    for step in steps {
        match step {
            Step::Ask(to) => {
                let asked = clock(0, now);
                for &(v, delay_ms) in to {
                    let g = granters.get_mut(&v).expect("a voter");
                    if g.ask(clock(v, now), 1, 1, (0, 0), L).is_ok() {
                        in_flight.push((now + delay_ms * 1000, v, asked));
                    }
                }
            }
            Step::Pass(ms) => now += ms * 1000,
            Step::Query(v) => {
                deposed = true;
                let left = granters.get_mut(v).expect("a voter").refuse_below(clock(*v, now), 1, 2);
                proof.testimony(*v, clock(99, now), left);
            }
            Step::Fence(delay_ms) => {
                deposed = true;
                fence = 2;
                fenced_at = fenced_at.or(Some(now + delay_ms * 1000));
            }
            Step::Restart(v) => {
                let mut g = Granter::new(clock(*v, now), L);
                if deposed {
                    g.raise_floor(1, 2);
                }
                g.caught_up([]);
                granters.insert(*v, g);
            }
        }
        in_flight.retain(|&(due, v, asked)| {
            if due <= now {
                holder.agreed(v, 1, asked);
            }
            due > now
        });
        if let Some(at) = fenced_at.filter(|at| *at <= now) {
            proof.fenced(clock(99, at));
        }
        let taken_over = proof.complete_at(&quorum, BootTime::ZERO).is_some_and(|t| clock(99, now) >= t);
        // The kernel's gate: the lease, whatever the daemon writes, and the fence.
        let answering = fence <= 1 && holder.deadline(&quorum).is_some_and(|d| clock(0, now) < d);
        prop_assert!(!(taken_over && answering), "two owners at {now} us");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Safety rule 1 and 3: never is the node proven silent while it may still answer.
    #[test]
    fn never_proven_silent_while_answering(
        voters in prop_oneof![Just(3u64), Just(5u64)],
        steps in steps(3),
        rates in prop::collection::vec(-4000i64..4000, 7),
    ) {
        check(voters, &steps, &rates)?;
    }
}

/// The kernel's word needs no voter; it counts a moment later, and the earlier of both proofs counts.
#[test]
fn a_fence_is_a_proof_of_its_own() {
    let quorum = of(3);
    let at = |ms: u64| BootTime(ms * 1_000_000);
    let mut proof = Proof::new(2);
    assert_eq!(proof.complete_at(&quorum, BootTime::ZERO), None);
    proof.fenced(at(1000));
    proof.fenced(at(3000));
    assert_eq!(proof.complete_at(&quorum, at(9000)), Some(at(1005)));
    assert!(!proof.is_fenced(at(1004)) && proof.is_fenced(at(1005)));
    let mut proof = Proof::new(2);
    for voter in 1..=2 {
        proof.testimony(voter, at(100), Duration::ZERO);
    }
    proof.fenced(at(5000));
    assert_eq!(proof.complete_at(&quorum, BootTime::ZERO), Some(at(100)));
}
