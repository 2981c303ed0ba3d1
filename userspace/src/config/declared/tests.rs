use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::model::{DeclaredCloud, NodeId, Tag};

fn nodes() -> BTreeMap<String, NodeId> {
    [("node-a", 1), ("node-b", 2)].map(|(name, id)| (name.to_owned(), id)).into()
}

fn read(text: &str) -> DeclaredFile {
    parse("c.toml", text, &nodes())
}

fn faults(text: &str) -> Vec<String> {
    read(text).faults.iter().map(ToString::to_string).collect()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn again(file: &DeclaredFile) -> DeclaredFile {
    read(&write(&file.declared, &|id| format!("node-{}", if id == 1 { 'a' } else { 'b' })))
}

#[test]
fn the_example_is_good_and_reads_back() {
    let example = include_str!("../../../../deploy/cluster.toml");
    let file = read(example);
    assert_eq!(file.faults, []);
    assert!(file.pending.is_empty());
    let web = &file.declared.resources[&tag("web")];
    assert_eq!((web.addresses.count(), web.nodes[&2].priority), (11, 10));
    assert_eq!(web.policy.failure_timeout, Some(Duration::from_secs(120)));
    assert_eq!((file.declared.constraints.len(), file.declared.ping_lists.len()), (3, 1));
    assert_eq!(again(&file).declared, file.declared);
    assert_eq!(file.resource_lines[&tag("db")], example.lines().position(|l| l == "tag = \"db\"").unwrap());
}

/// Those of EC2 too, each with its node-c.
#[test]
fn the_examples_for_ec2_are_good_and_read_back() {
    let nodes = [("node-a", 1), ("node-b", 2), ("node-c", 3)].map(|(name, id)| (name.to_owned(), id)).into();
    let examples = [
        (include_str!("../../../../deploy/ec2-backend.toml"), 2),
        (include_str!("../../../../deploy/ec2-frontend.toml"), 1),
    ];
    for (example, count) in examples {
        let file = parse("c.toml", example, &nodes);
        assert_eq!(file.faults, []);
        assert_eq!(file.declared.resources.len(), count);
        let text = write(&file.declared, &|id| nodes.iter().find(|(_, n)| **n == id).unwrap().0.clone());
        assert_eq!(parse("c.toml", &text, &nodes).declared, file.declared);
    }
}

const LEAST: &str = "[[resource]]\ntag = \"web\"\naddresses = [\"10.0.0.9/24\"]\n\
                     [resource.nodes]\nnode-a = { priority = 1, devices = [\"eth0\"] }\n";

#[test]
fn each_fault_names_line_key_reason_and_remedy() {
    let resource = |with: &str| LEAST.replace("[resource.nodes]", &format!("{with}\n[resource.nodes]"));
    let cases = [
        ("x = [\n".to_owned(), "c.toml:"),
        ("colour = 1\n".to_owned(), "c.toml:1: colour: is no key that is known here; correct the spelling"),
        (
            "[defaults]\nstickiness = \"much\"\n".to_owned(),
            "c.toml:2: defaults.stickiness: 'much' is not valid; write a",
        ),
        (
            "[defaults]\nfailure-timeout = -1\n".to_owned(),
            "c.toml:2: defaults.failure-timeout: -1 is not valid; write seconds",
        ),
        (
            "[defaults]\nmigration-threshold = 0\n".to_owned(),
            "c.toml:2: defaults.migration-threshold: 0 is not valid",
        ),
        (
            "[connectivity]\nhosts = [\"10.0.0.256\"]\n".to_owned(),
            "c.toml:2: connectivity.hosts: '10.0.0.256': invalid IP",
        ),
        ("[connectivity]\nfall = 70000\n".to_owned(), "c.toml:2: connectivity.fall: 70000 is not valid"),
        ("[subnet]\n".to_owned(), "c.toml:1: subnet: a table is not valid; write [[subnet]]"),
        ("[[subnet]]\nfall = 1\n".to_owned(), "c.toml:1: subnet.subnet: is missing; add: subnet ="),
        (
            "[[ping-list]]\nnode = \"z\"\nsubnet = \"10.0.0.0/24\"\naddresses = []\n".to_owned(),
            "c.toml:2: ping-list.node: there is no node 'z'; correct the name, or let it join with 'vipctl cluster join' first; there are node-a, node-b",
        ),
        (
            LEAST.replace("node-a =", "node-z ="),
            "c.toml:5: resource.web.nodes.node-z: there is no node 'node-z'",
        ),
        (
            LEAST.replace("priority = 1, ", ""),
            "c.toml:5: resource.web.nodes.node-a.priority: is missing; add: priority",
        ),
        (LEAST.replace("priority", "prio"), "c.toml:5: resource.web.nodes.node-a.prio: is no key"),
        (LEAST.replace("tag = \"web\"\n", ""), "c.toml:1: resource.tag: is missing; add: tag"),
        (LEAST.replace("web", "we b"), "c.toml:2: resource.we b.tag: 'we b': tag 'we b' is not valid"),
        (LEAST.replace("\"10.0.0.9/24\"", ""), "c.toml:3: resource.web.addresses: is empty"),
        (format!("{LEAST}{LEAST}"), "c.toml:6: resource.web: is there twice, first in line 1"),
        (
            resource("state = \"on\""),
            "c.toml:4: resource.web.state: 'on' is not valid; write \"in-service\" or",
        ),
        (
            resource("failfast = [\"all\"]"),
            "c.toml:4: resource.web.failfast: 'all' is not valid; write \"service\" or",
        ),
        (
            resource("maintenance = 1"),
            "c.toml:4: resource.web.maintenance: 1 is not valid; write true or false",
        ),
        (resource("depends = [\"a\", \"a\"]"), "c.toml:4: resource.web.depends: is there twice"),
        (
            "[[constraint]]\nid = \"x\"\nkind = \"order\"\nfirst = \"a\"\n".to_owned(),
            "c.toml:1: constraint.x.then: is missing",
        ),
        (
            "[[constraint]]\nid = \"x\"\nkind = \"near\"\n".to_owned(),
            "c.toml:3: constraint.x.kind: 'near' is not valid",
        ),
        (
            "[[constraint]]\nid = \"x\"\nkind = \"group\"\nmembers = [\"a\", \"b\"]\nscore = 1\n".to_owned(),
            "c.toml:5: constraint.x.score: is no key that is known here",
        ),
    ];
    for (text, expected) in cases {
        let found = faults(&text);
        assert!(found.iter().any(|f| f.starts_with(expected)), "{found:#?}\nwanted: {expected}");
    }
}

#[test]
fn all_faults_at_once_in_the_order_of_lines() {
    let text = format!(
        "colour = 1\n[defaults]\nmaintenance = 7\n{}",
        LEAST.replace("priority = 1", "priority = \"a\"")
    );
    let found = faults(&text);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].starts_with("c.toml:1:") && found[2].starts_with("c.toml:8:"), "{found:#?}");
}

