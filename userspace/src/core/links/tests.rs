use proptest::prelude::*;

use super::*;

const TIMING: LinkTiming =
    LinkTiming { deaf_after: Duration::from_millis(1000), hold: Duration::from_millis(2000) };

/// Between two looks.
const STEP: u64 = 100;

fn at(ms: u64) -> BootTime {
    BootTime(ms * 1_000_000)
}

fn signal(admin_up: bool, carrier: bool) -> Option<Signal> {
    Some(Signal { admin_up, carrier })
}

/// Up, its frames counted, the last at `last`.
fn up(last: Option<u64>, transmitting: bool) -> Sight {
    Sight {
        link: signal(true, true),
        received: Some(Received { last: last.map(at) }),
        transmitting: transmitting.then_some(2),
        unreachable: None,
    }
}

/// Looks at it every step from `from` until `to`, `sight` made for each; all turns with their times.
fn watch(
    watch: &mut LinkWatch,
    from: u64,
    to: u64,
    sight: impl Fn(u64) -> Sight,
) -> Vec<(u64, LinkHealth, LinkHealth)> {
    let times = (from..to).step_by(STEP as usize);
    times.filter_map(|t| watch.see(at(t), &sight(t), &TIMING).map(|turn| (t, turn.from, turn.to))).collect()
}

#[test]
fn a_loss_counts_at_once_and_a_return_is_held() {
    let mut link = LinkWatch::new(at(0), &up(None, false));
    assert!(!link.report().recovering, "up at the start is no return");
    let losses = [
        (signal(true, false), LinkHealth::NoCarrier),
        (signal(false, true), LinkHealth::AdminDown),
        (None, LinkHealth::Missing),
    ];
    for (lost, health) in losses {
        let turn = link.see(at(1000), &Sight { link: lost, ..Sight::default() }, &TIMING);
        assert_eq!(turn.map(|t| t.to), Some(health));
        assert_eq!(link.health(), health);
        assert!(!link.report().why.is_empty());
    }
    link.see(at(5000), &up(None, false), &TIMING);
    assert!(link.health() == LinkHealth::Up && link.report().recovering);
    link.see(at(6900), &up(None, false), &TIMING);
    assert!(link.report().recovering);
    link.see(at(7000), &up(None, false), &TIMING);
    assert!(!link.report().recovering && link.report().why.is_empty());
}

#[test]
fn a_second_loss_begins_the_hold_anew() {
    let mut link = LinkWatch::new(at(0), &Sight { link: signal(true, false), ..Sight::default() });
    link.see(at(1000), &up(None, false), &TIMING);
    link.see(at(2000), &Sight { link: signal(true, false), ..Sight::default() }, &TIMING);
    link.see(at(2100), &up(None, false), &TIMING);
    link.see(at(3500), &up(None, false), &TIMING);
    assert!(link.report().recovering);
}

#[test]
fn silence_while_peers_transmit_is_deaf_and_sound_is_heard() {
    let mut link = LinkWatch::new(at(0), &up(None, true));
    let hears_until_2000 = |t: u64| up(Some(t.min(2000)), true);
    let turns = watch(&mut link, 100, 6000, hears_until_2000);
    assert_eq!(turns, [(3000, LinkHealth::Up, LinkHealth::Deaf)]);
    // A lone frame changes nothing.
    assert_eq!(watch(&mut link, 6000, 9000, |_| up(Some(6000), true)), []);
    let turns = watch(&mut link, 9000, 12_000, |t| up(Some(t), true));
    assert_eq!(turns, [(10_000, LinkHealth::Deaf, LinkHealth::Up)]);
    assert!(link.report().recovering);
}

#[test]
fn nobody_is_deaf_on_what_was_never_counted_or_is_not_up() {
    let mut link = LinkWatch::new(at(0), &up(None, true));
    let uncounted = |_| Sight { received: None, ..up(None, true) };
    assert_eq!(watch(&mut link, 100, 9000, uncounted), []);
    let down = |_| Sight { link: signal(true, false), ..up(None, true) };
    assert_eq!(watch(&mut link, 9000, 20_000, down), [(9000, LinkHealth::Up, LinkHealth::NoCarrier)]);
    // The silence counts from the return of the carrier.
    let turns = watch(&mut link, 20_000, 25_000, |_| up(None, true));
    assert_eq!(turns[0], (20_000, LinkHealth::NoCarrier, LinkHealth::Up));
    assert_eq!(turns[1].2, LinkHealth::Deaf);
    assert!(turns[1].0 >= 21_000 && turns.len() == 2, "{turns:?}");
}

