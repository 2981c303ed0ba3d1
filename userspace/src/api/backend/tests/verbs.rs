//! Hierarchies, duties of nodes, policies and constraints: orders, refusals, and what the status says of them.

use super::*;
use crate::{
    api::{MemberStatus, NewConstraint, NodeOrder, Status},
    model::{Desired, Phase, Score},
};

const WEB: &str = "web";
const IP: &str = "ip-10.0.0.9";

fn depend() -> Request {
    Request::Depend { parent: tag(WEB), child: tag(IP), force: false }
}

fn create_as(address: &str, name: &str) -> Request {
    Request::CreateIp(CreateIp { tag: Some(tag(name)), extend_to: vec!["all".into()], ..wanted(address) })
}

/// `web` depends on `ip-10.0.0.9`, on three nodes.
async fn hierarchy() -> Bench {
    let bench = bench();
    bench.done(create_on_all("10.0.0.9")).await;
    bench.done(create_as("10.0.0.10", WEB)).await;
    let said = bench.done(depend()).await;
    assert!(said.contains("web depends on ip-10.0.0.9") && said.contains("ip-10.0.0.9, web"), "{said}");
    bench
}

fn in_service(name: &str, on: Option<&str>) -> Request {
    Request::InService { tag: tag(name), on: on.map(Into::into), hold: None, wait: false }
}

fn set(name: &str, key: &str, value: &str) -> Request {
    Request::Set { tag: tag(name), node: None, settings: vec![(key.into(), value.into())] }
}

fn node(name: &str, order: NodeOrder) -> Request {
    Request::NodeOrder { node: name.into(), order, wait: false }
}

impl Bench {
    /// Refused by a check for this reason, and nothing has changed.
    async fn unchanged(&self, request: Request, reason: &str) {
        let before = self.store.state();
        let e = self.refused(request.clone()).await;
        assert_eq!(e.kind, ErrorKind::Refused, "{request:?}: {e:?}");
        assert!(e.message.contains(reason), "{request:?}: '{reason}' expected: {}", e.message);
        assert_eq!(self.store.state(), before, "{request:?}");
    }

