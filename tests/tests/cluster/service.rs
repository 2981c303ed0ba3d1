//! An address's life without faults: restore, remove, check, recover, step by step.

use anyhow::{Result, ensure};
use vipd_tests::{
    lab::{self, Lab, NewIp, Options, PATIENCE},
    netns,
    timeline::Moment,
};

use crate::{
    Test,
    scene::{Scene, TAGS, V4, V6, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("service::restore_and_remove_step_by_step", restore_and_remove_step_by_step),
    ("service::a_move_removes_before_it_adds", a_move_removes_before_it_adds),
    ("service::a_foreign_deletion_is_repaired", a_foreign_deletion_is_repaired),
    ("service::duplicates_are_refused", duplicates_are_refused),
    ("service::a_stationary_address_is_never_touched", a_stationary_address_is_never_touched),
    ("service::wrong_requests_are_refused_with_their_exit_codes", wrong_requests_are_refused),
];

/// The kinds appear in the host's events about the tag in this order, others between them.
fn check_order(lab: &Lab, host: usize, tag: &str, kinds: &[&str]) -> Result<()> {
    let events = lab.host(host).events()?;
    let about = events.iter().filter(|e| e.tag.as_ref().is_some_and(|t| t.to_string() == tag));
    let seen: Vec<&str> = about.map(|e| e.kind.as_str()).collect();
    let mut rest = seen.iter();
    for kind in kinds {
        ensure!(rest.any(|k| k == kind), "no '{kind}' in its place among the events of {tag}: {seen:?}");
    }
    Ok(())
}

fn restore_and_remove_step_by_step() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    let restored = [
        "restore.link",
        "restore.presence",
        "restore.duplicate",
        "restore.program",
        "restore.address",
        "restore.neighbours",
        "restore.open-gate",
        "restore.announce",
        "restore.broadcast-ping",
        "restore.done",
    ];
    for tag in TAGS {
        check_order(lab, 0, tag, &restored)?;
    }
    ensure!(lab.host(0).has_address("10.77.0.50")? && lab.host(0).has_address("fd77::50")?, "not assigned");

    // The ordinary tools of a client.
    let client = lab.segment.client();
    // Its exit status compares answers with questions, and here the prober asks as well.
    let asked = client.command("arping").args(["-c", "2", "-w", "5", "-I", "eth0", "10.77.0.50"]).output()?;
    let answer = format!("reply from 10.77.0.50 [{}]", lab.host(0).mac()).to_lowercase();
    let said = String::from_utf8_lossy(&asked.stdout).to_lowercase();
    ensure!(said.contains(&answer), "'{answer}' is not in: {said}");
    netns::run(client.command("ndisc6").args(["-1", "-w", "5000", "fd77::50", "eth0"]))?;
    for address in ["10.77.0.50", "fd77::50"] {
        netns::run(client.command("ping").args(["-c", "2", "-i", "0.2", "-W", "5", address]))?;
    }

    for tag in TAGS {
        lab.host(0).vipctl(&["out-of-service", tag])?.done()?;
    }
    let removed =
        ["remove.close-gate", "remove.address", "remove.host-route", "remove.route-cache", "remove.done"];
    for tag in TAGS {
        check_order(lab, 0, tag, &removed)?;
        let state = lab.resource(0, tag)?.state;
        ensure!(state == "OSU", "{tag} is {state} after out-of-service");
    }
    ensure!(!lab.host(0).has_address("10.77.0.50")?, "still assigned");
    ensure!(!lab.host(0).has_address("fd77::50")?, "still assigned");
    scene.check_quiet(500)?;

    let again = Moment::now();
    for tag in TAGS {
        lab.host(0).vipctl(&["in-service", tag])?.done()?;
    }
    scene.wait_answers(0, again)?;
    for tag in TAGS {
        lab.host(0).vipctl(&["delete", tag])?.done()?;
    }
    lab.wait(PATIENCE, "the resources are gone everywhere", || {
        for host in &lab.hosts {
            let left = host.status()?.resources.len();
            ensure!(left == 0, "{} resources left on {}", left, host.name());
        }
        Ok(())
    })?;
    scene.check_quiet(300)?;
    scene.check_terms(&[0])
}

fn a_move_removes_before_it_adds() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    let target = lab.host(2).name();
    for tag in TAGS {
        // Asked of a host that neither owns it nor will.
        lab.host(1).vipctl(&["in-service", tag, "--on", target])?.done()?;
    }
    scene.wait_in_service(2, 1)?;
    scene.wait_answers(2, Moment::default())?;
    ensure!(!lab.host(0).has_address("10.77.0.50")?, "the old owner kept the address");
    scene.check_terms(&[0, 2])
}

fn a_foreign_deletion_is_repaired() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let host = scene.lab.host(0);
    for net in [V4, V6] {
        host.delete_address(net)?;
    }
    scene.lab.wait(PATIENCE, "the address is put back", || {
        ensure!(host.has_address("10.77.0.50")?, "the IPv4 address is missing");
        ensure!(host.has_address("fd77::50")?, "the IPv6 address is missing");
        Ok(())
    })?;
    scene.wait_in_service(0, 0)?;
    scene.wait_answers(0, Moment::now())?;
    for tag in TAGS {
        check_order(
            &scene.lab,
            0,
            tag,
            &["restore.done", "quickcheck.failed", "recover.remove", "recover.restore"],
        )?;
    }
    scene.check_terms(&[0])
}