#[test]
fn a_deaf_interface_is_given_another_chance_when_all_are_silent() {
    let mut link = LinkWatch::new(at(0), &up(None, true));
    assert_eq!(watch(&mut link, 100, 3000, |_| up(None, true)).len(), 1);
    let turns = watch(&mut link, 3000, 6000, |_| up(None, false));
    assert_eq!(turns, [(4000, LinkHealth::Deaf, LinkHealth::Up)]);
}

#[test]
fn a_host_that_was_stopped_listens_anew() {
    let mut link = LinkWatch::new(at(0), &up(None, true));
    watch(&mut link, 100, 900, |_| up(None, true));
    assert_eq!(link.see(at(60_000), &up(Some(800), true), &TIMING), None);
    assert_eq!(watch(&mut link, 60_100, 60_900, |_| up(Some(800), true)), []);
    assert_eq!(watch(&mut link, 60_900, 61_100, |_| up(Some(800), true)).len(), 1);
}

#[test]
fn polls_count_after_the_signal_and_the_silence() {
    let mut link = LinkWatch::new(at(0), &up(Some(0), false));
    let polled = |t| Sight { unreachable: Some("nobody answers".into()), ..up(Some(t), true) };
    assert_eq!(link.see(at(100), &polled(100), &TIMING).unwrap().to, LinkHealth::Unreachable);
    assert_eq!(link.report().why, "nobody answers");
    assert_eq!(
        link.see(at(200), &Sight { link: None, ..polled(200) }, &TIMING).unwrap().to,
        LinkHealth::Missing
    );
    link.see(at(300), &polled(300), &TIMING);
    assert_eq!(watch(&mut link, 400, 3000, |_| polled(300))[0].2, LinkHealth::Deaf);
}

fn peer(node: NodeId, heard: [Option<u64>; 2], transmits: [bool; 2]) -> PeerPaths {
    PeerPaths { node, heard: heard.map(|h| h.map(at)).into(), transmits: transmits.into() }
}

#[test]
fn only_another_interface_tells_that_peers_transmit() {
    let apart = [Some("eth0".to_owned()), Some("eth1".to_owned())];
    let fresh = Duration::from_millis(500);
    let asked = |on: &str, carriers: &[Option<String>], peers: &[PeerPaths]| {
        transmitting(on, carriers, peers, at(1000), fresh)
    };
    let speaks = peer(3, [Some(900), None], [true, true]);
    assert_eq!(asked("eth1", &apart, std::slice::from_ref(&speaks)), Some(3));
    assert_eq!(asked("eth0", &apart, std::slice::from_ref(&speaks)), None, "heard on that very path");
    assert_eq!(asked("eth2", &apart, std::slice::from_ref(&speaks)), None, "no path of it");
    assert_eq!(asked("eth1", &apart[..1], std::slice::from_ref(&speaks)), None, "a single path");
    let together = [Some("eth0".to_owned()), Some("eth0".to_owned())];
    assert_eq!(asked("eth0", &together, std::slice::from_ref(&speaks)), None, "both paths on one interface");
    let unknown = [None, Some("eth1".to_owned())];
    assert_eq!(
        asked("eth1", &unknown, std::slice::from_ref(&speaks)),
        None,
        "its path is nobody knows where"
    );
    assert_eq!(asked("eth1", &apart, &[peer(3, [Some(400), None], [true, true])]), None, "old words");
    assert_eq!(
        asked("eth1", &apart, &[peer(3, [Some(900), None], [true, false])]),
        None,
        "it says it does not"
    );
    let many = [peer(2, [None, None], [false, false]), speaks];
    assert_eq!(asked("eth1", &apart, &many), Some(3), "one of several suffices");
}

#[test]
fn the_table_prefers_what_is_there_then_what_is_steady() {
    let devices = ["eth0".to_owned(), "eth1".to_owned(), "eth2".to_owned()];
    let table = |all: [(LinkHealth, bool); 3]| {
        let report = |(health, recovering)| LinkReport {
            health,
            recovering,
            since: at(0),
            why: "why".into(),
            stationary: vec![],
        };
        LinkTable::new(devices.iter().cloned().zip(all.map(report)).collect())
    };
    let (up, back, bad) = ((LinkHealth::Up, false), (LinkHealth::Up, true), (LinkHealth::Deaf, false));
    assert_eq!(LinkTable::default().choose(&devices, None), Some("eth0"), "nothing speaks against any");
    assert_eq!(LinkTable::default().choose(&devices, Some("eth1")), Some("eth1"));
    assert_eq!(table([up, up, up]).choose(&devices, Some("eth1")), Some("eth1"), "no move without a failure");
    assert_eq!(table([bad, back, up]).choose(&devices, Some("eth0")), Some("eth2"));
    assert_eq!(table([bad, back, bad]).choose(&devices, Some("eth0")), Some("eth1"));
    assert_eq!(table([back, bad, bad]).choose(&devices, Some("eth0")), Some("eth0"));
    assert_eq!(table([bad, bad, bad]).choose(&devices, Some("eth0")), None);
    assert_eq!(table([up, bad, up]).choose(&devices, Some("gone")), Some("eth0"));
    assert_eq!(table([bad, up, up]).failure("eth0").as_deref(), Some("eth0: why"));
    assert_eq!(table([bad, up, up]).failure("eth1"), None);
    assert!(table([up, up, up]).failure("eth9").is_some() && LinkTable::default().failure("eth9").is_none());
}

