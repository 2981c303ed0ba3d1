//! Ping lists and broadcast pings, on networks that answer and on networks that do not (row IP-10).

use anyhow::{Result, ensure};
use vipd_tests::{
    lab::{Lab, NewIp, Options, PATIENCE},
    timeline::Moment,
};

use crate::{
    Test,
    scene::{Scene, TUNABLES, V4, V6, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("connectivity::the_whole_matrix_ipv4", the_whole_matrix_ipv4),
    ("connectivity::the_whole_matrix_ipv6", the_whole_matrix_ipv6),
    ("connectivity::on_a_silent_network", on_a_silent_network),
    ("connectivity::peers_answer_broadcast_pings", peers_answer_broadcast_pings),
    ("connectivity::a_lost_target_moves_the_address", a_lost_target_moves_the_address),
];

const SUBNET: &str = "10.77.0.0/24";

/// What one family needs for the matrix: the client's kernel is the subnet's only other host.
struct Family {
    vip: &'static str,
    subnet: &'static str,
    /// The client answers it.
    answering: &'static str,
    /// Nobody has it.
    silent: &'static str,
    /// 1: the client ignores pings to everybody.
    ignore: &'static str,
}

const IPV4: Family = Family {
    vip: V4,
    subnet: SUBNET,
    answering: "10.77.0.100",
    silent: "10.77.0.222",
    ignore: "ipv4/icmp_echo_ignore_broadcasts",
};

const IPV6: Family = Family {
    vip: V6,
    subnet: "fd77::/64",
    answering: "fd77::100",
    silent: "fd77::222",
    ignore: "ipv6/icmp/echo_ignore_multicast",
};

fn the_whole_matrix_ipv4() -> Result<()> {
    the_whole_matrix(&IPV4)
}

fn the_whole_matrix_ipv6() -> Result<()> {
    the_whole_matrix(&IPV6)
}

/// (ping list none, answering, silent) x (broadcast answering, silent) x (NOBCASTPING 0, 1), to the letter.
fn the_whole_matrix(family: &Family) -> Result<()> {
    let lab = Lab::new(&Options { hosts: 1, ..options() })?;
    lab.form_cluster()?;
    let (host, client) = (lab.host(0), lab.segment.client());
    // Not in service yet: whether it can be is the question.
    host.set_tunables(&format!("{TUNABLES}NOBCASTPING=1\n"))?;
    host.vipctl(&["create", "ip", family.vip, "--dev", "eth0", "--tag", "web"])?.done()?;
    host.vipctl(&["out-of-service", "web"])?.done()?;
    let mut case_number = 0;
    for (list, list_answers) in [(None, false), (Some(family.answering), true), (Some(family.silent), false)]
    {
        if let Some(target) = list {
            host.vipctl(&["ping-list", "add", family.subnet, target])?.done()?;
        }
        for (broadcast_answers, ignore) in [(true, "0"), (false, "1")] {
            client.sysctl(family.ignore, ignore)?;
            for no_broadcast in [false, true] {
                // An answer to the same question counts for a second: each case asks with a patience of its own.
                case_number += 1;
                let tunables = format!(
                    "{TUNABLES}IP_PINGTRIES=2\nIP_PINGTIME=0.3{case_number:02}\nNOBCASTPING={}\n",
                    u8::from(no_broadcast)
                );
                host.set_tunables(&tunables)?;
                let expected = match list {
                    Some(_) if list_answers => true,
                    Some(_) => !no_broadcast && broadcast_answers,
                    None => no_broadcast || broadcast_answers,
                };
                let answer = host.vipctl(&["in-service", "web"])?;
                let case =
                    format!("ping list {list:?}, broadcast ignored {ignore}, NOBCASTPING {no_broadcast}");
                ensure!(answer.status.success() == expected, "{case}: {answer:?}");
                let said = lab.resource(0, "web")?.state;
                ensure!(said == if expected { "ISP" } else { "OSF" }, "{case}: {said}");
                host.vipctl(&["out-of-service", "web"])?.done()?;
            }
        }
        if let Some(target) = list {
            host.vipctl(&["ping-list", "remove", family.subnet, target])?.done()?;
        }
    }
    Ok(())
}

/// One host alone: the client's kernel ignores broadcast pings, as kernels do.
fn on_a_silent_network() -> Result<()> {
    let lab = Lab::new(&Options { hosts: 1, ..options() })?;
    lab.form_cluster()?;
    let host = lab.host(0);
    let create = ["create", "ip", V4, "--dev", "eth0", "--tag", "web"];
    let start = |expected: bool, why: &str| -> Result<()> {
        let answer = host.vipctl(&["in-service", "web"])?;
        ensure!(answer.status.success() == expected, "{why}: {answer:?}");
        let state = if expected { "ISP" } else { "OSF" };
        lab.wait(PATIENCE, why, || {
            let now = lab.resource(0, "web")?.state;
            ensure!(now == state, "the state is {now}, not {state}");
            ensure!(host.has_address("10.77.0.50")? == expected, "the address is not as the state says");
            Ok(())
        })?;
        if expected {
            host.vipctl(&["out-of-service", "web"])?.done()?;
        }
        Ok(())
    };

    let answer = host.vipctl(&create)?;
    ensure!(answer.code() == 1, "nobody answers, so it must not come in service: {answer:?}");
    start(false, "a broadcast ping that nobody answers is a failure")?;
    host.vipctl(&["ping-list", "add", SUBNET, "10.77.0.222", "10.77.0.100"])?.done()?;
    start(true, "one answer of the ping list suffices")?;
    host.vipctl(&["ping-list", "remove", SUBNET, "10.77.0.100"])?.done()?;
    start(false, "a silent ping list, and a silent broadcast ping after it, are a failure")?;
    host.set_tunables(&format!("{TUNABLES}NOBCASTPING=1\n"))?;
    start(false, "a silent ping list without a broadcast ping is a failure")?;
    host.vipctl(&["ping-list", "remove", SUBNET, "10.77.0.222"])?.done()?;
    start(true, "without a ping list and a broadcast ping nothing is tested")
}

/// Their kernels ignore broadcasts as well; it is their datapath that answers (row DP-4).
fn peers_answer_broadcast_pings() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let host = scene.lab.host(0);
    for (broadcast, source) in [("10.77.0.255", "10.77.0.1"), ("ff02::1", "fd77::1")] {
        host.vipctl(&["ping", broadcast, "-b", "-c", "2", "-w", "5", "-I", source])?.done()?;
    }
    scene.check_terms(&[0])
}

