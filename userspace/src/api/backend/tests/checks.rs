//! Changes are checked on every node that they concern before anything is changed (row CL-6).

use super::*;
use crate::{
    api::{
        Declare, DeclareAim, NodeOrder,
        backend::fake::{assigned, link},
    },
    model::{ClusterState, NodeSettings, Resource},
};

const IP: &str = "ip-10.0.0.9";
const MAC_OF_C: [u8; 6] = [2, 0, 0, 0, 0, 0x33];

fn extend(to: &str, device: &str, force: bool) -> Request {
    let devices = vec![device.to_owned()];
    Request::Extend { tag: tag(IP), to: to.into(), priority: None, devices, force }
}

fn delete(name: &str, force: bool) -> Request {
    Request::Delete { tag: tag(name), hierarchy: false, force, wait: false }
}

/// Without eth0.
fn bare() -> FakeHost {
    FakeHost {
        links: vec![link(1, "lo"), link(2, "eno1")],
        assigned: vec![assigned(2, "10.0.0.3/24")],
        ..FakeHost::default()
    }
}

impl Bench {
    fn asked_of(&self) -> Vec<NodeId> {
        self.peers.asked.lock().unwrap().iter().map(|(node, _)| *node).collect()
    }

    async fn left_alone(&self, request: Request, reasons: &[&str]) {
        let before: ClusterState = (*self.store.state()).clone();
        let e = self.refused(request).await;
        assert_eq!(e.kind, ErrorKind::Refused, "{e:?}");
        for reason in reasons {
            assert!(e.message.contains(reason), "'{reason}' is not in: {}", e.message);
        }
        assert_eq!(*self.store.state(), before);
    }
}

#[tokio::test]
async fn the_node_that_gets_it_looks_at_its_interfaces() {
    let bench = bench();
    bench.done(create("10.0.0.9")).await;
    bench.let_look(3, bare());
    let reasons = ["ip-10.0.0.9 on c: ", "no interface 'eth0'", "allowed: eno1", "nothing was changed"];
    bench.left_alone(extend("c", "eth0", false), &reasons).await;
    bench.left_alone(extend("c", "eth0", true), &["no interface 'eth0'"]).await;
    assert_eq!(bench.asked_of(), [3, 3], "b has nothing to do with it");
    bench.done(extend("c", "eno1", false)).await;
}

#[tokio::test]
async fn objections_of_all_nodes_are_told_at_once() {
    let bench = bench();
    let mut own = FakeHost::usual();
    own.assigned.push(assigned(2, "10.0.0.9/24"));
    bench.let_look(2, own);
    bench.let_look(3, bare());
    let reasons = ["2 objections", "ip-10.0.0.9 on b: 10.0.0.9 is an address of node 'b'", "on c: ", "eth0"];
    bench.left_alone(create_on_all("10.0.0.9"), &reasons).await;
    let file = "[[resource]]\ntag = \"ip-10.0.0.9\"\naddresses = [\"10.0.0.9/24\"]\n[resource.nodes]\n\
                b = { priority = 1, devices = [\"eth0\"] }\nc = { priority = 2, devices = [\"eth0\"] }\n";
    let apply = |aim| {
        Request::Declare(Declare {
            name: "c.toml".into(),
            text: file.into(),
            prune: false,
            force: false,
            aim,
        })
    };
    bench.left_alone(apply(DeclareAim::Plan), &reasons).await;
    bench.left_alone(apply(DeclareAim::Apply { revision: None, wait: false }), &reasons).await;
    let Answer::Planned(verified) = bench.ask(apply(DeclareAim::Verify)).await.1 else { panic!() };
    assert_eq!(verified.findings.len(), 2, "{verified:?}");
}

