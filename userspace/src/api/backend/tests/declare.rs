//! `export`, `apply` and `verify`.

use proptest::prelude::*;

use super::*;
use crate::{
    api::{Declare, DeclareAim, Planned},
    config::{parse_declared, write_declared},
    core::declare::{
        export, plan,
        tests::{busy, empty},
    },
    model::{ClusterState, Declared},
};

const TWO: &str = "\
[[resource]]
tag = \"db\"
addresses = [\"10.0.0.10/24\"]
[resource.nodes]
a = { priority = 1, devices = [\"eth0\"] }
b = { priority = 10, devices = [\"eth0\"] }

[[resource]]
tag = \"web\"
addresses = [\"10.0.0.20-10.0.0.21/24\", \"www\"]
depends = [\"db\"]
[resource.nodes]
a = { priority = 1, devices = [\"eth0\"] }
b = { priority = 10, devices = [\"eth0\"] }
";

fn asked(text: &str, prune: bool, aim: DeclareAim) -> Request {
    Request::Declare(Declare { name: "c.toml".into(), text: text.into(), prune, force: false, aim })
}

fn apply_request(text: &str, prune: bool) -> Request {
    asked(text, prune, DeclareAim::Apply { revision: None, wait: false })
}

fn bench() -> Bench {
    Bench::new(FakeHost { names: vec![("www", vec!["10.0.0.30"])], ..FakeHost::usual() })
}

impl Bench {
    async fn planned(&self, text: &str, prune: bool, aim: DeclareAim) -> Planned {
        match self.ask(asked(text, prune, aim)).await.1 {
            Answer::Planned(planned) => *planned,
            other => panic!("{other:?}"),
        }
    }

    async fn exported(&self) -> String {
        match self.ask(Request::Export).await.1 {
            Answer::Exported(text) => text,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_file_is_planned_applied_and_verified() {
    let bench = bench();
    let planned = bench.planned(TWO, false, DeclareAim::Plan).await;
    assert_eq!(
        (planned.differences.len(), &planned.starts[..]),
        (2, &["db".to_owned(), "web".to_owned()][..])
    );
    assert!(planned.notes.is_empty(), "{planned:?}");
    assert!(bench.store.state().resources.is_empty(), "a plan changes nothing");

    assert_eq!(bench.done(apply_request(TWO, false)).await, "2 differences are applied");
    let state = bench.store.state();
    assert_eq!(state.resources[&tag("web")].addresses().count(), 3, "with the name that was looked up");
    assert!(state.resources[&tag("web")].children.contains(&tag("db")));
    assert!(matches!(&bench.store.proposed.lock().unwrap()[..], [Change::Batch { revision: Some(0), .. }]));
    assert!(bench.done(apply_request(TWO, false)).await.contains("already"));
    let verified = bench.planned(TWO, false, DeclareAim::Verify).await;
    assert!(verified.differences.is_empty() && verified.findings.is_empty(), "{verified:?}");

    let text = bench.exported().await;
    assert!(text.contains("cluster 'test'") && text.contains("10.0.0.30"), "{text}");
    let before = bench.store.state().revision;
    assert!(bench.done(apply_request(&text, true)).await.contains("already"));
    assert_eq!(bench.store.state().revision, before);
}

#[tokio::test]
async fn what_is_not_named_stays_unless_pruned() {
    let bench = bench();
    bench.done(create("10.0.0.9/24")).await;
    bench.give("ip-10.0.0.9", 1);
    let planned = bench.planned(TWO, false, DeclareAim::Plan).await;
    assert_eq!(planned.unmanaged, ["resource ip-10.0.0.9"]);
    bench.done(apply_request(TWO, false)).await;
    assert!(bench.store.state().resources.contains_key(&tag("ip-10.0.0.9")));
    assert_eq!(bench.planned(TWO, false, DeclareAim::Verify).await.differences.len(), 1);
    let planned = bench.planned(TWO, true, DeclareAim::Plan).await;
    assert_eq!(planned.stops, ["ip-10.0.0.9 (on a)"]);
    bench.done(apply_request(TWO, true)).await;
    assert!(bench.store.state().placements[&tag("ip-10.0.0.9")].deleting);
}

#[tokio::test]
async fn wrong_files_are_refused_with_every_mistake_and_change_nothing() {
    let bench = bench();
    let text = TWO.replace("a = {", "z = {").replace("\"www\"", "\"nobody\"");
    let e = bench.refused(apply_request(&text, false)).await;
    assert_eq!(e.kind, ErrorKind::Usage);
    for part in [
        "3 mistakes",
        "c.toml:5: resource.db.nodes.z: there is no node 'z'",
        "c.toml:10: resource.web.addresses:",
        "'nobody'",
        "c.toml:13:",
    ] {
        assert!(e.message.contains(part), "{part}: {}", e.message);
    }
    let e = bench.refused(apply_request(&TWO.replace("10.0.0.10/24", "10.0.0.255/24"), false)).await;
    assert!(
        e.kind == ErrorKind::Usage && e.message.contains("c.toml:1: resource.db.addresses: 10.0.0.255"),
        "{e:?}"
    );
    // What only the whole shows.
    let e = bench.refused(apply_request(&TWO.replace("\"db\"]", "\"gone\"]"), false)).await;
    assert!(
        e.kind == ErrorKind::Refused && e.message.contains("c.toml:8: resource.web: it depends on 'gone'"),
        "{e:?}"
    );
    let e = bench.refused(apply_request(&TWO.replace("10.0.0.20-", "10.0.0.10-"), false)).await;
    assert!(e.kind == ErrorKind::Refused && e.message.contains("belongs to the resource"), "{e:?}");
    // What this host shows.
    let e = bench.refused(apply_request(&TWO.replace("eth0", "eth7"), false)).await;
    assert!(
        e.kind == ErrorKind::Refused && e.message.contains("db on a: ") && e.message.contains("eth7"),
        "{e:?}"
    );
    assert!(bench.store.state().resources.is_empty() && bench.store.state().revision == 0);
    *bench.store.no_quorum.lock().unwrap() = true;
    assert_eq!(bench.refused(apply_request(TWO, false)).await.kind, ErrorKind::NoQuorum);
}

#[tokio::test]
async fn addresses_in_use_are_refused_only_where_they_are_new() {
    let mut host = FakeHost { names: vec![("www", vec!["10.0.0.30"])], ..FakeHost::usual() };
    host.claimed = vec!["10.0.0.10".parse().unwrap(), "10.0.0.21".parse().unwrap()];
    let mut bench = Bench::new(host.clone());
    let e = bench.refused(apply_request(TWO, false)).await;
    assert!(e.kind == ErrorKind::Refused && e.message.contains("2 addresses are in use"), "{e:?}");
    host.claimed.clear();
    bench.context.host = std::sync::Arc::new(host.clone());
    bench.done(apply_request(TWO, false)).await;
    host.claimed = vec!["10.0.0.10".parse().unwrap()];
    bench.context.host = std::sync::Arc::new(host);
    bench.done(apply_request(&TWO.replace("priority = 10", "priority = 20"), false)).await;
}

#[tokio::test]
async fn a_plan_that_was_overtaken_is_refused() {
    let bench = bench();
    let planned = bench.planned(TWO, false, DeclareAim::Plan).await;
    bench.done(create("10.0.0.9/24")).await;
    let aim = DeclareAim::Apply { revision: Some(planned.revision), wait: false };
    let e = bench.refused(asked(TWO, false, aim)).await;
    assert!(e.kind == ErrorKind::Refused && e.message.contains("changed by somebody else"), "{e:?}");
    assert!(!bench.store.state().resources.contains_key(&tag("db")));
}

#[tokio::test]
async fn it_waits_until_everything_is_in_service_or_failed() {
    let bench = bench();
    let aim = DeclareAim::Apply { revision: None, wait: true };
    let work = async {
        let mut views = bench.context.member().unwrap().store.view();
        views.wait_for(|v| !v.state.resources.is_empty()).await.unwrap();
        for name in ["db", "web"] {
            bench.give(name, 1);
            bench.report(name, Outcome::Started);
        }
    };
    let ((_, answer), ()) = tokio::join!(bench.ask(asked(TWO, false, aim)), work);
    assert_eq!(answer, Answer::done("2 differences are applied; 2 of 2 in service"));
    bench.report("web", Outcome::Failed { reason: "broken".into() });
    bench.report("db", Outcome::Failed { reason: "broken".into() });
    bench.give("db", 2);
    bench.report("db", Outcome::Started);
    bench.give("web", 2);
    bench.report("web", Outcome::Failed { reason: "broken too".into() });
    let e = bench.refused(asked(TWO, false, aim)).await;
    assert!(e.kind == ErrorKind::Failed && e.message.contains("1 of 2 are in service"), "{e:?}");
    assert!(e.message.contains("broken too"), "{e:?}");
}

fn reread(state: &ClusterState, declared: &Declared) -> Declared {
    let text = write_declared(declared, &|id| state.node_name(id));
    let nodes = state.nodes.values().map(|n| (n.name.clone(), n.id)).collect();
    let file = parse_declared("x", &text, &nodes);
    assert!(file.faults.is_empty() && file.pending.is_empty(), "{:?} in\n{text}", file.faults);
    file.declared
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Through the text and back: the same cluster, and nothing to do.
    #[test]
    fn any_export_reads_back(state in busy()) {
        let exported = export(&state);
        let read = reread(&state, &exported);
        prop_assert_eq!(&read, &exported);
        let plan = plan(&state, &read, true);
        prop_assert!(plan.differences.is_empty() && plan.problems.is_empty(), "{plan:#?}");
        let again = crate::core::declare::plan(&empty(), &read, true);
        prop_assert!(again.problems.is_empty(), "{:#?}", again.problems);
    }
}