fn a_lost_target_moves_the_address() -> Result<()> {
    let tunables = format!("{TUNABLES}NOBCASTPING=1\nIP_PINGTRIES=2\n");
    let scene = Scene::empty(&Options { tunables, ..options() })?;
    let lab = &scene.lab;
    let client = lab.segment.client();
    client.ip("addr add 10.77.0.101/24 dev eth0")?;
    lab.host(0).vipctl(&["ping-list", "add", SUBNET, "10.77.0.101"])?.done()?;
    lab.host(1).vipctl(&["ping-list", "add", SUBNET, "10.77.0.100"])?.done()?;
    lab.create_ip(&NewIp { address: V4, tag: "web", on: 0, extend_to: &[1] })?;
    let shown = lab.host(2).vipctl(&["ping-list", "show", SUBNET, "--node", lab.host(0).name()])?.done()?;
    ensure!(shown.stdout.contains("10.77.0.101"), "the list is not shown: {shown:?}");

    let lost = Moment::now();
    client.ip("addr del 10.77.0.101/24 dev eth0")?;
    lab.wait(PATIENCE, "the address moves to the host whose target answers", || {
        lab.check_in_service("web", 1, 2)
    })?;
    lab.wait_answer(&scene.capture, "10.77.0.50".parse()?, 1, lost)?;
    let failed = lab.resource(2, "web")?;
    let there = failed.nodes.iter().find(|n| n.node == lab.host(0).name());
    ensure!(there.is_some_and(|n| n.state == "OSF" && n.reason.is_some()), "not marked: {failed:?}");
    scene.check_terms(&[0, 1])
}
