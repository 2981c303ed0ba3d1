//! The cluster's key is replaced while everything runs.

use std::{collections::BTreeMap, fs, thread};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vipd::api::ClusterStatus;
use vipd_tests::{
    lab::{Answer, Host, Lab, NewIp, Options, PATIENCE, Store},
    timeline::Moment,
};

use crate::{
    Test,
    scene::{Scene, TAGS, V4, V6, addresses, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("keys::a_new_key_costs_nobody_anything_and_voids_old_tokens", rotated),
    ("keys::a_new_key_with_the_fast_profile", rotated_fast),
    ("keys::a_new_key_with_etcd", rotated_with_etcd),
    ("keys::with_a_node_down_nothing_is_changed", one_down),
    ("keys::a_node_killed_between_offer_and_use_catches_up", killed_between),
    ("keys::a_node_killed_right_after_catches_up", killed_after),
    ("keys::an_old_identity_opens_nothing", old_identity),
];

/// What nobody may notice while the key changes.
const TROUBLE: &[&str] = &[
    "node.deposed",
    "node.silent",
    "node.unheard",
    "path.down",
    "path.silent",
    "resource.given",
    "resource.release",
    "key.failed",
    "key.missing",
];

/// To kill a node between two steps.
const ATTEMPTS: usize = 5;

fn rotate(host: &Host) -> Result<Answer> {
    host.vipctl(&["cluster", "rotate-key"])
}

fn cluster(host: &Host) -> Result<ClusterStatus> {
    host.status()?.cluster.with_context(|| format!("{} has no cluster", host.name()))
}

/// `cluster.json`, as the daemon keeps it.
fn identity(host: &Host) -> Result<Value> {
    let path = host.state_dir().join("cluster.json");
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

fn generation(host: &Host) -> Result<u64> {
    identity(host)?["keys"]["current"]["generation"].as_u64().context("no generation")
}

/// Every one of the hosts uses that key, says so, and has no other.
fn wait_used(lab: &Lab, hosts: &[usize], wanted: u64) -> Result<()> {
    lab.wait(PATIENCE, &format!("all use the key of generation {wanted}"), || {
        for host in hosts.iter().map(|i| lab.host(*i)) {
            let (name, seen) = (host.name(), cluster(host)?);
            ensure!(seen.key_generation == wanted, "{name} sees generation {}", seen.key_generation);
            ensure!(seen.key_unconfirmed.is_empty(), "{name} waits for {:?}", seen.key_unconfirmed);
            ensure!(generation(host)? == wanted, "{name} has {}", generation(host)?);
            let keys = &identity(host)?["keys"];
            ensure!(keys.get("previous").is_none() && keys.get("pending").is_none(), "{name} has two keys");
        }
        Ok(())
    })
}

/// The number of the newest event, and the lease epoch, of each host.
fn marks(lab: &Lab) -> Result<BTreeMap<String, (u64, u64)>> {
    let mark = |host: &Host| {
        let last = host.events()?.last().map_or(0, |e| e.number);
        Ok((host.name().to_owned(), (last, host.status()?.lease.epoch)))
    };
    lab.hosts[..3].iter().map(mark).collect()
}

fn check_untroubled(lab: &Lab, since: &BTreeMap<String, (u64, u64)>) -> Result<()> {
    for host in &lab.hosts[..3] {
        let (number, epoch) = since[host.name()];
        let events = host.events()?;
        let bad: Vec<_> =
            events.iter().filter(|e| e.number > number && TROUBLE.contains(&e.kind.as_str())).collect();
        ensure!(bad.is_empty(), lab.explain(anyhow::anyhow!("{}: {bad:?}", host.name())));
        let lease = host.status()?.lease;
        ensure!(lease.valid && lease.epoch == epoch, "{} has lost its lease: {lease:?}", host.name());
    }
    Ok(())
}

fn token(host: &Host) -> Result<String> {
    Ok(host.vipctl(&["cluster", "token"])?.done()?.stdout.trim().to_owned())
}

/// One of them is not in the cluster.
fn four() -> Options {
    Options { hosts: 4, ..options() }
}

fn rotated() -> Result<()> {
    twice(&four())
}

fn rotated_fast() -> Result<()> {
    twice(&Options { profile: "fast", ..four() })
}

fn rotated_with_etcd() -> Result<()> {
    twice(&Options { store: Store::Etcd, ..four() })
}

fn twice(options: &Options) -> Result<()> {
    let scene = Scene::empty_of(options, 3)?;
    for (tag, address) in TAGS.into_iter().zip([V4, V6]) {
        scene.lab.create_ip(&NewIp { address, tag, on: 0, extend_to: &[1, 2] })?;
    }
    scene.wait_answers(0, Moment::default())?;
    let lab = &scene.lab;
    ensure!(cluster(lab.host(0))?.key_generation == 1, "a new cluster has its first key");
    let tokens = [token(lab.host(0))?, token(lab.host(1))?];
    let (before, marks) = (Moment::now(), marks(lab)?);
    for (host, wanted) in [(1, 2), (0, 3)] {
        let said = rotate(lab.host(host))?.done().map_err(|e| lab.explain(e))?;
        ensure!(said.stdout.contains(&format!("key generation {wanted}")), "{said:?}");
        wait_used(lab, &[0, 1, 2], wanted)?;
    }
    scene.wait_answers(0, Moment::now())?;
    check_untroubled(lab, &marks)?;
    for address in addresses() {
        let timeline = scene.capture.timeline().between(before, Moment(u64::MAX));
        let silence = timeline.longest_silence(address);
        ensure!(silence <= scene.lease(), "{address} was not answered for {silence:?}");
    }
    let (outsider, door) = (lab.host(3), lab.host(0));
    outsider.start()?;
    outsider.wait_up()?;
    for old in tokens {
        let refused = outsider.vipctl(&["cluster", "join", door.rpc(), "--token", &old])?;
        ensure!(refused.code() == 1 && refused.stderr.contains("the cluster keys differ"), "{refused:?}");
        ensure!(refused.stderr.contains("fresh token"), "{refused:?}");
    }
    ensure!(door.status()?.nodes.len() == 3, "an old token made a node");
    let new = token(door)?;
    outsider.vipctl(&["cluster", "join", door.rpc(), "--token", &new])?.done().map_err(|e| lab.explain(e))?;
    rotate(outsider)?.done().map_err(|e| lab.explain(e))?;
    wait_used(lab, &[0, 1, 2, 3], 4)?;
    check_untroubled(lab, &marks)?;
    no_secret(lab)?;
    scene.check_terms(&[0])
}

/// No key that a node has stands in a log, in what is shown, in what is replicated or in an export.
fn no_secret(lab: &Lab) -> Result<()> {
    let host = lab.host(0);
    let key = identity(host)?["keys"]["current"]["key"].as_str().context("no key")?.to_owned();
    ensure!(key.len() == 44, "not 32 bytes in base64");
    let mut shown = vec![host.log(), host.vipctl(&["export"])?.done()?.stdout];
    for verb in [&["--json", "status"][..], &["--json", "cluster", "status"], &["--json", "events"]] {
        shown.push(host.vipctl(verb)?.done()?.stdout);
    }
    for below in ["raft", "etcd"] {
        let dir = host.state_dir().join(below);
        for entry in fs::read_dir(dir).into_iter().flatten() {
            shown.push(String::from_utf8_lossy(&fs::read(entry?.path())?).into_owned());
        }
    }
    ensure!(shown.len() > 4 && shown.iter().all(|text| !text.contains(&key)), "the key is shown");
    Ok(())
}

fn one_down() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    let old = token(lab.host(0))?;
    lab.host(2).sigkill()?;
    let refused = rotate(lab.host(0))?;
    ensure!(refused.code() == 4, "{refused:?}");
    let remedy = format!("cluster remove {}", lab.host(2).name());
    for says in ["nothing is changed", lab.host(2).name(), &remedy] {
        ensure!(refused.stderr.contains(says), "it does not say '{says}': {refused:?}");
    }
    ensure!(token(lab.host(0))? == old, "the token is another one");
    for host in [lab.host(0), lab.host(1)] {
        ensure!(cluster(host)?.key_generation == 1 && generation(host)? == 1, "{} changed", host.name());
    }
    lab.host(2).start()?;
    lab.wait_whole()?;
    ensure!(generation(lab.host(2))? == 1, "nothing was changed for it");
    lab.wait(PATIENCE, "the command is repeated", || rotate(lab.host(0))?.done().map(drop))?;
    let wanted = cluster(lab.host(0))?.key_generation;
    ensure!(wanted > 1, "the key is the first");
    wait_used(lab, &[0, 1, 2], wanted)?;
    scene.check_terms(&[0])
}

/// One node takes the key, says so and is killed while another is still frozen, without which the key is not
/// used.
fn killed_between() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    let (owner, frozen, killed) = (lab.host(0), lab.host(1), lab.host(2));
    // The owner leads, so that nothing waits for the frozen one.
    lab.wait(PATIENCE, "the first host leads", || {
        let leader = lab.leader(0)?;
        if leader != 0 {
            lab.host(leader).terminate()?;
            lab.host(leader).start()?;
            lab.wait_whole()?;
        }
        ensure!(lab.leader(0)? == 0, "it does not");
        Ok(())
    })?;
    let mut between = false;
    // Killed a moment too early, it has not said that it has the key: then the command is refused, and repeated.
    for _ in 0..ATTEMPTS {
        let before = generation(owner)?;
        let last = killed.events()?.last().map_or(0, |e| e.number);
        frozen.sigstop()?;
        let said = thread::scope(|scope| {
            let rotating = scope.spawn(|| rotate(owner));
            lab.wait(PATIENCE, "the key is handed out", || {
                let events = killed.events()?;
                let stored = events.iter().find(|e| e.number > last && e.kind == "key.stored");
                stored.context("not yet").map(drop)
            })?;
            killed.sigkill()?;
            frozen.sigcont()?;
            rotating.join().map_err(|_| anyhow::anyhow!("no answer"))?
        })?;
        ensure!(generation(killed)? == before, "it was not killed in between");
        between = said.code() == 1;
        ensure!(between || said.code() == 4, "{said:?}");
        if between {
            ensure!(said.stderr.contains(killed.name()), "{said:?}");
            let status = owner.vipctl(&["cluster", "status"])?.done()?.stdout;
            let warned = format!("is still accepted: '{}' has not confirmed", killed.name());
            ensure!(status.contains(&warned), "{status}");
            let again = rotate(owner)?;
            ensure!(again.code() == 4 && again.stderr.contains("is not finished"), "{again:?}");
        }
        killed.start()?;
        lab.wait_whole()?;
        if between {
            break;
        }
    }
    ensure!(between, "{ATTEMPTS} times it was killed too early");
    wait_used(lab, &[0, 1, 2], cluster(owner)?.key_generation)?;
    let status = owner.vipctl(&["cluster", "status"])?.done()?.stdout;
    ensure!(!status.contains("still accepted"), "{status}");
    scene.check_terms(&[0])
}

