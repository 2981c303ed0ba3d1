//! Nodes leave, are replaced, and are reached elsewhere, while the others go on.

use anyhow::{Context, Result, ensure};
use vipd_tests::{
    lab::{Lab, NewIp, Options, PATIENCE, Store},
    timeline::Moment,
};

use crate::{
    Test,
    operator::{explained, json, refused},
    scene::{Scene, TAGS, TUNABLES, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("departures::a_node_leaves_and_joins_again", leaves_and_joins_again),
    ("departures::a_node_leaves_where_the_state_is_in_etcd", leaves_etcd),
    ("departures::a_dead_node_is_replaced_and_told_so_when_it_comes_back", dead_node_is_replaced),
    ("departures::the_leader_can_be_removed_as_well", leader_is_removed),
    ("departures::whoever_is_needed_is_not_removed", needed_nodes_stay),
    ("departures::who_cannot_be_told_that_it_was_removed_forgets_by_order", forgets),
    ("departures::an_owner_is_readdressed_while_it_serves", readdressed_live),
    ("departures::addresses_changed_while_the_daemon_did_not_run", readdressed_cold),
    ("departures::a_rolling_restart_moves_nothing_twice", rolling_restart),
];

fn voters(lab: &Lab, seen_by: usize, expected: &[usize]) -> Result<()> {
    let names: Vec<&str> = expected.iter().map(|i| lab.host(*i).name()).collect();
    lab.wait(PATIENCE, "the members are those", || {
        let status = lab.host(seen_by).status()?;
        let mut known: Vec<String> = status.nodes.iter().map(|n| n.name.clone()).collect();
        known.sort();
        ensure!(known == names, "{known:?}, not {names:?}");
        Ok(())
    })
}

/// The host's daemon runs without a cluster, and nothing of the addresses is left there.
fn alone(lab: &Lab, host: usize) -> Result<()> {
    let host = lab.host(host);
    lab.wait(PATIENCE, "it starts over without a cluster", || {
        host.check_alive()?;
        ensure!(host.status()?.cluster.is_none(), "still in a cluster");
        Ok(())
    })?;
    ensure!(!host.state_dir().join("cluster.json").exists() && !host.state_dir().join("raft").exists());
    ensure!(!host.has_address("10.77.0.50")? && !host.has_address("fd77::50")?, "an address is left there");
    Ok(())
}

fn leaves_and_joins_again() -> Result<()> {
    leave_and_join(&options())
}

fn leaves_etcd() -> Result<()> {
    leave_and_join(&Options { store: Store::Etcd, ..options() })
}

fn leave_and_join(options: &Options) -> Result<()> {
    let scene = Scene::new(options, 0)?;
    let lab = &scene.lab;
    let (first, second) = (lab.host(0), lab.host(1));
    explained(lab, || {
        refused(first, &["cluster", "leave"], 4, "--move")?;
        scene.wait_in_service(0, 1)?;
        let asked = Moment::now();
        let answer = first.vipctl(&["cluster", "leave", "--move"])?.done()?;
        ensure!(answer.stdout.contains("has left the cluster 'lab'"), "{answer:?}");
        scene.wait_answers(1, asked)?;
        scene.wait_in_service(1, 2)?;
        voters(lab, 1, &[1, 2])?;
        alone(lab, 0)?;
        refused(first, &["show", TAGS[0]], 1, "not part of a cluster")?;
        // What was said of it is gone, and the others agree on it.
        let shown = json(second, &["show", TAGS[0]])?;
        let nodes = shown["status"]["nodes"].as_array().context("no nodes")?;
        ensure!(nodes.len() == 2, "{shown}");
        refused(second, &["extend", TAGS[0], "--to", first.name()], 4, first.name())?;
        // The same host under the same name is a new node.
        lab.join(0, 1)?;
        lab.wait_members(&[0, 1, 2])?;
        for tag in TAGS {
            second.vipctl(&["extend", tag, "--to", first.name(), "--priority", "7"])?.done()?;
            second.vipctl(&["in-service", tag, "--on", first.name()])?.done()?;
        }
        scene.wait_in_service(0, 2)?;
        scene.check_terms(&[0, 1, 0])
    })
}

fn dead_node_is_replaced() -> Result<()> {
    let scene = Scene::empty_of(&Options { hosts: 4, ..options() }, 3)?;
    let lab = &scene.lab;
    explained(lab, || {
        for (tag, address) in TAGS.into_iter().zip([crate::scene::V4, crate::scene::V6]) {
            lab.create_ip(&NewIp { address, tag, on: 0, extend_to: &[2] })?;
        }
        let one = lab.host(1);
        let list = ["ping-list", "add", "10.77.0.0/24", "10.77.0.100", "--node", lab.host(2).name()];
        one.vipctl(&list)?.done()?;
        lab.host(2).sigkill()?;
        lab.host(3).start()?;
        lab.host(3).wait_up()?;
        lab.join(3, 1)?;
        let replace = ["cluster", "remove", lab.host(2).name(), "--replace-by", lab.host(3).name()];
        // The heir says that it cannot have it so.
        let devices = |device: &str| {
            let set = ["set", TAGS[0], &format!("devices={device}"), "--node", lab.host(2).name()];
            one.vipctl(&set)?.done().map(drop)
        };
        devices("eth9")?;
        refused(one, &replace, 4, "no interface 'eth9'")?;
        voters(lab, 1, &[0, 1, 2, 3])?;
        devices("eth0")?;
        let answer = one.vipctl(&replace)?.done()?;
        ensure!(answer.stdout.contains("has its place"), "{answer:?}");
        lab.wait_members(&[0, 1, 3])?;
        voters(lab, 3, &[0, 1, 3])?;
        let lists = json(one, &["ping-list", "show", "10.77.0.0/24"])?.to_string();
        ensure!(lists.contains(lab.host(3).name()) && !lists.contains(lab.host(2).name()), "{lists}");
        scene.wait_in_service(0, 1)?;

        // The dead one comes back with all that it knew, and the key: nobody hears it, and it is told so.
        lab.host(2).start()?;
        alone(lab, 2)?;
        voters(lab, 0, &[0, 1, 3])?;
        scene.wait_in_service(0, 1)?;

        // Its heir does what it would have done.
        let killed = lab.host(0).sigkill()?;
        scene.wait_answers(3, killed)?;
        scene.wait_in_service(3, 1)?;
        scene.check_terms(&[0, 3])
    })
}

fn leader_is_removed() -> Result<()> {
    let lab = Lab::new(&Options { hosts: 4, ..options() })?;
    lab.form_cluster()?;
    explained(&lab, || {
        let leader = lab.leader(0)?;
        let others: Vec<usize> = (0..4).filter(|i| *i != leader).collect();
        let other = lab.host(others[0]);
        other.vipctl(&["cluster", "remove", lab.host(leader).name()])?.done()?;
        lab.wait_members(&others)?;
        alone(&lab, leader)?;
        // The next one says itself that it goes.
        let last = others[2];
        lab.host(last).vipctl(&["cluster", "leave"])?.done()?;
        lab.wait_members(&others[..2])?;
        alone(&lab, last)?;
        refused(lab.host(last), &["cluster", "leave"], 1, "not part of a cluster")?;
        // Two, then one, which stays.
        lab.host(others[1]).vipctl(&["cluster", "leave"])?.done()?;
        lab.wait_members(&others[..1])?;
        refused(other, &["cluster", "leave"], 4, "let another node join first")
    })
}

fn needed_nodes_stay() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    explained(lab, || {
        let [a, b, c] = [0, 1, 2].map(|i| lab.host(i).name().to_owned());
        refused(lab.host(1), &["cluster", "remove", &a], 4, "vipctl node standby")?;
        refused(lab.host(1), &["cluster", "remove", "nobody"], 4, "nobody")?;
        refused(lab.host(1), &["cluster", "remove", &b], 4, "cluster leave")?;
        refused(lab.host(1), &["cluster", "remove", &c, "--replace-by", &c], 4, "the one that is removed")?;
        let only = ["create", "ip", "10.77.0.60/24", "--tag", "only"];
        lab.host(2).vipctl(&only)?.done()?;
        refused(lab.host(2), &["cluster", "leave", "--move"], 4, "only one of")?;
        lab.check_in_service("only", 2, 1)?;
        lab.host(2).vipctl(&["delete", "only"])?.done()?;
        refused(lab.host(0), &["cluster", "leave", "--forget"], 4, "reaches a majority")?;
        for other in [&b, &c] {
            lab.host(1).vipctl(&["node", "standby", other])?.done()?;
        }
        refused(lab.host(0), &["cluster", "leave", "--move"], 4, "nobody else can have")?;
        scene.wait_in_service(0, 1)?;
        for other in [&b, &c] {
            lab.host(1).vipctl(&["node", "online", other])?.done()?;
        }
        // Two of three are left when one is dead: without another of them nothing could be decided.
        lab.host(2).sigkill()?;
        lab.wait(PATIENCE, "the dead one is missed", || {
            refused(lab.host(0), &["cluster", "remove", &b], 4, "too few would be left")
        })?;
        lab.host(0).vipctl(&["cluster", "remove", &c])?.done()?;
        voters(lab, 1, &[0, 1])?;
        scene.wait_in_service(0, 1)?;
        scene.check_terms(&[0])
    })
}