    async fn status(&self) -> Status {
        match self.ask(Request::Status).await.1 {
            Answer::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    async fn warned(&self, of: &str) {
        let warnings = self.status().await.warnings;
        assert!(warnings.iter().any(|w| w.contains(of)), "'{of}' is not in {warnings:#?}");
    }
}

#[tokio::test]
async fn dependencies_are_refused_as_a_whole() {
    let bench = hierarchy().await;
    bench.unchanged(depend(), "already").await;
    bench
        .unchanged(Request::Depend { parent: tag(IP), child: tag(WEB), force: false }, "neither could start")
        .await;
    bench
        .unchanged(Request::Depend { parent: tag(WEB), child: tag("wep"), force: false }, "is 'web' meant?")
        .await;
    bench
        .unchanged(
            Request::Undepend { parent: tag(IP), child: tag(WEB), force: false },
            "does not depend directly",
        )
        .await;
    bench.done(create("10.0.0.11")).await;
    let elsewhere = Request::Depend { parent: tag(WEB), child: tag("ip-10.0.0.11"), force: false };
    bench.unchanged(elsewhere, "'vipctl extend ip-10.0.0.11 --to").await;
    let said = bench.done(Request::Undepend { parent: tag(WEB), child: tag(IP), force: false }).await;
    assert!(said.contains("both stay where they are"), "{said}");
    assert!(bench.store.state().resources[&tag(WEB)].stands_alone());
}

#[tokio::test]
async fn a_hierarchy_is_extended_and_unextended_as_one() {
    let bench = hierarchy().await;
    bench.give(IP, 1);
    let unextend = |from: &str| Request::Unextend { tag: tag(WEB), from: from.into(), force: false };
    bench.unchanged(unextend("a"), "in service on node 'a'").await;
    bench.unchanged(unextend("w"), "not extended").await;
    bench.unchanged(unextend("x"), "no node 'x'").await;
    let said = bench.done(unextend("c")).await;
    assert!(said.contains("so are not ip-10.0.0.9 of its hierarchy"), "{said}");
    let extended = |bench: &Bench| {
        let state = bench.store.state();
        [WEB, IP].map(|name| state.resources[&tag(name)].nodes.contains_key(&3))
    };
    assert_eq!(extended(&bench), [false, false]);
    let extend =
        Request::Extend { tag: tag(IP), to: "c".into(), priority: None, devices: vec![], force: false };
    let said = bench.done(extend).await;
    assert!(said.contains("so are web of its hierarchy"), "{said}");
    assert_eq!(extended(&bench), [true, true]);
}

#[tokio::test]
async fn what_others_depend_on_is_deleted_only_with_them() {
    let bench = hierarchy().await;
    let delete = |hierarchy| Request::Delete { tag: tag(IP), hierarchy, force: false, wait: false };
    bench.unchanged(delete(false), "'vipctl undepend web ip-10.0.0.9'").await;
    let said = bench.done(delete(true)).await;
    assert!(said.contains("with web of its hierarchy"), "{said}");
    assert!(bench.store.state().resources.is_empty());
}

#[tokio::test]
async fn orders_go_to_children_and_parents() {
    let bench = hierarchy().await;
    let said = bench.done(Request::OutOfService { tag: tag(IP), wait: false }).await;
    assert!(said.contains("so are web, which depend on it"), "{said}");
    let desired = |name: &str| bench.store.state().placements[&tag(name)].desired;
    assert_eq!([desired(WEB), desired(IP)], [Desired::OutOfService; 2]);
    bench.done(in_service(WEB, Some("b"))).await;
    assert_eq!([desired(WEB), desired(IP)], [Desired::InService { on: Some(2) }; 2]);
    let status = bench.status().await;
    let choice = status.resources.iter().find(|r| r.tag == tag(IP)).and_then(|r| r.choice.clone()).unwrap();
    assert_eq!((choice.node.as_str(), choice.ends), ("b", None));
    let said = bench.done(Request::Clear { tag: tag(IP) }).await;
    assert!(said.contains("was sent to b"), "{said}");
    assert_eq!([desired(WEB), desired(IP)], [Desired::InService { on: None }; 2]);
    let said = bench.done(Request::Clear { tag: tag(IP) }).await;
    assert!(said.contains("nothing has changed"), "{said}");
}

#[tokio::test]
async fn a_choice_for_a_time_ends_at_a_wall_time() {
    let bench = hierarchy().await;
    let hold = Some(std::time::Duration::from_secs(90));
    let now = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        since.as_millis() as u64
    };
    let before = now();
    bench.done(Request::InService { tag: tag(IP), on: Some("b".into()), hold, wait: false }).await;
    let ends = bench.store.state().placements[&tag(WEB)].choice_ends.unwrap();
    assert!((before + 90_000..=now() + 90_000).contains(&ends), "{ends}");
    let aimless = Request::InService { tag: tag(IP), on: None, hold, wait: false };
    bench.unchanged(aimless, "--on").await;
}

#[tokio::test]
async fn in_maintenance_orders_are_refused_with_the_remedy() {
    let bench = hierarchy().await;
    bench.give(IP, 1);
    let out = |name: &str| Request::OutOfService { tag: tag(name), wait: false };
    // Set on a child, it holds for the hierarchy.
    bench.done(set(IP, "maintenance", "on")).await;
    for name in [WEB, IP] {
        bench.unchanged(in_service(name, None), &format!("'vipctl set {name} maintenance=off'")).await;
        bench.unchanged(out(name), "is in maintenance").await;
    }
    bench.warned("web is in maintenance").await;
    bench.done(set(WEB, "maintenance", "off")).await;

    // Only the child is on that node, and the parent could start nowhere else.
    bench.done(node("a", NodeOrder::Maintenance(true))).await;
    bench.unchanged(in_service(WEB, None), "'vipctl node maintenance a off'").await;
    bench.unchanged(out(IP), "'vipctl node maintenance a off'").await;
    bench.warned("node a is in maintenance").await;
    bench.done(node("a", NodeOrder::Maintenance(false))).await;

    let all = |value: &str| Request::ClusterSet { settings: vec![("maintenance".into(), value.into())] };
    bench.done(all("on")).await;
    bench.unchanged(out(WEB), "'vipctl cluster set maintenance=off'").await;
    bench.warned("the cluster is in maintenance").await;
    bench.done(all("off")).await;
    bench.done(out(WEB)).await;
}

#[tokio::test]
async fn failures_are_shown_and_cleaned_up() {
    let bench = hierarchy().await;
    bench.give(IP, 1);
    bench.report(IP, Outcome::Failed { reason: "no carrier".into() });
    let failures = |s: &Status| {
        let ip = s.resources.iter().find(|r| r.tag == tag(IP)).unwrap();
        ip.nodes.iter().map(|n| n.failures).collect::<Vec<_>>()
    };
    assert_eq!(failures(&bench.status().await), [1, 0, 0]);
    let cleanup = |node: &str| Request::Cleanup { tag: tag(WEB), node: Some(node.into()) };
    bench.done(cleanup("b")).await;
    assert_eq!(failures(&bench.status().await), [1, 0, 0]);
    bench.unchanged(cleanup("w"), "witness").await;
    let said = bench.done(cleanup("a")).await;
    assert!(said.contains("of web on a are forgotten; so are those of ip-10.0.0.9"), "{said}");
    assert_eq!(failures(&bench.status().await), [0, 0, 0]);
    assert!(bench.store.state().placements[&tag(IP)].failed.is_empty());
}

#[tokio::test]
async fn duties_and_hierarchies_are_in_the_status() {
    let bench = hierarchy().await;
    bench.give(IP, 1);
    bench.report(IP, Outcome::Started);
    let row = |name: &str, depth, state: &str, owner: Option<&str>| MemberStatus {
        tag: tag(name),
        depth,
        state: state.into(),
        owner: owner.map(Into::into),
    };
    let status = bench.status().await;
    let [only] = &status.hierarchies[..] else { panic!("{:?}", status.hierarchies) };
    assert_eq!(only.root, tag(WEB));
    assert_eq!(only.members, [row(WEB, 0, "starting", None), row(IP, 1, "ISP", Some("a"))]);

    bench.unchanged(node("w", NodeOrder::Standby), "witness").await;
    for name in ["a", "b", "c"] {
        bench.done(node(name, NodeOrder::Standby)).await;
        bench.warned(&format!("'vipctl node online {name}' ends it")).await;
    }
    bench.unchanged(in_service(WEB, Some("b")), "'vipctl node online b'").await;
    bench.release(IP);
    bench.report(IP, Outcome::Released);
    bench.warned("web can be on no node (a: on standby; b: on standby; c: on standby)").await;
    bench.done(node("b", NodeOrder::Online)).await;
    let status = bench.status().await;
    assert!(!status.warnings.iter().any(|w| w.contains("on no node")), "{:?}", status.warnings);
    let never = NewConstraint::Location { tag: tag(WEB), node: "b".into(), score: Score::MINUS_INFINITY };
    bench.done(Request::ConstraintAdd { id: Some("never".into()), constraint: never }).await;
    bench
        .warned("web can be on no node (a: on standby; b: constraint 'never' forbids it; c: on standby)")
        .await;
    let duties: Vec<String> = status.nodes.iter().map(crate::api::NodeStatus::duty).collect();
    assert_eq!(duties, ["standby", "online", "standby", "witness"]);
}

#[tokio::test]
async fn constraints_have_names_and_say_what_they_mean() {
    let bench = hierarchy().await;
    bench.done(create_on_all("10.0.0.11")).await;
    let add = |id: Option<&str>, constraint| Request::ConstraintAdd { id: id.map(Into::into), constraint };
    let never = || NewConstraint::Location { tag: tag(WEB), node: "c".into(), score: Score::MINUS_INFINITY };
    let said = bench.done(add(None, never())).await;
    assert!(said.contains("location-web-c: web is never on c"), "{said}");
    bench.unchanged(add(None, never()), "location-web-c").await;
    let nobody = NewConstraint::Location { tag: tag(WEB), node: "w".into(), score: Score::ZERO };
    bench.unchanged(add(None, nobody), "witness").await;
    let with = |with: &str| NewConstraint::Colocation {
        tag: tag("ip-10.0.0.11"),
        with: tag(with),
        score: Score::INFINITY,
    };
    bench.unchanged(add(None, with("wep")), "is 'web' meant?").await;
    bench.done(add(Some("together"), with(WEB))).await;
    let Answer::Constraints(all) = bench.ask(Request::ConstraintList).await.1 else { panic!() };
    let said: Vec<(&str, &str)> = all.iter().map(|c| (c.id.as_str(), c.says.as_str())).collect();
    assert_eq!(
        said,
        [("location-web-c", "web is never on c"), ("together", "ip-10.0.0.11 is only where web is")]
    );
    bench.unchanged(Request::ConstraintRemove { id: "apart".into() }, "apart").await;
    bench.done(Request::ConstraintRemove { id: "together".into() }).await;
    assert_eq!(bench.store.state().constraints.len(), 1);
}

#[tokio::test]
async fn standby_tells_only_of_what_was_on_that_node() {
    let bench = bench();
    bench.done(create_on_all("10.0.0.9")).await;
    bench.done(create_as("10.0.0.10", WEB)).await;
    bench.give(IP, 2);
    bench.report(IP, Outcome::Started);
    let standby =
        |name: &str| Request::NodeOrder { node: name.into(), order: NodeOrder::Standby, wait: true };
    assert_eq!(
        bench.done(standby("c")).await,
        "c is on standby and holds nothing",
        "web is nobody's, as before"
    );
    let on_standby = async |node| {
        while !bench.store.state().nodes[&node].standby {
            tokio::task::yield_now().await;
        }
        bench.release(IP);
        bench.report(IP, Outcome::Released);
    };
    let moved = async {
        on_standby(2).await;
        tokio::task::yield_now().await;
        bench.give(IP, 1);
        tokio::task::yield_now().await;
        bench.report(IP, Outcome::Started);
    };
    let ((), said) = tokio::join!(moved, bench.done(standby("b")));
    assert_eq!(said, "b is on standby and holds nothing");
    assert_eq!(bench.store.state().placements[&tag(IP)].grant.unwrap().phase, Phase::InService, "it waited");
    let ((), said) = tokio::join!(on_standby(1), bench.done(standby("a")));
    assert!(said.contains("nobody else can have ip-10.0.0.9 now") && !said.contains(WEB), "{said}");
}

/// Of nodes `a` (this one) and `b`, of which `b` is silent.
fn two(bench: &Bench, quorum: bool) {
    for node in [3, 4] {
        bench.store.change(&Change::Remove { node, heir: None });
    }
    bench.store.set_voters(2);
    let peers = [(2, crate::api::facts::PeerFacts::default())].into();
    bench.facts.send_replace(crate::api::facts::Facts { quorum, peers });
}

#[tokio::test]
async fn the_last_of_two_goes_on_alone_only_when_it_must() {
    let force = |dead: &str| Request::ForceQuorum { dead: dead.into() };
    let bench = bench();
    let e = bench.refused(force("a")).await;
    assert!(e.kind == ErrorKind::Refused && e.message.contains("this node itself"), "{e:?}");
    let e = bench.refused(force("b")).await;
    assert!(e.message.contains("the voters are a, b, c, w"), "{e:?}");
    two(&bench, true);
    let e = bench.refused(force("b")).await;
    assert!(e.message.contains("nothing to force"), "{e:?}");
    bench.facts.send_modify(|f| f.peers.get_mut(&2).unwrap().alive = true);
    let e = bench.refused(force("b")).await;
    assert!(e.message.contains("'b' is alive"), "{e:?}");
    two(&bench, false);
    let told = bench.done(force("b")).await;
    assert!(told.starts_with("UNSAFE if it is alive: node 'b'"), "{told}");
    assert!(bench.store.state().nodes[&2].declared_dead);
    bench.store.set_voters(1);
    let Answer::Status(status) = bench.ask(Request::Status).await.1 else { panic!("no status") };
    let cautions = status.cluster.as_ref().unwrap().cautions.join("\n");
    assert!(cautions.starts_with("UNSAFE: an operator declared node b dead"), "{cautions}");
    assert!(status.warnings.contains(&cautions), "{:?}", status.warnings);
    assert!(status.nodes.iter().any(|n| n.duty().contains("DECLARED DEAD")));
}

#[tokio::test]
async fn two_voters_are_told_what_they_can_do() {
    let bench = bench();
    let set = |value: &str| Request::ClusterSet { settings: vec![("two-nodes".into(), value.into())] };
    let cautions = async || match bench.ask(Request::Status).await.1 {
        Answer::Status(s) => s.cluster.unwrap().cautions.join("\n"),
        other => panic!("{other:?}"),
    };
    assert_eq!(cautions().await, "", "four voters");
    assert_eq!(bench.refused(set("maybe")).await.kind, ErrorKind::Usage);
    two(&bench, true);
    assert!(cautions().await.starts_with("two voters are no failover"));
    two(&bench, false);
    assert!(cautions().await.starts_with("two voters, and b is lost: there is no failover"));
    bench.done(set("freeze")).await;
    assert!(cautions().await.starts_with("frozen without a lease: b is lost"));
    bench.lease_for(std::time::Duration::from_secs(3600));
    assert!(cautions().await.starts_with("frozen: b is lost, this node keeps what it has"));
    two(&bench, true);
    assert!(cautions().await.starts_with("two voters freeze"));
    let e = bench.refused(set("tie-breaker")).await;
    assert!(e.message.contains("'vipctl connectivity add HOST' first"), "{e:?}");
    let host: std::net::IpAddr = "10.200.0.1".parse().unwrap();
    let add = crate::api::ConnectivityChange { hosts: vec![host], interval: None, fall: None, rise: None };
    bench.done(Request::ConnectivityAdd(add)).await;
    assert!(bench.done(set("tie-breaker")).await.starts_with("UNSAFE"));
    let e = bench.refused(Request::ConnectivityRemove { hosts: vec![host] }).await;
    assert!(e.message.contains("'vipctl cluster set two-nodes=off'"), "{e:?}");
    assert!(cautions().await.starts_with("UNSAFE: two-nodes=tie-breaker"));
    bench.done(set("off")).await;
    bench.done(Request::ConnectivityRemove { hosts: vec![host] }).await;
}
