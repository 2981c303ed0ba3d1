//! The cluster's state in a real etcd cluster of three.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use vipd_tests::{
    lab::{Etcd, Host, Lab, Options, PATIENCE, Store},
    timeline::Moment,
};

use crate::{
    Test,
    scene::{Scene, TAGS, TUNABLES, addresses, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("etcd::a_cluster_is_founded_joined_and_moves_its_addresses", a_whole_life),
    ("etcd::the_owner_is_killed_and_another_takes_over", owner_killed),
    ("etcd::the_owner_is_killed_with_the_fast_profile", owner_killed_fast),
    ("etcd::the_owner_is_cut_off_from_its_peers_and_not_from_etcd", owner_isolated),
    ("etcd::all_are_apart_and_reach_etcd", all_apart),
    ("etcd::a_member_is_lost_and_nothing_moves", member_lost),
    ("etcd::the_majority_is_lost_and_nothing_moves_until_it_is_back", majority_lost),
    ("etcd::a_daemon_that_starts_without_etcd_keeps_its_addresses", started_without),
    ("etcd::a_leader_that_loses_etcd_gives_the_lead_away", leader_parted),
    ("etcd::two_operators_at_once", two_operators),
    ("etcd::wrong_stores_are_refused", wrong_stores),
    ("etcd::with_tls_and_a_password", secure),
    ("etcd::the_log_is_cut_short_and_who_knows_nothing_reads_the_snapshot", long_log),
];

fn with_etcd() -> Options {
    Options { store: Store::Etcd, ..options() }
}

fn scene() -> Result<Scene> {
    Scene::new(&with_etcd(), 0)
}

fn a_whole_life() -> Result<()> {
    let scene = scene()?;
    let lab = &scene.lab;
    let status = lab.host(1).vipctl(&["cluster", "status"])?.done()?.stdout;
    ensure!(status.contains("etcd, 3 of 3 members well, keys /vipd/lab/"), "{status}");
    ensure!(status.contains("http://10.77.0.202:2379"), "{status}");
    for tag in TAGS {
        lab.host(1).vipctl(&["in-service", tag, "--on", lab.host(2).name()])?.done()?;
    }
    scene.wait_in_service(2, 1)?;
    scene.wait_answers(2, Moment::default())?;
    ensure!(!lab.host(0).has_address("10.77.0.50")?, "the old owner kept the address");

    // A daemon in service is restarted: the others do not notice.
    lab.host(2).terminate()?;
    lab.host(2).start()?;
    lab.wait_whole()?;
    scene.wait_in_service(2, 2)?;
    scene.wait_answers(2, Moment::now())?;
    scene.check_terms(&[0, 2])
}

/// The owner leads as well: neither costs a lease of etcd's.
fn owner_killed() -> Result<()> {
    killed_and_taken_over(scene()?)
}

fn owner_killed_fast() -> Result<()> {
    killed_and_taken_over(Scene::new(&Options { profile: "fast", ..with_etcd() }, 0)?)
}

fn killed_and_taken_over(scene: Scene) -> Result<()> {
    let lab = &scene.lab;
    lab.wait(PATIENCE, "the owner leads", || {
        ensure!(lab.leader(1)? == 0, "not yet");
        Ok(())
    })?;
    let killed = lab.host(0).sigkill()?;
    let answered = scene.wait_answers(1, killed)?;
    println!("answered by another host {:?} after the owner and leader was killed", answered.since(killed));
    scene.check_silent_within_lease(0, killed)?;
    scene.wait_in_service(1, 2)?;
    ensure!(lab.leader(1)? != 0, "a killed node leads");
    lab.host(0).start()?;
    lab.wait_whole()?;
    lab.wait(PATIENCE, "the returned host has cleaned up", || {
        ensure!(!lab.host(0).has_address("10.77.0.50")?, "the address is still there");
        Ok(())
    })?;
    scene.wait_answers(1, Moment::now())?;
    scene.check_terms(&[0, 1])
}

/// Leases count, not who reaches the store.
fn owner_isolated() -> Result<()> {
    let scene = scene()?;
    let lab = &scene.lab;
    lab.segment.isolate(0)?;
    let isolated = Moment::now();
    scene.wait_answers(1, isolated)?;
    scene.check_silent_within_lease(0, isolated)?;
    scene.wait_in_service(1, 2)?;
    lab.wait(PATIENCE, "the isolated host follows and does not lead", || {
        scene.wait_in_service(1, 0)?;
        ensure!(lab.leader(0)? != 0, "it believes that it leads");
        Ok(())
    })?;
    ensure!(!lab.host(0).status()?.lease.valid, "it believes in its lease");
    lab.segment.heal()?;
    lab.wait_whole()?;
    lab.wait(PATIENCE, "the healed host has cleaned up", || {
        ensure!(!lab.host(0).has_address("10.77.0.50")?, "the address is still there");
        Ok(())
    })?;
    scene.wait_answers(1, Moment::now())?;
    scene.check_terms(&[0, 1])
}

fn all_apart() -> Result<()> {
    let scene = scene()?;
    let lab = &scene.lab;
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        lab.segment.partition(a, b)?;
    }
    let apart = Moment::now();
    lab.wait(PATIENCE, "nobody has a lease and nobody leads", || {
        for host in &lab.hosts {
            let status = host.status()?;
            ensure!(!status.lease.valid, "{} has a lease", host.name());
            ensure!(status.cluster.is_some_and(|c| c.leader.is_none()), "{} knows a leader", host.name());
        }
        Ok(())
    })?;
    scene.check_silent_within_lease(0, apart)?;
    scene.check_quiet(500)?;
    lab.segment.heal()?;
    lab.wait_whole()?;
    let owner = lab.wait(PATIENCE, "both addresses are in service again", || {
        let owner = lab.owner(0, TAGS[0])?;
        TAGS.into_iter().try_for_each(|tag| lab.check_in_service(tag, owner, 0))?;
        Ok(owner)
    })?;
    scene.wait_answers(owner, apart)?;
    scene.check_terms(&[0, owner])
}

