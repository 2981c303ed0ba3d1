//! 65,536 addresses as one resource: created, listed, moved, failed over and removed (rows DP-8, IP-17).

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use vipd_tests::{
    capture::Capture,
    lab::{Lab, Options},
    prober::{Prober, Targets},
    timeline::Moment,
};

use crate::{Test, scene::options};

pub const TESTS: &[(&str, Test)] = &[
    ("density::all_of_a_16_move_and_fail_over", all_of_a_16_move_and_fail_over),
    ("density::thousands_of_ipv6_addresses_move", thousands_of_ipv6_addresses_move),
];

/// Adding routes, probing and announcing take seconds when both cores are busy.
const PATIENCE: Duration = Duration::from_secs(90);
const TAG: &str = "all";

struct Scene {
    _prober: Prober,
    capture: Capture,
    lab: Lab,
    sample: Vec<IpAddr>,
}

impl Scene {
    /// A client that asks for 500 addresses drawn at random, the first and the last among them.
    fn new(addresses: &[IpAddr]) -> Result<Self> {
        let lab = Lab::new(&Options { hosts: 3, ..options() })?;
        lab.add_wide_subnet()?;
        let mut sample: BTreeSet<usize> = [0, addresses.len() - 1].into();
        let mut random = u64::from(std::process::id());
        while sample.len() < 500 {
            // Knuth's linear congruential generator: any spread will do.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sample.insert((random >> 33) as usize % addresses.len());
        }
        let sample: Vec<IpAddr> = sample.into_iter().map(|n| addresses[n]).collect();
        let capture = lab.capture(&sample)?;
        let targets = Targets { addresses: sample.clone(), interval: Duration::from_millis(50) };
        let prober = lab.prober(vec![targets])?;
        lab.form_cluster()?;
        Ok(Self { _prober: prober, capture, lab, sample })
    }

    /// Until every address of the sample was answered by the host after that moment.
    fn wait_answers(&self, host: usize, after: Moment) -> Result<()> {
        let mac = self.lab.host(host).mac();
        self.lab.wait(PATIENCE, "all addresses of the sample answer", || {
            self.capture.look(|timeline| {
                let later = timeline.records.iter().rev().take_while(|r| r.time > after);
                let seen: BTreeSet<IpAddr> =
                    later.filter(|r| r.mac == mac && r.kind.is_answer()).map(|r| r.address).collect();
                ensure!(seen.len() == self.sample.len(), "{} of {} do", seen.len(), self.sample.len());
                Ok(())
            })
        })
    }

    fn check_terms(&self, owners: &[usize]) -> Result<()> {
        let terms: Vec<_> = owners.iter().map(|index| self.lab.host(*index).mac()).collect();
        for address in &self.sample {
            let outside = self.capture.look(|timeline| timeline.outside_terms(*address, &terms));
            ensure!(outside.is_empty(), "{address}: {} double answers: {:?}", outside.len(), outside.first());
        }
        Ok(())
    }

    /// Moved by an operator, then by the owner's death, then out of service: nothing is left.
    fn live(&self, count: u64) -> Result<()> {
        let lab = &self.lab;
        lab.wait(PATIENCE, "it is in service", || lab.check_in_service(TAG, 0, 0))?;
        self.wait_answers(0, Moment::default())?;
        let shown = lab.resource(1, TAG)?;
        ensure!(shown.addresses == count, "{} addresses are listed", shown.addresses);
        ensure!(shown.accept != vipd::model::Accept::Assign, "the quadratic way was taken by default");

        let moved = Moment::now();
        lab.host(2).vipctl(&["in-service", TAG, "--on", lab.host(1).name()])?.done()?;
        self.wait_answers(1, moved)?;

        let killed = lab.host(1).sigkill()?;
        lab.wait(PATIENCE, "a survivor takes over", || {
            let owner = lab.owner(2, TAG)?;
            ensure!(owner != 1, "still the dead one's");
            lab.check_in_service(TAG, owner, 2)
        })?;
        let heir = lab.owner(2, TAG)?;
        self.wait_answers(heir, killed)?;
        self.check_terms(&[0, 1, heir])?;

        lab.host(2).vipctl(&["delete", TAG])?.done()?;
        for host in [0, 2] {
            for family in ["-4", "-6"] {
                let mut ip = lab.host(host).command("ip")?;
                ip.args([family, "route", "show", "table", "all", "proto", "118"]);
                let left = ip.output().context("cannot run ip")?.stdout;
                ensure!(left.is_empty(), "routes are left:\n{}", String::from_utf8_lossy(&left));
            }
        }
        Ok(())
    }
}

fn all_of_a_16_move_and_fail_over() -> Result<()> {
    let addresses = Lab::wide_addresses(65_536);
    let scene = Scene::new(&addresses)?;
    let range = format!("{}-{}/15", addresses[0], addresses[65_535]);
    let create = ["create", "ip", &range, "--dev", "eth0", "--tag", TAG, "--extend-to", "all"];
    scene.lab.host(0).vipctl(&create)?.done().map_err(|e| scene.lab.explain(e))?;
    scene.live(65_536)
}

fn thousands_of_ipv6_addresses_move() -> Result<()> {
    let first = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 1, 0);
    let address = |n: u16| IpAddr::from(Ipv6Addr::from(u128::from(first) + u128::from(n)));
    let addresses: Vec<IpAddr> = (0..4096).map(address).collect();
    let scene = Scene::new(&addresses)?;
    let range = format!("{}-{}/64", addresses[0], addresses[4095]);
    let create = ["create", "ip", &range, "--dev", "eth0", "--tag", TAG, "--extend-to", "all"];
    scene.lab.host(0).vipctl(&create)?.done().map_err(|e| scene.lab.explain(e))?;
    scene.live(4_096)
}
