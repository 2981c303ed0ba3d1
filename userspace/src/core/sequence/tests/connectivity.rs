//! Connectivity, row IP-10.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    None,
    Answering,
    Silent,
}
use List::{Answering, None as NoList, Silent};

/// A host with the context's addresses, on which pings are answered as told.
fn host(c: &Context, list: List, broadcast: bool) -> impl FnMut(&Command) -> Effect {
    let there = Presence { ours: (*c.addresses).clone(), ..Presence::default() };
    move |command| match command {
        Command::ReadLink { .. } => link(LinkState::Up),
        Command::ReadAddresses { .. } => Effect::Presence(there.clone()),
        Command::ProbeDuplicates { .. } => no_claims(),
        Command::PingList { .. } if list == Answering => somebody(),
        Command::BroadcastPing { .. } if broadcast => somebody(),
        Command::PingList { .. } | Command::BroadcastPing { .. } => nobody(),
        _ => Effect::Done,
    }
}

/// Which tests were run, in order: `l`ist, `b`roadcast.
fn pings(commands: &[Command]) -> String {
    let kind = |command: &Command| match command {
        Command::PingList { .. } => Some('l'),
        Command::BroadcastPing { .. } => Some('b'),
        _ => None,
    };
    commands.iter().filter_map(kind).collect()
}

fn everyone(c: &Context) -> [Sequence; 4] {
    [
        Sequence::restore(c.clone()),
        Sequence::quickcheck(c.clone()),
        Sequence::switch(c.clone(), "eth1".to_owned()),
        Sequence::amend(c.clone(), Addresses::default()),
    ]
}

#[test]
fn matrix() {
    // Ping list, broadcast answering, NOBCASTPING -> tests run, connected.
    let table = [
        (NoList, true, false, "b", true),
        (NoList, false, false, "b", false),
        (NoList, true, true, "", true),
        (NoList, false, true, "", true),
        (Answering, true, false, "l", true),
        (Answering, false, false, "l", true),
        (Answering, true, true, "l", true),
        (Answering, false, true, "l", true),
        (Silent, true, false, "lb", true),
        (Silent, false, false, "lb", false),
        (Silent, true, true, "l", false),
        (Silent, false, true, "l", false),
    ];
    for row @ (list, broadcast, no_broadcast, tests, connected) in table {
        let mut c = if list == NoList { context() } else { with_list() };
        c.tunables.no_broadcast_ping = no_broadcast;
        for sequence in everyone(&c) {
            let name = sequence.name();
            let (result, commands) = asked(sequence, host(&c, list, broadcast));
            assert_eq!((pings(&commands).as_str(), result.is_ok()), (tests, connected), "{name} {row:?}");
            if let Err(failure) = result {
                assert_eq!(failure.cause, Cause::Interface, "{name} {row:?}");
                let reason = failure.reason;
                assert!(reason.contains("nobody of the ping list") == (list == Silent), "{reason}");
                assert!(reason.contains("nobody on the subnet") != no_broadcast, "{reason}");
                assert!(reason.contains("a ping from 10.0.0.7 on eth0"), "{reason}");
            }
        }
    }
}

#[test]
fn where_no_answer_could_come_back_nobody_is_asked() {
    let c = Context { unreached: Some("the routes lead elsewhere yet".into()), ..with_list() };
    for sequence in everyone(&c) {
        let (result, commands) = asked(sequence, host(&c, Silent, false));
        assert_eq!((pings(&commands).as_str(), result.is_ok()), ("", true));
    }
}

#[test]
fn a_ping_that_cannot_be_sent_is_as_telling_as_no_answer() {
    let c = with_list();
    for sequence in everyone(&c) {
        let mut host = host(&c, Silent, false);
        let (result, commands) = asked(sequence, |command| match command {
            Command::PingList { .. } | Command::BroadcastPing { .. } => failed("unreachable"),
            other => host(other),
        });
        assert_eq!(pings(&commands), "lb");
        let reason = result.expect_err("must fail").reason;
        assert!(reason.contains("nobody of the ping list and nobody on the subnet"), "{reason}");
    }
}

/// Every subnet is tested from its first address, with its own ping list, and every one must be connected.
#[test]
fn every_subnet_has_its_own_test() {
    let mut c = of(&["10.0.0.7/24", "10.0.0.8/24", "10.1.0.9/16", "fd00::5/64", "fd00::6/64"]);
    let far: Vec<IpAddr> = vec!["10.1.0.1".parse().unwrap()];
    c.ping_lists = [(net("10.1.0.0/16"), far.clone()), (net("10.9.0.0/16"), targets())].into();
    let test = |source: &str| Command::BroadcastPing {
        source: net(source),
        device: DEVICE.to_owned(),
        tries: 3,
        wait: Duration::from_secs(1),
    };
    let list = Command::PingList {
        source: "10.1.0.9".parse().unwrap(),
        device: DEVICE.to_owned(),
        targets: far,
        tries: 3,
        wait: Duration::from_secs(1),
    };
    let all = [test("10.0.0.7/24"), list, test("fd00::5/64")];
    let only_pings = |commands: Vec<Command>| -> Vec<Command> {
        commands.into_iter().filter(|c| !pings(std::slice::from_ref(c)).is_empty()).collect()
    };
    for sequence in everyone(&c) {
        let (result, commands) = asked(sequence, host(&c, Answering, true));
        assert_eq!((result, only_pings(commands)), (Ok(()), all.to_vec()));
    }
    // One that is not connected fails the whole.
    for (number, silent) in all.iter().enumerate() {
        for sequence in everyone(&c) {
            let mut host = host(&c, Answering, true);
            let (result, commands) = asked(sequence, |c| if c == silent { nobody() } else { host(c) });
            if number == 1 {
                // Its broadcast ping is answered.
                let mut all = all.to_vec();
                all.insert(2, test("10.1.0.9/16"));
                assert_eq!((result, only_pings(commands)), (Ok(()), all));
            } else {
                assert_eq!(only_pings(commands), all[..=number]);
                let (reason, who) =
                    (result.expect_err("must fail").reason, ["10.0.0.7", "", "fd00::5"][number]);
                assert!(reason.contains(&format!("a ping from {who} on eth0")), "{reason}");
            }
        }
    }
    // Without broadcast pings only the one with a list is tested.
    c.tunables.no_broadcast_ping = true;
    for sequence in everyone(&c) {
        let (result, commands) = asked(sequence, host(&c, Answering, true));
        assert_eq!((result, only_pings(commands)), (Ok(()), vec![all[1].clone()]));
    }
}