fn member_lost() -> Result<()> {
    let scene = scene()?;
    let lab = &scene.lab;
    let etcd = lab.etcd()?;
    // The member that matters most: until another leads, etcd decides nothing.
    let lost = etcd.leader()?;
    let before = Moment::now();
    etcd.kill(lost)?;
    // A change on each host, right now.
    for (i, host) in lab.hosts.iter().enumerate() {
        host.vipctl(&["ping-list", "add", "10.77.0.0/24", &format!("10.77.0.{}", 150 + i)])?.done()?;
    }
    lab.wait(PATIENCE, "the loss is shown", || {
        let status = lab.host(1).status()?;
        let store = status.cluster.context("no cluster")?.store;
        ensure!(store.unreachable_ms.is_none(), "{store:?}");
        ensure!(store.members[lost].state == "unreachable", "{store:?}");
        ensure!(store.members.iter().filter(|m| m.healthy).count() == 2, "{store:?}");
        ensure!(status.warnings.iter().any(|w| w.contains("unreachable")), "{:?}", status.warnings);
        Ok(())
    })?;
    lab.wait_whole()?;
    lab.host(0).vipctl(&["out-of-service", TAGS[1]])?.done()?;
    lab.host(2).vipctl(&["in-service", TAGS[1]])?.done()?;
    for index in 0..3 {
        scene.wait_in_service(0, index)?;
    }
    etcd.restart(lost)?;
    etcd.wait_sound()?;
    let timeline = scene.capture.timeline().between(before, Moment(u64::MAX));
    let silence = timeline.longest_silence(addresses()[0]);
    ensure!(silence <= scene.lease(), "the address that stayed was not answered for {silence:?}");
    scene.check_terms(&[0])
}

fn kill_majority(etcd: &Etcd) -> Result<()> {
    etcd.kill(0)?;
    etcd.kill(1)
}

fn majority_lost() -> Result<()> {
    let scene = scene()?;
    let lab = &scene.lab;
    let etcd = lab.etcd()?;
    let before = Moment::now();
    kill_majority(etcd)?;
    wait_away(lab)?;
    let answer = lab.host(1).vipctl(&["out-of-service", TAGS[0]])?;
    ensure!(answer.code() == 5, "exit code 5 (no quorum) expected: {answer:?}");
    ensure!(answer.stderr.contains("etcd"), "the reason is not named: {answer:?}");
    // For several leases nothing may happen.
    std::thread::sleep(scene.lease() * 3);
    for host in &lab.hosts {
        ensure!(host.status()?.lease.valid, "{} lost its lease with etcd", host.name());
    }
    let timeline = scene.capture.timeline().between(before, Moment(u64::MAX));
    for address in addresses() {
        let silence = timeline.longest_silence(address);
        ensure!(silence < Duration::from_secs(1), "{address} was not answered for {silence:?}");
    }
    scene.check_terms(&[0])?;

    // Now the owner goes as well: its addresses go silent, and nobody may take them.
    let killed = lab.host(0).sigkill()?;
    scene.check_silent_within_lease(0, killed)?;
    lab.wait(PATIENCE, "the owner's kernel is silent", || scene.check_quiet(300))?;
    let text = lab.host(1).vipctl(&["status"])?.done()?.stdout;
    ensure!(text.contains("UNREACHABLE since") && text.contains("fail over"), "{text}");

    etcd.restart(0)?;
    etcd.restart(1)?;
    let back = Moment::now();
    etcd.wait_sound()?;
    scene.wait_answers(1, back)?;
    scene.wait_in_service(1, 2)?;
    lab.host(0).start()?;
    lab.wait_whole()?;
    lab.host(2).vipctl(&["out-of-service", TAGS[0]])?.done()?;
    scene.check_terms(&[0, 1])
}