/// With the key of before, it hears nobody and nobody hears it.
fn forgets() -> Result<()> {
    let lab = Lab::new(&options())?;
    lab.form_cluster()?;
    explained(&lab, || {
        let (one, lost) = (lab.host(0), lab.host(2));
        lost.sigkill()?;
        one.vipctl(&["cluster", "remove", lost.name()])?.done()?;
        one.vipctl(&["cluster", "rotate-key"])?.done()?;
        lost.start()?;
        lost.wait_up()?;
        refused(lost, &["cluster", "leave"], 5, "no quorum")?;
        let answer = lost.vipctl(&["cluster", "leave", "--forget"])?.done()?;
        ensure!(answer.stdout.contains("has forgotten the cluster 'lab'"), "{answer:?}");
        alone(&lab, 2)?;
        lab.join(2, 0)?;
        lab.wait_whole()
    })
}

/// Gives a host an address beside its own and has its configuration say it.
fn move_config(lab: &Lab, index: usize, number: u8) -> Result<()> {
    let (host, old) = (lab.host(index), lab.segment.address(index, 0));
    // The second address of a subnet outlives the first.
    lab.segment.host(index).sysctl("ipv4/conf/eth0/promote_secondaries", "1")?;
    lab.segment.host(index).ip(&format!("addr add 10.77.0.{number}/24 dev eth0"))?;
    host.edit_config(&format!("\"{old}:"), &format!("\"10.77.0.{number}:"))
}