#[test]
fn what_a_host_has_to_look_at_is_left_to_it() {
    let text = LEAST.replace(
        "\"10.0.0.9/24\"",
        "\"10.0.0.9/24\", \"www.example.org\",\n\"10.0.0.5-10.0.1.5/24\", \"10.0.0.5\", \"10.0.0.20-10.0.0.30/24\"",
    );
    let file = read(&text);
    assert_eq!(file.declared.resources[&tag("web")].addresses.count(), 12);
    let pending: Vec<(&str, usize)> = file.pending.iter().map(|p| (p.text.as_str(), p.line)).collect();
    assert_eq!(pending, [("www.example.org", 3), ("10.0.0.5-10.0.1.5/24", 4), ("10.0.0.5", 4)]);
}

#[test]
fn times_and_scores_read_back_exactly() {
    for (text, time) in
        [("0.25", 250_000_000), ("2", 2_000_000_000), ("0.000000001", 1), ("3.5", 3_500_000_000)]
    {
        let file =
            read(&format!("[connectivity]\ninterval = {text}\n[defaults]\nstickiness = \"-INFINITY\"\n"));
        assert_eq!(file.declared.connectivity.as_ref().unwrap().interval, Duration::from_nanos(time));
        assert_eq!(again(&file).declared, file.declared);
    }
    assert_eq!(faults("[connectivity]\ninterval = 1e3\n").len(), 1);
}