fn duplicates_are_refused() -> Result<()> {
    let scene = Scene::empty(&options())?;
    let lab = &scene.lab;
    let client = lab.segment.client();
    client.ip("addr add 10.77.0.60/24 dev eth0")?;
    client.ip("addr add fd77::60/64 dev eth0 nodad")?;
    for (address, tag) in [("10.77.0.60/24", "dup"), ("fd77::60/64", "dup6")] {
        let create = ["create", "ip", address, "--dev", "eth0", "--tag", tag];
        let answer = lab.host(0).vipctl(&create)?;
        ensure!(answer.code() == 4, "a duplicate was not refused: {answer:?}");
        ensure!(answer.stderr.contains("02:00:00:77:00:64"), "the other host is not named: {answer:?}");
        // Where the check is switched off the operator has it his way.
        lab.host(0).set_tunables("NOIPUNIQUE=1\n")?;
        lab.host(0).vipctl(&create)?.done()?;
        lab.host(0).set_tunables("")?;
        lab.host(0).vipctl(&["delete", tag])?.done()?;
    }
    // An address that the cluster has already, under another name, from another host.
    lab.create_ip(&NewIp { address: V4, tag: "web", on: 0, extend_to: &[1] })?;
    let answer = lab.host(1).vipctl(&["create", "ip", V4, "--dev", "eth0", "--tag", "other"])?;
    ensure!(answer.code() == 4 && answer.stderr.contains("web"), "not refused: {answer:?}");
    scene.check_terms(&[0])
}

fn a_stationary_address_is_never_touched() -> Result<()> {
    let lab = Lab::new(&Options { hosts: 2, ..options() })?;
    lab.form_cluster()?;
    let host = lab.host(0);
    host.vipctl(&["create", "ip", "10.77.0.1", "--tag", "own"])?.done()?;
    lab.wait_in_service("own", 0)?;
    // It still answers its peers' broadcast pings, from that very address.
    let answers = lab.host(1).vipctl(&["ping", "10.77.0.255", "-b", "-c", "1", "-w", "5"])?.done()?;
    ensure!(answers.stdout.contains("10.77.0.1 "), "it no longer answers broadcast pings: {answers:?}");
    host.vipctl(&["out-of-service", "own"])?.done()?;
    ensure!(host.has_address("10.77.0.1")?, "the stationary address is gone");
    host.vipctl(&["delete", "own"])?.done()?;
    ensure!(host.has_address("10.77.0.1")?, "the stationary address is gone");
    let client = lab.segment.client();
    netns::run(client.command("ping").args(["-c", "1", "-W", "5", "10.77.0.1"]))?;
    Ok(())
}

fn wrong_requests_are_refused() -> Result<()> {
    let lab = Lab::new(&Options { hosts: 1, ..options() })?;
    let host = lab.host(0);
    let code = |arguments: &[&str], expected: i32| -> Result<()> {
        let answer = host.vipctl(arguments)?;
        ensure!(answer.code() == expected, "vipctl {arguments:?}: {expected} expected: {answer:?}");
        ensure!(expected == 0 || !answer.stderr.is_empty(), "no reason given: {answer:?}");
        Ok(())
    };
    code(&["status"], 3)?;
    host.start()?;
    host.wait_up()?;
    code(&["status"], 0)?;
    code(&["no-such-verb"], 2)?;
    host.vipctl(&["cluster", "init", "lab"])?.done()?;
    lab.wait_whole()?;
    code(&["show", "nothing"], 4).or_else(|_| code(&["show", "nothing"], 1))?;
    code(&["create", "ip", "10.77.0.55/24", "--dev", "lo"], 4)?;
    code(&["create", "ip", "not an address"], 2).or_else(|_| code(&["create", "ip", "not an address"], 4))?;
    code(&["create", "ip", "10.77.0.55/24", "--dev", "eth7"], 4)?;
    // Alone on its network.
    host.set_tunables("NOBCASTPING=1\n")?;
    code(&["create", "ip", "10.77.0.55/24"], 0)?;
    code(&["set", "ip-10.77.0.55", "devices=lo"], 4)?;
    // A second daemon on the host would take the first one's addresses for its own leftovers.
    let elsewhere = host.state_dir().with_file_name("second");
    let config = host.state_dir().with_file_name("node.toml");
    let second = host
        .command("timeout")?
        .arg("20")
        .arg(lab::binary("vipd")?)
        .arg("--config")
        .arg(config)
        .args(["--state-dir", "--run-dir"].iter().flat_map(|o| [o.as_ref(), elsewhere.as_os_str()]))
        .output()?;
    let said = String::from_utf8_lossy(&second.stderr);
    ensure!(!second.status.success() && said.contains("another vipd"), "it ran: {said}");
    ensure!(host.has_address("10.77.0.55")?, "the second daemon took the address away");
    code(&["interfaces", "10.77.0.55/24"], 0)?;
    code(&["ping", "10.77.0.100", "-c", "1", "-w", "5"], 0)?;
    code(&["ping", "10.77.0.222", "-c", "1", "-w", "1"], 1)
}
