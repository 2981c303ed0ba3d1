use std::time::Duration;

use super::*;
use crate::{
    api::{
        Status,
        facts::{Facts, PathFacts, PeerFacts},
    },
    core::change::Change,
    daemon::events::About,
    observe::clock,
};

async fn status(bench: &Bench) -> Status {
    match bench.ask(Request::Status).await.1 {
        Answer::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

fn healthy() -> Facts {
    let path = PathFacts { up: true, transmits: true, last_heard: Some(clock::now()), kernel: None };
    let peer = PeerFacts { alive: true, lease_valid: true, paths: vec![path] };
    Facts { quorum: true, peers: [(2, peer.clone()), (3, peer.clone()), (4, peer)].into() }
}

#[tokio::test]
async fn a_healthy_cluster_is_shown_without_warnings_but_the_tests_guard() {
    let bench = bench();
    bench.facts.send_replace(healthy());
    bench.lease_for(Duration::from_secs(3600));
    bench.done(create_on_all("10.0.0.9")).await;
    bench.give("ip-10.0.0.9", 1);
    bench.report("ip-10.0.0.9", Outcome::Started);
    let s = status(&bench).await;
    assert_eq!(s.warnings.len(), 1, "{:?}", s.warnings);
    assert!(s.warnings[0].contains("guard is not in the kernel (a test)"));
    let cluster = s.cluster.unwrap();
    assert_eq!((cluster.name.as_str(), cluster.leader.as_deref(), cluster.voters), ("test", Some("b"), 4));
    assert!(s.lease.valid && s.lease.remaining_ms > 3_500_000);
    assert_eq!(s.datapath.verdicts, [("passed".into(), 3), ("answered-arp".into(), 2)]);
    assert!(s.nodes.iter().all(|n| n.alive && n.paths[0].up));
    assert_eq!(s.nodes[0].resources_in_service, 1);
    let r = &s.resources[0];
    assert_eq!((r.state.as_str(), r.owner.as_deref(), r.device.as_deref()), ("ISP", Some("a"), Some("eth0")));
    assert_eq!(r.packets, Some(7));
    let states: Vec<_> = r.nodes.iter().map(|n| (n.node.as_str(), n.state.as_str())).collect();
    assert_eq!(states, [("a", "ISP"), ("b", "OSU"), ("c", "OSU")]);
    let names: Vec<_> = s.interfaces.iter().map(|i| (i.name.as_str(), i.xdp.as_str())).collect();
    assert_eq!(names, [("eth0", "generic (veth)"), ("eth1", "none"), ("eth2", "none")]);
    assert_eq!(s.interfaces[0].frames, 5);
}

/// Nobody has published anything in between.
#[tokio::test]
async fn a_lease_that_was_given_up_is_not_called_valid_for_another_moment() {
    let bench = bench();
    bench.facts.send_replace(healthy());
    bench.lease_for(Duration::from_secs(3600));
    assert!(status(&bench).await.lease.valid);
    bench.context.datapath.set_lease(2, crate::core::time::BootTime::ZERO).unwrap();
    let lease = status(&bench).await.lease;
    assert_eq!((lease.valid, lease.remaining_ms, lease.epoch), (false, 0, 2));
}

#[tokio::test]
async fn each_trouble_is_a_warning() {
    let mut host = FakeHost::usual();
    host.links[1].carrier = true;
    let bench = Bench::new(host);
    bench.done(create_on_all("10.0.0.9")).await;
    for node in [1, 2, 3] {
        bench.give("ip-10.0.0.9", node);
        bench.report("ip-10.0.0.9", Outcome::Failed { reason: format!("reason {node}") });
    }
    bench.facts.send_replace({
        let mut facts = healthy();
        facts.quorum = false;
        facts.peers.insert(2, PeerFacts::default());
        let paths = vec![PathFacts { up: false, transmits: false, last_heard: None, kernel: None }];
        facts.peers.insert(3, PeerFacts { alive: true, lease_valid: false, paths });
        facts
    });
    std::fs::write(bench.dir.path().join("tunables"), "\nIP_PINGTRIES=lots\n").unwrap();
    let warnings = status(&bench).await.warnings.join("\n");
    for expected in [
        "no quorum",
        "the lease is not valid",
        "node b is silent",
        "path 10.0.0.3:7412 of node c is down",
        "node c has no valid lease",
        "ip-10.0.0.9 failed on every node (a: reason 1; b: reason 2; c: reason 3)",
        "tunables:2: IP_PINGTRIES='lots'",
    ] {
        assert!(warnings.contains(expected), "{expected} is missing in\n{warnings}");
    }
}

#[tokio::test]
async fn two_voters_a_deposed_owner_and_the_fast_profile_are_pointed_out() {
    let mut bench = bench();
    let mut config = (*bench.context.config).clone();
    config.profile = crate::config::Profile::Fast;
    bench.context.config = config.into();
    bench.facts.send_replace(healthy());
    bench.done(create_on_all("10.0.0.9")).await;
    bench.give("ip-10.0.0.9", 2);
    bench.report("ip-10.0.0.9", Outcome::Started);
    bench.store.change(&Change::Depose { node: 2, lease_epoch: 1 });
    bench.store.set_voters(2);
    let s = status(&bench).await;
    assert_eq!(s.resources[0].state, "moving");
    let warnings = s.warnings.join("\n");
    for expected in ["two voters are no failover", "node b is deposed", "profile fast"] {
        assert!(warnings.contains(expected), "{expected} is missing in\n{warnings}");
    }
}

#[tokio::test]
async fn the_interface_in_use_is_shown_also_when_only_the_agent_knows_it() {
    let bench = bench();
    // The first one is in the datapath, the second one neither there nor assigned.
    for tag in ["10.0.0.9", "10.0.0.8"] {
        bench.done(create_on_all(tag)).await;
        bench.give(&format!("ip-{tag}"), 1);
        bench.report(&format!("ip-{tag}"), Outcome::Started);
    }
    let unseen = tag("ip-10.0.0.8");
    let device = async || {
        let all = status(&bench).await.resources;
        all.into_iter().find(|r| r.tag == unseen).unwrap().device
    };
    bench.context.in_use.set(&unseen, Some("eth2"));
    assert_eq!(device().await.as_deref(), Some("eth2"));
    bench.context.in_use.set(&unseen, None);
    assert_eq!(device().await.as_deref(), Some("eth0"), "as it was configured");
}

#[tokio::test]
async fn before_there_is_a_cluster_status_says_what_to_do() {
    let mut bench = bench();
    bench.context.member = tokio::sync::watch::Sender::new(None).subscribe();
    let s = status(&bench).await;
    assert!(s.cluster.is_none() && s.nodes.is_empty());
    assert!(s.warnings[0].contains("cluster init NAME"), "{:?}", s.warnings);
    assert_eq!(bench.done(Request::ClusterInit { name: "x".into() }).await, "cluster 'x' is founded");
    assert_eq!(bench.refused(Request::ClusterInit { name: "a b".into() }).await.kind, ErrorKind::Usage);
    let join =
        |address: &str| Request::ClusterJoin { address: address.parse().unwrap(), token: "t\n".into() };
    assert_eq!(bench.done(join("10.0.0.2:7411")).await, "joined through 10.0.0.2:7411");
    assert!(bench.refused(join("10.0.0.1:7411")).await.message.contains("this node itself"));
    assert!(bench.refused(Request::ClusterToken).await.message.contains("not part of a cluster"));
}

#[tokio::test]
async fn a_member_neither_founds_nor_joins_again() {
    let bench = bench();
    let e = bench.refused(Request::ClusterInit { name: "x".into() }).await;
    assert!(e.kind == ErrorKind::Refused && e.message.contains("cluster 'test' already"), "{}", e.message);
    assert_eq!(bench.ask(Request::ClusterToken).await.1, Answer::Token("secret".into()));
}

#[tokio::test]
async fn show_has_names_settings_lists_and_tunables_and_survives_the_socket() {
    let bench = bench();
    bench.done(create_on_all("10.0.0.9")).await;
    let add = Request::PingListAdd {
        subnet: "10.0.0.0/24".parse().unwrap(),
        addresses: vec!["10.0.0.254".parse().unwrap()],
        node: Some("all".into()),
    };
    bench.ask(add).await;
    let answer = bench.ask(Request::Show { tag: tag("ip-10.0.0.9") }).await.1;
    let text = serde_json::to_string(&answer).unwrap();
    assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer);
    let Answer::Shown(shown) = answer else { panic!("{answer:?}") };
    assert_eq!(shown.ping_lists.len(), 3);
    assert_eq!(shown.status.state, "starting");
    assert!(shown.tunables.contains(&("IP_PINGTRIES".into(), "3".into())));
    let e = bench.refused(Request::Show { tag: tag("ip-10.0.0.8") }).await;
    assert!(e.message.contains("is 'ip-10.0.0.9' meant?"), "{}", e.message);
}

#[tokio::test]
async fn interfaces_are_judged_for_an_address_with_and_without_length() {
    let bench = bench();
    for text in ["10.0.0.9/24", "10.0.0.9/32"] {
        let request = Request::Interfaces { address: Some(text.parse().unwrap()) };
        let Answer::Interfaces(choices) = bench.ask(request).await.1 else { panic!() };
        assert!(choices[0].name == "eth0" && choices[0].allowed && !choices[1].allowed, "{choices:?}");
    }
}

#[tokio::test]
async fn events_are_told_and_followed() {
    let bench = bench();
    bench.context.events.record(About::default(), "k", "one");
    let (told, last) = bench.ask(Request::Events { follow: false, filter: EventFilter::default() }).await;
    assert!(matches!(&told[..], [Answer::Event(e)] if e.message == "one"), "{told:?}");
    assert!(last.is_final());
    let (out, mut coming) = tokio::sync::mpsc::channel(8);
    let context = bench.context.clone();
    let follow = Request::Events { follow: true, filter: EventFilter::default() };
    let work = tokio::spawn(async move { context.handle(follow, &out).await });
    assert!(matches!(coming.recv().await, Some(Answer::Event(e)) if e.message == "one"));
    bench.context.events.record(About::default(), "k", "two");
    assert!(matches!(coming.recv().await, Some(Answer::Event(e)) if e.message == "two"));
    drop(coming);
    assert!(work.await.unwrap().is_ok());
}

#[tokio::test]
async fn events_are_chosen_by_kind_resource_and_number() {
    let bench = bench();
    let about = || About::tag(&tag("web"));
    for n in 1..=5 {
        bench.context.events.record(about(), "restore.announce", format!("{n}"));
        bench.context.events.record(About::default(), "restored", format!("other {n}"));
    }
    let asked = async |last, kind: Option<&str>, of: Option<&str>| {
        let filter = EventFilter { last, kind: kind.map(Into::into), tag: of.map(tag) };
        let (told, _) = bench.ask(Request::Events { follow: false, filter }).await;
        let message = |a: Answer| match a {
            Answer::Event(e) => e.message,
            other => panic!("{other:?}"),
        };
        told.into_iter().map(message).collect::<Vec<_>>()
    };
    assert_eq!(asked(Some(3), None, None).await, ["other 4", "5", "other 5"]);
    assert_eq!(asked(Some(2), Some("restore"), None).await, ["4", "5"]);
    assert_eq!(asked(None, Some("restore.announce"), Some("web")).await.len(), 5);
    assert_eq!(asked(None, Some("restored"), None).await.len(), 5);
    assert!(asked(None, None, Some("none")).await.is_empty());
    assert!(asked(Some(0), None, None).await.is_empty());
}

#[tokio::test]
async fn some_of_the_resources_are_listed_and_warnings_are_of_all() {
    let bench = bench();
    for host in 20..32 {
        bench.done(create(&format!("10.0.0.{host}"))).await;
        let name = format!("ip-10.0.0.{host}");
        bench.give(&name, 1);
        bench.report(&name, Outcome::Failed { reason: "no carrier".into() });
    }
    bench.done(create("10.0.0.40")).await;
    let selection = crate::api::Selection { state: Some("starting".into()), ..Default::default() };
    let Answer::Status(s) = bench.ask(Request::StatusOf(selection)).await.1 else { panic!() };
    assert_eq!(s.resources.len(), 1);
    assert_eq!(s.states, [("starting".to_owned(), 1)].into());
    let warnings = s.warnings.join("\n");
    assert_eq!(warnings.matches("failed on every node (a: no carrier)").count(), 10, "{warnings}");
    assert!(warnings.contains("2 more resources failed on every node"), "{warnings}");
    let joining = crate::api::Selection { join_above: Some(5), ..Default::default() };
    let Answer::Status(s) = bench.ask(Request::StatusOf(joining)).await.1 else { panic!() };
    assert_eq!(s.resources.len(), 2);
    assert_eq!(s.resources[0].run.as_ref().map(|r| r.count), Some(12));
}

#[tokio::test]
async fn show_says_which_tunables_are_set_and_what_is_wrong() {
    let bench = bench();
    bench.done(create("10.0.0.9")).await;
    let path = bench.dir.path().join("tunables");
    std::fs::write(
        &path,
        "export NOBCASTPING='1' # as told\nIP_PINGTIME=0.5\nIP_PINGTIME=never\nIP_PINGTRIES=3\n",
    )
    .unwrap();
    let Answer::Shown(shown) = bench.ask(Request::Show { tag: tag("ip-10.0.0.9") }).await.1 else { panic!() };
    assert_eq!(shown.tuned, ["NOBCASTPING", "IP_PINGTIME"]);
    assert_eq!(shown.tunables_file, path.display().to_string());
    assert!(shown.complaints.len() == 1 && shown.complaints[0].contains("tunables:3: IP_PINGTIME='never'"));
}