/// Until every host that runs says that etcd is away.
fn wait_away(lab: &Lab) -> Result<()> {
    lab.wait(PATIENCE, "the loss of etcd is noticed", || {
        for host in lab.hosts.iter().filter(|h| h.is_running()) {
            let cluster = host.status()?.cluster.context("no cluster")?;
            ensure!(cluster.store.unreachable_ms.is_some(), "{} has not noticed", host.name());
            ensure!(cluster.leader.is_none(), "{} knows a leader", host.name());
            ensure!(cluster.quorum, "{} does not hear the others", host.name());
        }
        Ok(())
    })
}

/// What a node remembers of its peers is enough to have its lease renewed.
fn started_without() -> Result<()> {
    let scene = scene()?;
    let lab = &scene.lab;
    let before = Moment::now();
    kill_majority(lab.etcd()?)?;
    wait_away(lab)?;
    lab.host(0).sigkill()?;
    lab.host(0).start()?;
    lab.host(0).wait_up()?;
    std::thread::sleep(scene.lease() * 2);
    ensure!(lab.host(0).status()?.lease.valid, "the lease was not renewed");
    scene.wait_answers(0, Moment::now())?;
    lab.etcd()?.restart(0)?;
    lab.etcd()?.restart(1)?;
    lab.wait_whole()?;
    scene.wait_in_service(0, 1)?;
    let timeline = scene.capture.timeline().between(before, Moment(u64::MAX));
    for address in addresses() {
        let silence = timeline.longest_silence(address);
        ensure!(silence <= scene.lease(), "{address} was not answered for {silence:?}");
    }
    scene.check_terms(&[0])
}

/// It is heard by all, so only its claim's lease tells.
fn leader_parted() -> Result<()> {
    let scene = scene()?;
    let lab = &scene.lab;
    lab.wait(PATIENCE, "the first host leads", || {
        ensure!(lab.leader(1)? == 0, "not yet");
        Ok(())
    })?;
    let before = Moment::now();
    lab.segment.part_from(0, &Etcd::numbers())?;
    lab.wait(PATIENCE, "another host leads", || {
        ensure!(lab.leader(1)? != 0, "not yet");
        ensure!(
            lab.host(0).status()?.cluster.is_some_and(|c| c.leader.is_none()),
            "the first still believes in one"
        );
        Ok(())
    })?;
    // What the parted host holds stays there, and the others can change what does not concern it.
    let answer = lab.host(0).vipctl(&["out-of-service", TAGS[0]])?;
    ensure!(answer.code() == 5, "exit code 5 (no quorum) expected: {answer:?}");
    lab.host(1).vipctl(&["ping-list", "add", "10.77.0.0/24", "10.77.0.150"])?.done()?;
    scene.wait_answers(0, Moment::now())?;
    lab.segment.heal()?;
    lab.wait_whole()?;
    lab.wait(PATIENCE, "the first host has caught up", || {
        let list =
            lab.host(0).vipctl(&["ping-list", "show", "10.77.0.0/24", "--node", lab.host(1).name()])?;
        ensure!(list.stdout.contains("10.77.0.150"), "not yet");
        Ok(())
    })?;
    let timeline = scene.capture.timeline().between(before, Moment(u64::MAX));
    for address in addresses() {
        let silence = timeline.longest_silence(address);
        ensure!(silence < Duration::from_secs(1), "{address} was not answered for {silence:?}");
    }
    scene.check_terms(&[0])
}