/// One look: how long after the one before, and what is seen.
#[derive(Clone, Debug)]
struct Look {
    after: u64,
    link: Option<Signal>,
    frame: bool,
    counted: bool,
    transmitting: bool,
    polls_fail: bool,
}

fn looks() -> impl Strategy<Value = Vec<Look>> {
    let link = prop_oneof![
        8 => Just(signal(true, true)),
        1 => Just(signal(true, false)),
        1 => Just(signal(false, false)),
        1 => Just(None)
    ];
    let after = prop_oneof![9 => 1..300u64, 1 => 300..3000u64];
    let yes = |p| proptest::bool::weighted(p);
    let look = (after, link, yes(0.3), yes(0.95), yes(0.7), yes(0.05)).prop_map(
        |(after, link, frame, counted, transmitting, polls_fail)| Look {
            after,
            link,
            frame,
            counted,
            transmitting,
            polls_fail,
        },
    );
    proptest::collection::vec(look, 1..120)
}

/// Runs the looks and tells each with its time, the sight, and the verdict before and after.
fn run(looks: &[Look], mut check: impl FnMut(u64, &Sight, &LinkWatch, Option<Turn>)) {
    let (mut now, mut last) = (10_000, None);
    let mut link = LinkWatch::new(at(now), &up(None, false));
    for look in looks {
        now += look.after;
        last = if look.frame { Some(now) } else { last };
        let sight = Sight {
            link: look.link,
            received: look.counted.then_some(Received { last: last.map(at) }),
            transmitting: look.transmitting.then_some(2),
            unreachable: look.polls_fail.then(|| "nobody answers".to_owned()),
        };
        let turn = link.see(at(now), &sight, &TIMING);
        check(now, &sight, &link, turn);
    }
}

proptest! {
    #[test]
    fn never_becomes_deaf_while_frames_arrive(looks in looks()) {
        run(&looks, |now, sight, _, turn| {
            let heard = sight.received.and_then(|r| r.last).is_some_and(|t| at(now).since(t) < TIMING.deaf_after);
            assert!(!heard || turn.is_none_or(|t| t.to != LinkHealth::Deaf), "deaf while frames arrive");
        });
    }

    #[test]
    fn never_deaf_when_nobody_is_known_to_transmit(looks in looks()) {
        let mut quiet_since = None;
        run(&looks, |now, sight, link, turn| {
            quiet_since = if sight.transmitting.is_none() { quiet_since.or(Some(now)) } else { None };
            let became = turn.is_some_and(|t| t.to == LinkHealth::Deaf);
            assert!(!became || sight.transmitting.is_some(), "became deaf while all are silent");
            let long = quiet_since.is_some_and(|t| now - t >= TIMING.deaf_after.as_millis() as u64);
            assert!(!long || link.health() != LinkHealth::Deaf, "stays deaf while all are silent");
        });
    }

    #[test]
    fn deaf_is_earned_by_a_whole_silence_of_looks(looks in looks()) {
        // Since when, without a gap, it could have heard and did not.
        let mut silent_since: Option<u64> = None;
        run(&looks, |now, sight, _, turn| {
            let could = super::signal(sight).is_none() && sight.received.is_some() && sight.transmitting.is_some();
            silent_since = if could { silent_since.or(Some(now)) } else { None };
            if turn.is_some_and(|t| t.to == LinkHealth::Deaf) {
                let since = silent_since.expect("it could not have heard");
                assert!(at(now).since(at(since)) >= TIMING.deaf_after, "too soon");
            }
        });
    }

    #[test]
    fn the_signal_goes_before_all_and_every_verdict_has_a_reason(looks in looks()) {
        run(&looks, |_, sight, link, turn| {
            if let Some((lost, _)) = super::signal(sight) {
                assert_eq!(link.health(), lost, "a loss counts at once");
            } else {
                assert!(!matches!(link.health(), LinkHealth::Missing | LinkHealth::AdminDown | LinkHealth::NoCarrier));
            }
            let report = link.report();
            assert_eq!(report.why.is_empty(), report.health == LinkHealth::Up);
            assert!(!report.recovering || report.health == LinkHealth::Up);
            assert!(turn.is_none_or(|t| t.from != t.to && t.to == link.health()));
        });
    }
}
