use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::model::{NodeId, Tag};

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