const ROUTE: &str = "[[resource]]\ntag = \"r\"\nkind = \"ec2-route\"\nip = \"web\"\n\
                     [resource.nodes]\nnode-a = { priority = 1 }\n";
const EIP: &str = "[[resource]]\ntag = \"e\"\nkind = \"ec2-eip\"\neip = \"203.0.113.9\"\nregion = \"eu-central-1\"\n\
                   [resource.nodes]\nnode-b = { priority = 1, devices = [\"eth0\"], restore-and-recover = false }\n";

#[test]
fn resources_of_ec2_are_read_and_written() {
    let file = read(&format!("{LEAST}{ROUTE}{EIP}"));
    assert_eq!(file.faults, []);
    let route = &file.declared.resources[&tag("r")];
    assert_eq!(route.followed(), Some(&tag("web")));
    assert!(route.nodes[&1].devices.is_empty() && file.declared.children(&tag("r")).contains(&tag("web")));
    let eip = &file.declared.resources[&tag("e")];
    assert!(matches!(&eip.cloud, Some(DeclaredCloud::Eip(e)) if e.region.as_deref() == Some("eu-central-1")));
    assert!(!eip.nodes[&2].restore_and_recover);
    assert_eq!(again(&file).declared, file.declared);
    assert_eq!(read(&LEAST.replace("tag =", "kind = \"ip\"\ntag =")).declared, read(LEAST).declared);
}

#[test]
fn each_kind_has_its_own_keys_and_all_faults_are_told_at_once() {
    let cases: [(String, &[&str]); 7] = [
        (
            ROUTE.replace(
                "ip = \"web\"\n",
                "addresses = [\"10.0.0.9/24\"]\naccept = \"assign\"\neip = \"203.0.113.9\"\n",
            ),
            &[
                "c.toml:1: resource.r.ip: is missing; add: ip = \"web\"",
                "c.toml:4: resource.r.addresses: is for resources with kind = \"ip\", and this one is of the kind ec2-route",
                "c.toml:5: resource.r.accept: is for resources with kind = \"ip\"",
                "c.toml:6: resource.r.eip: is for resources with kind = \"ec2-eip\"",
            ],
        ),
        (
            ROUTE.replace("priority = 1", "priority = 1, devices = [\"eth0\"], source = true"),
            &[
                "c.toml:6: resource.r.nodes.node-a.devices: is not for routes, which follow their IP resource; remove it",
                "c.toml:6: resource.r.nodes.node-a.source: is no key that is known here",
            ],
        ),
        (EIP.replace("203.0.113.9", "fd00::9"), &["c.toml:4: resource.e.eip: 'fd00::9'"]),
        (
            EIP.replace(", devices = [\"eth0\"]", ""),
            &["c.toml:7: resource.e.nodes.node-b.devices: is missing"],
        ),
        (
            EIP.replace("region", "on-conflict"),
            &["c.toml:5: resource.e.on-conflict: is for resources with kind = \"ip\""],
        ),
        (
            LEAST.replace("tag =", "region = \"x\"\ntag ="),
            &[
                "c.toml:2: resource.web.region: is for resources with kind = \"ec2-route\" or kind = \"ec2-eip\"",
            ],
        ),
        (
            EIP.replace("ec2-eip", "eip"),
            &["c.toml:3: resource.e.kind: 'eip' is not valid; write \"ip\" or \"ec2-route\" or"],
        ),
    ];
    for (text, expected) in cases {
        let found = faults(&text);
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for fault in expected {
            assert!(found.iter().any(|f| f.starts_with(fault)), "{found:#?}\nwanted: {fault}");
        }
    }
}
