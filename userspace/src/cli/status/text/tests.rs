use super::*;
use crate::api::{
    ChoiceStatus, ClusterStatus, DatapathStatus, HierarchyStatus, InterfaceStatus, LeaseStatus, MemberStatus,
    PathStatus, ResourceNodeStatus, Run, StoreMemberStatus, SubnetStatus,
};

fn resource(n: u8) -> ResourceStatus {
    ResourceStatus {
        tag: format!("ip-10.0.0.{n}").parse().unwrap(),
        kind: "ip".into(),
        address: format!("10.0.0.{n}/24").parse().unwrap(),
        addresses: 1,
        span: format!("10.0.0.{n}/24"),
        accept: Accept::Assign,
        accept_reason: String::new(),
        state: "ISP".into(),
        owner: Some("a".into()),
        epoch: 1,
        device: Some("eth0".into()),
        nodes: vec![ResourceNodeStatus {
            node: "a".into(),
            priority: 1,
            state: "ISP".into(),
            reason: None,
            failures: 0,
        }],
        choice: None,
        packets: Some(2),
        cloud: None,
        run: None,
    }
}

fn example(vips: u8) -> Status {
    Status {
        node: "a".into(),
        version: "0.1.0".into(),
        profile: "default".into(),
        cluster: Some(ClusterStatus {
            name: "demo".into(),
            leader: Some("b".into()),
            term: 2,
            applied: 37,
            quorum: true,
            voters: 3,
            two_nodes: "off".into(),
            cautions: vec![],
            store: StoreStatus::default(),
            key_generation: 1,
            key_unconfirmed: vec![],
        }),
        lease: LeaseStatus { valid: true, remaining_ms: 1750, duration_ms: 2000, epoch: 1 },
        datapath: DatapathStatus {
            guard: "kernel".into(),
            reason: None,
            verdicts: vec![("answered-arp".into(), 12)],
        },
        nodes: vec![NodeStatus {
            id: 2,
            name: "b".into(),
            witness: false,
            standing: Standing::Member,
            rpc: "10.0.0.2:7411".parse().unwrap(),
            alive: false,
            lease_valid: false,
            paths: vec![PathStatus {
                address: "10.0.0.2:7412".parse().unwrap(),
                up: false,
                last_heard_ms: Some(2500),
                kernel: Some("silent".into()),
                rtt_us: Some(31),
                rtt_min_us: Some(9),
            }],
            resources_in_service: 3,
            standby: false,
            maintenance: false,
            gave_up: None,
            holds_alone: false,
            declared_dead: false,
            declared_by: None,
        }],
        resources: (1..=vips).map(resource).collect(),
        states: [("ISP".to_owned(), vips.into())].into(),
        hierarchies: vec![],
        interfaces: vec![InterfaceStatus {
            name: "eth0".into(),
            up: true,
            carrier: true,
            xdp: "generic (it is a veth)".into(),
            addresses: vec!["10.0.0.250/24".parse().unwrap(), "10.0.0.1/24".parse().unwrap()],
            stationary: vec!["10.0.0.250/24".parse().unwrap()],
            health: LinkHealth::Up,
            health_reason: None,
            health_ms: Some(5000),
            recovering: false,
            frames: 9,
            bytes: 99,
            arp: 3,
            nd: 0,
            echo_requests: 1,
            echo_replies: 0,
            last_receive_ms: Some(30),
        }],
        subnets: vec![],
        conflicts: vec![],
        warnings: vec!["node b is silent".into()],
    }
}

#[test]
fn the_whole_picture() {
    let text = status(&example(2));
    let expected = "\
node     a, vipd 0.1.0, profile default
cluster  demo, quorum, leader b, 3 voters, term 2, 37 changes
lease    valid, 1.7 s of 2.0 s left, epoch 1
guard    kernel
frames   answered-arp 12

warning: node b is silent

NODE  STATE           LEASE    IN SERVICE  PATHS      RPC
b     member, SILENT  unknown           3  0 of 1 up  10.0.0.2:7411

2 resources: 2 ISP
RESOURCE     ADDRESS      STATE  OWNER  DEVICE  PACKETS  NODES
ip-10.0.0.1  10.0.0.1/24  ISP    a      eth0          2  a:1
ip-10.0.0.2  10.0.0.2/24  ISP    a      eth0          2  a:1

INTERFACE  LINK  XDP      FRAMES  ARP  ND  ECHO REQUESTS  HEARD      ADDRESSES
eth0       up    generic       9    3   0              1  30 ms ago  10.0.0.250/24 + 1 virtual
eth0: generic XDP, because it is a veth
";
    assert_eq!(text, expected);
}

#[test]
fn runs_sets_and_what_is_left_out_are_told() {
    let mut s = example(3);
    let run = Run {
        count: 9990,
        last_tag: "ip-10.0.39.7".parse().unwrap(),
        last_address: "10.0.39.7/24".parse().unwrap(),
    };
    s.resources[0].run = Some(run);
    s.resources[1].addresses = 65_534;
    s.resources[1].span = "10.9.0.1-10.9.255.254/16".into();
    s.resources[1].accept = Accept::Anyip;
    s.resources[1].accept_reason = "by default: so many".into();
    s.resources[2].accept = Accept::Route;
    s.states = [("ISP".to_owned(), 9998), ("OSF".to_owned(), 4)].into();
    let text = resources(&s, false);
    for fact in [
        "10,002 resources: 9,998 ISP, 4 OSF",
        "ip-10.0.0.1 .. ip-10.0.39.7 (9,990)  10.0.0.1 .. 10.0.39.7/24 ",
        "65,534 addresses 10.9.0.1-10.9.255.254/16 (anyip)  ISP",
        "10.0.0.3/24 (route) ",
        "10 of them are not shown: --limit N",
        "\nanyip: by default: so many\n",
    ] {
        assert!(text.contains(fact), "'{fact}' is missing in\n{text}");
    }
    assert!(status(&s).contains(&text));
    s.states.clear();
    assert!(resources(&s, true).contains("no resource is like that"));
    assert!(resources(&s, false).contains("no resource yet"));
}

