use super::*;
use crate::{
    api::{ClusterStatus, DatapathStatus, InterfaceStatus, LeaseStatus, PathStatus, SubnetStatus},
    cli::group::tests::resource,
};

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
            }],
            resources_in_service: 3,
        }],
        resources: (1..=vips).map(|n| resource(&format!("10.0.0.{n}/24"), "ISP", "a")).collect(),
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
        warnings: vec!["node b is silent".into()],
    }
}

#[test]
fn the_whole_picture() {
    let text = status(&example(2), false);
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
fn two_hundred_fit_on_a_screen_and_all_are_there_when_asked_for() {
    let s = example(200);
    let joined = status(&s, true);
    assert!(joined.lines().count() < 20, "{joined}");
    assert!(joined.contains("ip-10.0.0.1 .. ip-10.0.0.200 (200)  10.0.0.1 .. 10.0.0.200/24"), "{joined}");
    assert!(joined.contains("200 resources: 200 ISP"));
    assert!(status(&s, false).lines().count() > 200);
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
        status(&Status { interfaces, ..s.clone() }, false)
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
    assert!(text.contains("b     10.0.0.2:7412  DOWN   2.5 s ago"), "{text}");
}

#[test]
fn a_node_without_a_cluster_says_so() {
    let mut s = example(0);
    s.cluster = None;
    s.nodes.clear();
    assert!(status(&s, true).contains("cluster  none"));
}
