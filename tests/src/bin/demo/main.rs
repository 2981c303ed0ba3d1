//! The main job, live: three hosts hold 202 addresses for a client. The owner is killed, frozen and cut
//! off, one after another; each time another host answers a moment later, and never two at once.

mod fault;
mod screen;

use std::{
    net::IpAddr,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use vipd_tests::{
    interrupt,
    lab::{self, Lab, NewIp, Options},
    prober::Targets,
    table::Table,
};

use fault::{Fault, Outcome};
use screen::{Ink, Screen};

/// The two addresses that are watched closely.
const WEB: (&str, &str) = ("web", "10.77.0.50/24");
const WEB6: (&str, &str) = ("web6", "fd77::50/64");
/// Further addresses, half IPv4 and half IPv6.
const MORE: u8 = 200;

fn main() -> ExitCode {
    let screen = Screen::new();
    match run(&screen) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(_) if interrupt::check().is_err() => {
            eprintln!("\n  interrupted; everything is cleaned up");
            // As shells report an end by SIGINT.
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("\n{} {error:#}", screen.ink(Ink::Bad, "the demo failed:"));
            ExitCode::FAILURE
        }
    }
}

/// Whether every fault was failed over without a double answer.
fn run(screen: &Screen) -> Result<bool> {
    interrupt::install()?;
    lab::sweep();
    let started = Instant::now();
    let stage = Stage::build(screen)?;
    stage.show_client(screen)?;

    let addresses = stage.addresses();
    let capture = stage.lab.capture(&addresses)?;
    let close = addresses[..2].to_vec();
    let targets = vec![
        Targets { addresses: close, interval: Duration::from_millis(5) },
        Targets { addresses: addresses.clone(), interval: Duration::from_millis(250) },
    ];
    let _prober = stage.lab.prober(targets)?;

    let mut outcomes = Vec::new();
    for (number, fault) in Fault::ALL.into_iter().enumerate() {
        screen.heading(&format!("Fault {} of {}: {}", number + 1, Fault::ALL.len(), fault.title()));
        outcomes.push(fault.inflict(screen, &stage, &capture)?);
    }
    let good = summary(screen, &outcomes, addresses.len(), started.elapsed());
    drop(capture);
    Ok(good)
}

/// The cluster and its resources.
pub struct Stage {
    pub lab: Lab,
    /// (tag, address); the two that are watched closely come first.
    pub resources: Vec<(String, IpAddr)>,
}

impl Stage {
    fn build(screen: &Screen) -> Result<Self> {
        screen.heading("Three hosts, a bridge, a client");
        println!(
            "  {}",
            [
                "host1  10.77.0.1   fd77::1 ──┐",
                "host2  10.77.0.2   fd77::2 ──┼── br0 ──── client  10.77.0.100   fd77::100",
                "host3  10.77.0.3   fd77::3 ──┘",
            ]
            .join("\n  ")
        );
        println!();
        let begin = Instant::now();
        let lab = Lab::new(&Options::default())?;
        screen.done("five network namespaces, four cables", begin.elapsed());

        let begin = Instant::now();
        lab.form_cluster()?;
        screen.done("three daemons: host1 founded a cluster, host2 and host3 joined it", begin.elapsed());

        let begin = Instant::now();
        for (tag, address) in [WEB, WEB6] {
            lab.create_ip(&NewIp { address, tag, on: 0, extend_to: &[1, 2] })?;
        }
        screen.done("10.77.0.50 and fd77::50 are in service on host1", begin.elapsed());

        let begin = Instant::now();
        let more: Vec<(String, String)> = (0..MORE / 2)
            .flat_map(|n| {
                let v4 = (format!("v4-{n}"), format!("10.77.0.{}/24", 150 + n));
                [v4, (format!("v6-{n}"), format!("fd77::1:{n:x}/64"))]
            })
            .collect();
        lab.create_many(0, &more)?;
        screen.done(&format!("{MORE} more addresses are in service on host1"), begin.elapsed());

        let first = [WEB, WEB6].map(|(tag, address)| (tag.to_owned(), address.to_owned()));
        let resources = first
            .into_iter()
            .chain(more)
            .map(|(tag, net)| {
                let address = net.split('/').next().unwrap_or(&net).parse();
                Ok((tag, address.with_context(|| format!("{net} is no address"))?))
            })
            .collect::<Result<_>>()?;
        Ok(Self { lab, resources })
    }

    pub fn addresses(&self) -> Vec<IpAddr> {
        self.resources.iter().map(|(_, address)| *address).collect()
    }

    /// The ordinary tools on the client, and the cluster's own view.
    fn show_client(&self, screen: &Screen) -> Result<()> {
        screen.heading("What a client sees");
        for command in [
            "arping -c 2 -I eth0 10.77.0.50",
            "ping -n -c 3 -i 0.2 10.77.0.50",
            "ndisc6 -1 -w 3000 fd77::50 eth0",
            "ping -n -c 3 -i 0.2 fd77::50",
        ] {
            let mut words = command.split_whitespace();
            let program = words.next().unwrap_or_default();
            let output = self.lab.segment.client().command(program).args(words).output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            screen.transcript("client $", command, &text);
            interrupt::check()?;
            ensure!(
                output.status.success(),
                "`{command}` failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        screen.heading("What the cluster says");
        let status = self.lab.host(0).vipctl(&["status"])?.done()?;
        screen.transcript("host1 #", "vipctl status", &shorten(&status.stdout));
        Ok(())
    }
}

/// Leaves out most of the many addresses that look alike.
fn shorten(status: &str) -> String {
    const SHOWN: usize = 2;
    let (mut kept, mut alike) = (Vec::new(), 0);
    for line in status.lines() {
        let word = line.split_whitespace().next().unwrap_or_default();
        if word.starts_with("v4-") || word.starts_with("v6-") {
            alike += 1;
            if alike > SHOWN {
                continue;
            }
        }
        kept.push(line);
    }
    let hidden = alike.saturating_sub(SHOWN);
    let mut text = kept.join("\n");
    if hidden > 0 {
        text.push_str(&format!("\n({hidden} more addresses like v4-0 and v6-0 are left out here)"));
    }
    text
}

fn summary(screen: &Screen, outcomes: &[Outcome], addresses: usize, took: Duration) -> bool {
    screen.heading("Summary");
    let mut table = Table::new(&[
        "fault",
        "from → to",
        "old owner silent",
        "first answer",
        "all answered",
        "double answers",
    ]);
    let ms = |d: Option<Duration>| d.map_or("–".to_owned(), |d| format!("{:.0} ms", d.as_secs_f64() * 1e3));
    for outcome in outcomes {
        table.row([
            outcome.fault.short().to_owned(),
            format!("{} → {}", outcome.from, outcome.to),
            ms(outcome.last_old),
            ms(Some(outcome.first_new)),
            ms(Some(outcome.all_new)),
            outcome.double_answers.to_string(),
        ]);
    }
    println!("{table}");
    let double: usize = outcomes.iter().map(|o| o.double_answers).sum();
    let frames: usize = outcomes.iter().map(|o| o.frames).sum();
    println!();
    screen.say(&format!(
        "{addresses} addresses, {} faults, {frames} answers seen by the client in {:.0} s.",
        outcomes.len(),
        took.as_secs_f64()
    ));
    if double == 0 {
        let line = "✔ every fault was failed over, and at no instant did two hosts answer for one address";
        screen.say(&screen.ink(Ink::Good, line));
    } else {
        screen.say(&screen.ink(Ink::Bad, &format!("✘ {double} frames were answered by two hosts")));
    }
    println!();
    double == 0
}