#[test]
fn bad_interfaces_and_subnets_stand_out() {
    let mut s = example(1);
    s.subnets = vec![SubnetStatus {
        subnet: "10.1.0.0/24".parse().unwrap(),
        node: "b".into(),
        state: "down".into(),
        reason: Some("eth1: no peer answers".into()),
        targets: vec![],
    }];
    let shown = |health, recovering| {
        let interfaces = vec![InterfaceStatus { health, recovering, ..s.interfaces[0].clone() }];
        status(&Status { interfaces, ..s.clone() })
    };
    for (health, recovering, word) in [
        (LinkHealth::Up, true, "eth0       recovering  generic"),
        (LinkHealth::Deaf, false, "eth0       DEAF  generic"),
        (LinkHealth::Missing, false, "eth0       MISSING  generic"),
    ] {
        let text = shown(health, recovering);
        assert!(text.contains(word), "{word:?} is missing in\n{text}");
    }
    let text = shown(LinkHealth::Up, false);
    assert!(text.contains("10.1.0.0/24  b     DOWN   peers    eth1: no peer answers"), "{text}");
}

#[test]
fn the_cluster_alone_shows_its_paths() {
    let text = cluster_text(&example(1));
    assert!(text.contains("b     10.0.0.2:7412  DOWN   2.5 s ago   SILENT  31 us (min 9)"), "{text}");
    assert!(text.contains("key      generation 1\n"), "{text}");
    let mut s = example(1);
    s.cluster.as_mut().unwrap().key_unconfirmed = vec!["b".into()];
    assert!(cluster_text(&s).contains("key      generation 1, not confirmed by b\n"));
}

#[test]
fn a_node_without_a_cluster_says_so() {
    let mut s = example(0);
    s.cluster = None;
    s.nodes.clear();
    assert!(status(&s).contains("cluster  none"));
}

#[test]
fn etcd_is_shown_with_its_members() {
    let mut s = example(1);
    let member = |endpoint: &str, healthy| StoreMemberStatus {
        endpoint: endpoint.into(),
        state: if healthy { "leader" } else { "unreachable" }.into(),
        healthy,
        version: "3.4.23".into(),
        bytes: 20480,
        trouble: if healthy { "" } else { "no answer within 800ms" }.into(),
    };
    let store = StoreStatus {
        kind: "etcd".into(),
        place: Some("/vipd/demo/".into()),
        members: vec![member("http://10.0.0.1:2379", true), member("http://10.0.0.2:2379", false)],
        unreachable_ms: None,
        reason: None,
    };
    s.cluster.as_mut().unwrap().store = store;
    let text = cluster_text(&s);
    assert!(text.contains("etcd, 1 of 2 members well, keys /vipd/demo/"), "{text}");
    assert!(text.contains("http://10.0.0.2:2379  unreachable"), "{text}");
    assert!(!status(&s).contains("http://"), "only where the cluster is asked for");
    s.cluster.as_mut().unwrap().store.unreachable_ms = Some(2500);
    assert!(status(&s).contains("etcd, UNREACHABLE since 2.5 s"), "{}", status(&s));
}

#[test]
fn hierarchies_are_trees_and_failures_and_duties_are_told() {
    let member = |tag: &str, depth, state: &str, owner: Option<&str>| MemberStatus {
        tag: tag.parse().unwrap(),
        depth,
        state: state.into(),
        owner: owner.map(Into::into),
    };
    let mut s = example(1);
    assert!(!status(&s).contains("HIERARCHY"));
    let members = vec![member("web", 0, "OSU", None), member("ip-1", 1, "ISP", Some("a"))];
    s.hierarchies = vec![HierarchyStatus { root: "web".parse().unwrap(), members }];
    s.resources[0].nodes[0].failures = 2;
    s.nodes[0].standby = true;
    let text = status(&s);
    for fact in [
        "HIERARCHY  STATE  OWNER\nweb        OSU    -\n  ip-1     ISP    a\n",
        "a:1 (2 failures)",
        "member, SILENT, standby",
    ] {
        assert!(text.contains(fact), "{fact:?} is missing in\n{text}");
    }
}

#[test]
fn an_operators_choice_of_a_node_is_shown() {
    let chosen = |node: &str, owner: Option<&str>| {
        let choice = Some(ChoiceStatus { node: node.into(), ends: None });
        super::owner(&ResourceStatus { choice, owner: owner.map(Into::into), ..resource(1) })
    };
    assert_eq!(chosen("a", Some("a")), "a (chosen)");
    assert_eq!(chosen("b", Some("a")), "a (chosen: b)");
    assert_eq!(chosen("b", None), "(chosen: b)");
    assert_eq!(super::owner(&resource(1)), "a");
}
