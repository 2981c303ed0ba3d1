//! The lab proves itself: with plain kernel addresses instead of a daemon, it must see every answer,
//! every double answer, and every fault it makes.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use vipd_tests::{
    capture::Capture,
    lab::{Lab, Options, PATIENCE, wait_until},
    netns,
    prober::Targets,
    timeline::Moment,
};

const VIPS: [&str; 2] = ["10.77.0.50", "fd77::50"];

fn vips() -> Vec<IpAddr> {
    VIPS.iter().map(|vip| vip.parse().unwrap()).collect()
}

fn add(lab: &Lab, host: usize) -> Result<()> {
    lab.segment.host(host).ip(&format!("addr add {}/24 dev eth0", VIPS[0]))?;
    lab.segment.host(host).ip(&format!("addr add {}/64 dev eth0 nodad", VIPS[1]))?;
    Ok(())
}

fn answers_of(capture: &Capture, lab: &Lab, host: usize, after: Moment) -> Result<()> {
    wait_until(PATIENCE, "answers", || {
        capture.look(|timeline| {
            for vip in vips() {
                let mac = lab.host(host).mac();
                let seen = timeline.of(vip).any(|r| r.time > after && r.mac == mac && r.kind.is_answer());
                ensure!(seen, "none for {vip} from {mac}");
            }
            Ok(())
        })
    })
}

fn silent(capture: &Capture, after: Moment) -> Result<()> {
    let seen = capture.timeline().between(after, Moment(u64::MAX)).records;
    ensure!(seen.is_empty(), "{seen:?}");
    Ok(())
}

#[test]
fn answers_double_answers_and_cut_links_are_seen() -> Result<()> {
    let lab = Lab::new(&Options::default())?;
    let capture = lab.capture(&vips())?;
    let _prober = lab.prober(vec![Targets { addresses: vips(), interval: Duration::from_millis(5) }])?;
    add(&lab, 0)?;
    answers_of(&capture, &lab, 0, Moment::default())?;
    let terms = [lab.host(0).mac(), lab.host(1).mac()];
    let outside = |vip| capture.timeline().outside_terms(vip, &terms).len();
    ensure!(vips().into_iter().map(outside).sum::<usize>() == 0, "nobody else answered");

    // A second host that answers as well: exactly what must never be.
    add(&lab, 1)?;
    let now = Moment::now();
    answers_of(&capture, &lab, 1, now)?;
    answers_of(&capture, &lab, 0, Moment::now())?;
    for vip in vips() {
        ensure!(outside(vip) > 0, "the double answer for {vip} was not seen");
    }

    lab.segment.cut(1)?;
    lab.segment.cut(0)?;
    // What was under way when the links were cut may still arrive; after that there is silence.
    let quiet = wait_until(PATIENCE, "silence", || {
        let since = Moment::now();
        std::thread::sleep(Duration::from_millis(50));
        silent(&capture, since)?;
        Ok(since)
    })?;
    lab.segment.mend(0)?;
    answers_of(&capture, &lab, 0, quiet)
}

#[test]
fn partitions_are_one_way_or_both_and_leave_the_client_alone() -> Result<()> {
    let lab = Lab::new(&Options { paths: 2, ..Options::default() })?;
    let ping = |from: usize, to: usize, path: usize| {
        let to = lab.segment.address(to, path).to_string();
        let mut ping = lab.segment.host(from).command("ping");
        netns::run(ping.args(["-c", "1", "-W", "1", "-n", &to])).map(drop)
    };
    for path in 0..2 {
        ping(0, 1, path)?;
        ping(1, 2, path)?;
    }
    lab.segment.partition(0, 1)?;
    for path in 0..2 {
        ensure!(ping(0, 1, path).is_err() && ping(1, 0, path).is_err(), "path {path} is not partitioned");
        ping(1, 2, path)?;
    }
    lab.segment.heal()?;
    ping(0, 1, 0)?;
    // One way: the questions arrive, the answers do not.
    lab.segment.block(1, 0)?;
    ensure!(ping(0, 1, 0).is_err(), "not blocked");
    let counted = lab.segment.host(1).ip("-s link show eth0").context("counters")?;
    ensure!(counted.contains("RX"), "{counted}");
    lab.segment.isolate(2)?;
    ensure!(ping(2, 1, 0).is_err() && ping(2, 0, 0).is_err(), "not isolated");
    let client = lab.segment.client();
    netns::run(client.command("ping").args(["-c", "1", "-W", "2", "-n", "10.77.0.3"])).map(drop)
}

#[test]
fn the_second_family_of_a_stranger_is_seen_too() -> Result<()> {
    let lab = Lab::new(&Options { hosts: 1, ..Options::default() })?;
    let capture = lab.capture(&vips())?;
    add(&lab, 0)?;
    // The ordinary tools, as the demo uses them.
    let client = lab.segment.client();
    netns::run(client.command("arping").args(["-c", "1", "-w", "3", "-I", "eth0", VIPS[0]]))?;
    netns::run(client.command("ndisc6").args(["-1", "-w", "3000", VIPS[1], "eth0"]))?;
    netns::run(client.command("ping").args(["-c", "1", "-W", "3", VIPS[1]]))?;
    answers_of(&capture, &lab, 0, Moment::default())
}