/// Both ask for the same things at the same time, through different hosts.
fn two_operators() -> Result<()> {
    // Without the look at the network: two that look for the same address at once take one another for its owner.
    let tunables = format!("{TUNABLES}NOIPUNIQUE=1\n");
    let scene = Scene::empty(&Options { tunables, ..with_etcd() })?;
    let lab = &scene.lab;
    const EACH: usize = 8;
    let create = |host: &Host, tag: String, address: String| {
        host.vipctl(&[
            "create",
            "ip",
            &address,
            "--dev",
            "eth0",
            "--tag",
            &tag,
            "--extend-to",
            "all",
            "--no-wait",
        ])
    };
    let create = &create;
    let answers: Vec<(usize, usize, Result<i32>)> = std::thread::scope(|scope| {
        let by = |h: usize| {
            scope.spawn(move || {
                let one = |i: usize| {
                    // The even ones are the same for both: one of the two is refused.
                    let tag = if i.is_multiple_of(2) { format!("both{i}") } else { format!("h{h}-{i}") };
                    let number = if i.is_multiple_of(2) { 110 + i } else { 130 + 20 * h + i };
                    let answer = create(lab.host(h), tag, format!("10.77.0.{number}/24"));
                    (h, i, answer.map(|a| a.code()))
                };
                (0..EACH).map(one).collect::<Vec<_>>()
            })
        };
        let threads = [by(1), by(2)];
        threads.into_iter().flat_map(|t| t.join().expect("no panic")).collect()
    });
    for i in 0..EACH {
        let codes: Vec<i32> =
            answers.iter().filter(|a| a.1 == i).filter_map(|a| a.2.as_ref().ok().copied()).collect();
        let expected: &[&[i32]] = if i.is_multiple_of(2) { &[&[0, 4], &[4, 0]] } else { &[&[0, 0]] };
        ensure!(expected.contains(&codes.as_slice()), "number {i}: exit codes {codes:?}");
    }
    lab.wait(PATIENCE, "all are in service once, and all hosts agree", || {
        let mut seen = BTreeSet::new();
        for host in &lab.hosts {
            let all = host.status()?.resources;
            ensure!(all.len() == EACH + EACH / 2, "{} knows {}", host.name(), all.len());
            ensure!(all.iter().all(|r| r.state == "ISP"), "not yet in service");
            seen.insert(all.iter().map(|r| format!("{} {:?}", r.tag, r.owner)).collect::<Vec<_>>());
        }
        ensure!(seen.len() == 1, "they differ: {seen:?}");
        Ok(())
    })
}

fn wrong_stores() -> Result<()> {
    let lab = Lab::new(&with_etcd())?;
    lab.hosts.iter().try_for_each(Host::start)?;
    lab.hosts.iter().try_for_each(|host| host.wait_up().map(drop))?;
    let etcd = lab.etcd()?;
    let (first, second, third) = (lab.host(0), lab.host(1), lab.host(2));
    first.vipctl(&["cluster", "init", "lab"])?.done()?;
    let again = second.vipctl(&["cluster", "init", "lab"])?;
    ensure!(again.code() == 4 && again.stderr.contains("cluster of that name already"), "{again:?}");
    // Nothing is left behind: it may join, or found another.
    second.vipctl(&["cluster", "init", "other"])?.done()?;
    ensure!(
        etcd.ctl(&["get", "--prefix", "--keys-only", "/vipd/other/"])?.contains("/vipd/other/id"),
        "not founded"
    );

    // A node whose file says raft does not join.
    third.terminate()?;
    let file = lab.dir().join(third.name()).join("node.toml");
    let text = std::fs::read_to_string(&file)?;
    let raft = text.split("\n[store]").next().context("no store")?;
    std::fs::write(&file, raft)?;
    third.start()?;
    third.wait_up()?;
    let token = first.vipctl(&["cluster", "token"])?.done()?.stdout;
    let join = ["cluster", "join", first.rpc(), "--token", token.trim()];
    let refused = third.vipctl(&join)?;
    ensure!(refused.code() == 4 && refused.stderr.contains("keeps it in etcd"), "{refused:?}");
    // And one that does, and then says otherwise, does not start.
    third.terminate()?;
    std::fs::write(&file, &text)?;
    third.start()?;
    third.wait_up()?;
    third.vipctl(&join)?.done()?;
    third.terminate()?;
    std::fs::write(&file, raft)?;
    third.start()?;
    lab.wait(PATIENCE, "it does not start", || {
        ensure!(third.check_alive().is_err(), "it runs");
        ensure!(third.log().contains("keeps it in etcd"), "{}", third.log());
        Ok(())
    })
}