fn killed_after() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    let (owner, killed) = (lab.host(0), lab.host(2));
    thread::scope(|scope| {
        let rotating = scope.spawn(|| rotate(owner));
        lab.wait(PATIENCE, "the key is used", || {
            ensure!(generation(killed)? == 2, "not yet");
            Ok(())
        })?;
        killed.sigkill()?;
        let said = rotating.join().map_err(|_| anyhow::anyhow!("no answer"))??;
        // It may have confirmed or not.
        ensure!([0, 1].contains(&said.code()), "{said:?}");
        anyhow::Ok(())
    })?;
    killed.start()?;
    lab.wait_whole()?;
    wait_used(lab, &[0, 1, 2], 2)?;
    scene.check_terms(&[0])
}

/// What a node kept from before, as from a backup of its disk.
fn old_identity() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    let (observer, restored) = (lab.host(0), lab.host(2));
    let file = restored.state_dir().join("cluster.json");
    let old = fs::read(&file)?;
    rotate(observer)?.done().map_err(|e| lab.explain(e))?;
    wait_used(lab, &[0, 1, 2], 2)?;
    restored.sigkill()?;
    let silent = || {
        let status = observer.status()?;
        let node = status.nodes.iter().find(|n| n.name == restored.name()).context("it is unknown")?;
        ensure!(!node.alive, "it is heard");
        Ok(())
    };
    lab.wait(PATIENCE, "it is not heard any more", silent)?;
    fs::write(&file, old)?;
    restored.start()?;
    restored.wait_up()?;
    for other in &lab.hosts[..2] {
        lab.wait(PATIENCE, "it is told why it is not let in", || {
            let log = restored.log();
            ensure!(
                log.contains(&format!("{} cannot be reached: the cluster keys differ", other.rpc())),
                "{log}"
            );
            Ok(())
        })?;
    }
    silent()?;
    ensure!(!restored.status()?.lease.valid, "it has a lease");
    scene.check_terms(&[0])
}