/// Everybody calls the host there, hears it, and the old address is no longer needed.
fn check_moved(scene: &Scene, index: usize, number: u8) -> Result<()> {
    let lab = &scene.lab;
    let old = lab.segment.address(index, 0);
    lab.segment.host(index).ip(&format!("addr del {old}/24 dev eth0"))?;
    lab.wait_whole()?;
    let name = lab.host(index).name();
    for host in &lab.hosts {
        lab.wait(PATIENCE, "everybody knows the new address", || {
            let status = json(host, &["cluster", "status"])?.to_string();
            ensure!(status.contains(&format!("10.77.0.{number}:")), "{name} is not there: {status}");
            ensure!(!status.contains(&format!("{old}:")), "{name} is still there: {status}");
            Ok(())
        })?;
    }
    lab.wait_whole()
}

fn readdressed_live() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    explained(lab, || {
        let host = lab.host(0);
        let answer = host.vipctl(&["cluster", "readdress"])?.done()?;
        ensure!(answer.stdout.contains("nothing changed"), "{answer:?}");
        // An address that is not here is refused before anybody is told.
        let old = format!("\"{}:", lab.segment.address(0, 0));
        host.edit_config(&old, "\"10.77.0.71:")?;
        refused(host, &["cluster", "readdress"], 4, "cannot be used on this host")?;
        host.edit_config("\"10.77.0.71:", &old)?;
        move_config(lab, 0, 71)?;
        host.vipctl(&["cluster", "readdress"])?.done()?;
        lab.wait(PATIENCE, "its daemon is back", || host.status().map(drop))?;
        check_moved(&scene, 0, 71)?;
        scene.check_terms(&[0])?;
        // An operator can still work there, and the cluster as a whole goes on.
        host.vipctl(&["in-service", TAGS[0], "--on", lab.host(1).name()])?.done()?;
        lab.check_in_service(TAGS[0], 1, 0)
    })
}

fn readdressed_cold() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    explained(lab, || {
        let leader = lab.leader(0)?;
        // One that the leader calls in vain, and then the leader itself.
        for (index, number) in [((leader + 1) % 3, 71), (leader, 72)] {
            lab.host(index).terminate()?;
            move_config(lab, index, number)?;
            lab.host(index).start()?;
            lab.host(index).wait_up()?;
            check_moved(&scene, index, number)?;
        }
        Ok(())
    })
}

/// As the README says: standby, restart, online. Nothing is lost, nothing moves that need not.
fn rolling_restart() -> Result<()> {
    let options = Options { tunables: TUNABLES.into(), ..Options::default() };
    let scene = Scene::new(&options, 0)?;
    let lab = &scene.lab;
    explained(lab, || {
        let mut owners = vec![0];
        for index in 0..3 {
            let (host, name) = (lab.host(index), lab.host(index).name());
            let asked = Moment::now();
            host.vipctl(&["node", "standby", name])?.done()?;
            let owner = lab.owner(index, TAGS[0])?;
            ensure!(owner != index, "{name} is on standby and owns it");
            if owners.last() != Some(&owner) {
                owners.push(owner);
                scene.wait_answers(owner, asked)?;
            }
            scene.wait_in_service(owner, index)?;
            host.terminate()?;
            host.start()?;
            host.wait_up()?;
            lab.wait_whole()?;
            host.vipctl(&["node", "online", name])?.done()?;
        }
        ensure!(owners.len() <= 3, "moved more often than needed: {owners:?}");
        scene.check_terms(&owners)?;
        for host in &lab.hosts {
            let deposed = host.events()?.into_iter().find(|e| e.kind == "node.deposed");
            ensure!(deposed.is_none(), "a node that held nothing was deposed: {deposed:?}");
        }
        Ok(())
    })
}