#[tokio::test]
async fn a_node_without_room_or_carrier_or_with_strangers_objects() {
    let bench = bench();
    bench.done(create_on_all("10.0.0.9")).await;
    let mut host = FakeHost::usual();
    host.links[1].carrier = false;
    bench.let_look(3, host);
    bench.left_alone(create_on_all("10.0.0.10"), &["ip-10.0.0.10 on c: ", "carrier"]).await;
    let mut host = FakeHost::usual();
    host.claimed.push("10.0.0.10".parse().unwrap());
    bench.let_look(3, host);
    let reason = "10.0.0.10 is in use on the network: 02:00:00:00:00:99 claims it on eth0 of c";
    bench.left_alone(create_on_all("10.0.0.10"), &[reason]).await;
    bench.let_look(3, FakeHost::usual());
    let many = CreateIp {
        each: true,
        addresses: vec![Given::Argument("10.128.0.0/15".into())],
        extend_to: vec!["all".into()],
        ..wanted("")
    };
    let room = "131,069 addresses, and the node has room for 81,920";
    let except = CreateIp { except: vec!["10.128.0.1".parse().unwrap()], ..many };
    bench.left_alone(Request::CreateIp(except), &["on a: ", "on c: ", room]).await;
}

#[tokio::test]
async fn a_dependency_needs_all_nodes_to_be_able_to_have_both() {
    let bench = bench();
    bench.done(create_on_all("10.0.0.9")).await;
    bench.done(create_on_all("10.0.0.10")).await;
    bench.let_look(3, bare());
    let (parent, child) = (tag("ip-10.0.0.10"), tag(IP));
    let depend = || Request::Depend { parent: parent.clone(), child: child.clone(), force: false };
    let reasons = ["2 objections", "ip-10.0.0.10 on c: ", "ip-10.0.0.9 on c: "];
    bench.left_alone(depend(), &reasons).await;
    let in_use = bench.let_look(3, FakeHost::usual());
    bench.done(depend()).await;
    // The parent is being stopped on c, on top of its child.
    in_use.set(&parent, Some("eth0"));
    let undepend = |force| Request::Undepend { parent: parent.clone(), child: child.clone(), force };
    bench.left_alone(undepend(false), &["ip-10.0.0.10 on c: it is being started or stopped on eth0"]).await;
    let said = bench.done(undepend(true)).await;
    assert!(said.contains("in spite of this: ip-10.0.0.10 on c"), "{said}");
}

#[tokio::test]
async fn who_is_down_holds_up_what_it_would_get_and_not_what_it_loses() {
    let bench = bench();
    bench.done(create("10.0.0.9")).await;
    bench.lose(3);
    let reasons = ["node 'c' is down", "ip-10.0.0.9", "--force"];
    bench.left_alone(extend("c", "eth0", false), &reasons).await;
    bench.left_alone(create_on_all("10.0.0.10"), &["node 'c' is down"]).await;
    let said = bench.done(extend("c", "eth0", true)).await;
    assert!(said.contains("node c is down") && said.contains("not checked there"), "{said}");
    let unextend = Request::Unextend { tag: tag(IP), from: "c".into(), force: false };
    let said = bench.done(unextend).await;
    assert!(said.contains("node c is down (not heard by this node): not checked there"), "{said}");
    bench.done(extend("c", "eth0", true)).await;
    let said = bench.done(delete(IP, false)).await;
    assert!(said.contains("node c is down"), "{said}");
    assert!(!bench.asked_of().contains(&3), "a node that is down was asked");
}

/// It may have joined a moment ago.
#[tokio::test]
async fn who_was_never_heard_is_asked() {
    let bench = bench();
    bench.done(create("10.0.0.9")).await;
    bench.never_heard(3);
    bench.peers.silent.lock().unwrap().insert(3);
    bench.left_alone(extend("c", "eth0", false), &["node 'c' is down"]).await;
    bench.peers.silent.lock().unwrap().remove(&3);
    bench.done(extend("c", "eth0", false)).await;
    assert!(bench.asked_of().contains(&3));
}

#[tokio::test]
async fn who_is_heard_and_does_not_answer_holds_up_everything_unless_forced() {
    let bench = bench();
    bench.done(create_on_all("10.0.0.9")).await;
    bench.peers.silent.lock().unwrap().insert(2);
    let reasons = ["node 'b' was asked to check ip-10.0.0.9", "nobody listens", "'rpc'", "--force"];
    bench.left_alone(delete(IP, false), &reasons).await;
    bench.left_alone(Request::Unextend { tag: tag(IP), from: "b".into(), force: false }, &reasons).await;
    let said = bench.done(delete(IP, true)).await;
    assert!(said.contains("node b did not answer"), "{said}");
}