fn secure() -> Result<()> {
    let scene = Scene::new(&Options { store: Store::SecureEtcd, ..options() }, 0)?;
    let lab = &scene.lab;
    lab.host(1).vipctl(&["in-service", TAGS[0], "--on", lab.host(2).name()])?.done()?;
    lab.wait_in_service(TAGS[0], 2)?;
    let status = lab.host(1).vipctl(&["cluster", "status"])?.done()?.stdout;
    ensure!(
        status.contains("https://10.77.0.202:2379") && status.contains("3 of 3 members well"),
        "{status}"
    );

    // The password is changed behind its back: named, and nothing moves.
    let user = lab.dir().join("secrets/user");
    let right = std::fs::read_to_string(&user)?;
    std::fs::write(&user, "vipd:wrong\n")?;
    lab.host(1).terminate()?;
    lab.host(1).start()?;
    lab.host(1).wait_up()?;
    lab.wait(PATIENCE, "the refusal is shown", || {
        let warnings = lab.host(1).status()?.warnings;
        ensure!(warnings.iter().any(|w| w.contains("authentication failed")), "{warnings:?}");
        Ok(())
    })?;
    std::fs::write(&user, right)?;
    lab.host(1).terminate()?;
    lab.host(1).start()?;
    lab.wait_whole()
}

fn parts(etcd: &Etcd) -> Result<usize> {
    let keys = etcd.ctl(&["get", "--prefix", "--keys-only", "/vipd/lab/parts/"])?;
    Ok(keys.lines().filter(|line| !line.is_empty()).count())
}

fn long_log() -> Result<()> {
    let scene = scene()?;
    let lab = &scene.lab;
    let etcd = lab.etcd()?;
    // More than one value of etcd's may hold: in parts, each list by itself and the snapshot of all.
    for subnet in 1..=5 {
        let address = |n: u32| std::net::Ipv4Addr::from(0x0a00_0000 | subnet << 16 | n).to_string();
        let addresses: Vec<String> = (1..=8000).map(address).collect();
        let subnet = format!("10.{subnet}.0.0/16");
        let add = ["ping-list", "add", &subnet].into_iter().chain(addresses.iter().map(String::as_str));
        lab.host(0).vipctl(&add.collect::<Vec<_>>())?.done()?;
    }
    ensure!(parts(etcd)? >= 5, "no entry is in parts");
    // A snapshot each 1000 changes; entries are kept from the last but one on. Each host changes its own list.
    let change = |host: usize, n: usize| {
        let verb = if n.is_multiple_of(2) { "add" } else { "remove" };
        let address = format!("10.77.0.{}", 120 + n / 2 % 100);
        lab.host(host).vipctl(&["ping-list", verb, "10.77.0.0/24", &address])?.done().map(drop)
    };
    let change = &change;
    std::thread::scope(|scope| {
        let of = |host: usize| scope.spawn(move || (0..701).try_for_each(|n| change(host, n)));
        let threads = [of(0), of(1), of(2)];
        threads.into_iter().try_for_each(|t| t.join().expect("no panic"))
    })?;
    let keys = lab.wait(PATIENCE, "the first entries are gone", || {
        let keys = etcd.ctl(&["get", "--prefix", "--keys-only", "/vipd/lab/"])?;
        ensure!(
            keys.contains("/vipd/lab/snapshot") && !keys.contains("/log/00000000000000000001"),
            "not yet"
        );
        Ok(keys)
    })?;
    lab.wait(PATIENCE, "the snapshot alone is in parts", || {
        let left = parts(etcd)?;
        ensure!((2..5).contains(&left), "{left} parts are left");
        Ok(())
    })?;
    let entries = keys.lines().filter(|k| k.contains("/log/")).count();
    ensure!(entries < 2100, "{entries} entries are kept");
    // etcd forgets its own history as well.
    let revision = etcd.ctl(&["endpoint", "status", "-w", "fields"])?;
    let revision =
        revision.lines().find_map(|l| l.strip_prefix("\"Revision\" : ")).context("no revision")?.to_owned();
    etcd.ctl(&["compact", &revision])?;

    // Who has nothing of its own but its identity.
    lab.host(2).terminate()?;
    std::fs::remove_dir_all(lab.host(2).state_dir().join("etcd"))?;
    lab.host(2).start()?;
    lab.wait_whole()?;
    ensure!(lab.host(2).log().contains("going on from the snapshot"), "{}", lab.host(2).log());
    lab.wait(PATIENCE, "all have the same", || {
        let applied = |h: &Host| Ok(h.status()?.cluster.context("no cluster")?.applied);
        let all: BTreeSet<u64> = lab.hosts.iter().map(applied).collect::<Result<_>>()?;
        ensure!(all.len() == 1, "{all:?}");
        Ok(())
    })?;
    let list =
        |h: &Host| Ok(h.vipctl(&["ping-list", "show", "10.77.0.0/24", "--node", "host1"])?.done()?.stdout);
    let lists: BTreeSet<String> = lab.hosts.iter().map(list).collect::<Result<_>>()?;
    ensure!(lists.len() == 1, "the lists differ: {lists:?}");
    scene.wait_answers(0, Moment::now())?;
    scene.check_terms(&[0])
}