#[tokio::test]
async fn what_is_left_on_a_node_is_not_forgotten() {
    let bench = bench();
    bench.done(create_on_all("10.0.0.9")).await;
    bench.give(IP, 1);
    bench.context.in_use.set(&tag(IP), Some("eth0"));
    let on_c = bench.let_look(3, FakeHost::usual());
    on_c.set(&tag(IP), Some("eth0"));
    let reasons = ["ip-10.0.0.9 on c: something of it is still on eth0", "--force"];
    bench.left_alone(delete(IP, false), &reasons).await;
    bench.left_alone(Request::Unextend { tag: tag(IP), from: "c".into(), force: false }, &reasons).await;
    on_c.set(&tag(IP), None);
    bench.done(delete(IP, false)).await;
    assert!(bench.store.state().placements[&tag(IP)].deleting);
}

#[tokio::test]
async fn members_that_look_for_an_address_too_are_no_conflict() {
    let mut host = FakeHost::usual();
    let ips = ["10.0.0.9", "10.0.0.10"].map(|ip| ip.parse().unwrap());
    host.probed = vec![(ips[0], MAC_OF_C), (ips[1], [2, 0, 0, 0, 0, 0x99])];
    let bench = Bench::new(host);
    let mut of_c = FakeHost::usual();
    of_c.links[1].mac = MAC_OF_C;
    bench.let_look(3, of_c);
    bench.done(create("10.0.0.9")).await;
    assert!(bench.asked_of().contains(&3), "whose address that is was not found out");
    bench.left_alone(create("10.0.0.10"), &["02:00:00:00:00:99 claims it on eth0"]).await;
}

#[tokio::test]
async fn without_a_quorum_nobody_is_asked() {
    let bench = bench();
    bench.done(create("10.0.0.9")).await;
    *bench.store.no_quorum.lock().unwrap() = true;
    assert_eq!(bench.refused(extend("c", "eth0", true)).await.kind, ErrorKind::NoQuorum);
    assert!(bench.asked_of().is_empty());
}

#[tokio::test]
async fn a_node_that_is_asked_is_not_the_first_one_only() {
    let bench = bench();
    let nodes = [(2, NodeSettings::new(1, vec!["eth0".into()]))];
    let other = Resource::new(tag("other"), "10.0.0.8/24".parse::<ipnet::IpNet>().unwrap(), nodes);
    bench.store.change(&Change::Create { resource: other, on: 2 });
    let to_a = |device: &str| Request::Extend {
        tag: tag("other"),
        to: "a".into(),
        priority: None,
        devices: vec![device.into()],
        force: false,
    };
    bench.left_alone(to_a("nosuch"), &["other on a: ", "no interface 'nosuch'"]).await;
    bench.left_alone(to_a("eth1"), &["10.0.0.8 cannot be on eth1", "allowed: eth0"]).await;
    assert!(bench.done(to_a("eth0")).await.contains("extended to a"));
}

#[tokio::test]
async fn nothing_in_maintenance_is_deleted_while_somebody_has_it() {
    let bench = bench();
    bench.done(create_on_all("10.0.0.9")).await;
    bench.done(create_on_all("10.0.0.10")).await;
    let set = |name: &str| Request::Set {
        tag: tag(name),
        node: None,
        settings: vec![("maintenance".into(), "on".into())],
    };
    bench.done(set(IP)).await;
    bench.give(IP, 1);
    bench.left_alone(delete(IP, true), &["in maintenance", "maintenance=off"]).await;
    let said = bench.done(Request::Clear { tag: tag(IP) }).await;
    assert!(said.contains("nothing moves yet") && said.contains("maintenance=off"), "{said}");
    bench.done(set("ip-10.0.0.10")).await;
    bench.done(delete("ip-10.0.0.10", false)).await;
    let order = NodeOrder::Maintenance(true);
    bench.done(create_on_all("10.0.0.11")).await;
    bench.give("ip-10.0.0.11", 1);
    bench.done(Request::NodeOrder { node: "a".into(), order, wait: false }).await;
    bench.left_alone(delete("ip-10.0.0.11", false), &["'vipctl node maintenance a off'"]).await;
}
