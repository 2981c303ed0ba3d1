//! What most tests begin and end with: a cluster that holds two addresses, and a client that listens.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use vipd::config::{Profile, Timing};
use vipd_tests::{
    capture::Capture,
    frames::Mac,
    lab::{Lab, NewIp, Options},
    prober::{Prober, Targets},
    timeline::{Moment, Record},
};

pub const V4: &str = "10.77.0.50/24";
pub const V6: &str = "fd77::50/64";
pub const TAGS: [&str; 2] = ["web", "web6"];

/// Short waits where the defaults are for people; nothing that decides a failover.
pub const TUNABLES: &str =
    "IP_QUICKCHECK_INTERVAL=1\nIP_WAIT_LINKDOWN=1\nIP_MAX_LINKCHK=3\nIP_PINGTIME=0.3\n";

/// Between the kernel's decision to answer and the stamp on the frame at the client, on a machine whose
/// cores are taken.
const ON_THE_WAY: Duration = Duration::from_millis(150);

pub struct Scene {
    // The prober and the capture end before the network below them.
    _prober: Prober,
    pub capture: Capture,
    pub lab: Lab,
    timing: Timing,
}

pub fn addresses() -> Vec<IpAddr> {
    [V4, V6].iter().filter_map(|net| net.split('/').next()?.parse().ok()).collect()
}

pub fn options() -> Options {
    Options { tunables: TUNABLES.into(), ..Options::default() }
}

impl Scene {
    /// A cluster with both addresses in service on the host `on`, and all others as its successors in
    /// their order.
    pub fn new(options: &Options, on: usize) -> Result<Self> {
        let others: Vec<usize> =
            (0..options.hosts).filter(|i| *i != on && options.witness != Some(*i)).collect();
        let scene = Self::empty(options)?;
        for (tag, address) in TAGS.into_iter().zip([V4, V6]) {
            scene.lab.create_ip(&NewIp { address, tag, on, extend_to: &others })?;
        }
        scene.wait_answers(on, Moment::default())?;
        Ok(scene)
    }

    /// A cluster without resources, and a client that asks for both addresses.
    pub fn empty(options: &Options) -> Result<Self> {
        Self::empty_of(options, options.hosts)
    }

    /// As [`Scene::empty`], with the first `members` of the hosts; the others are not started.
    pub fn empty_of(options: &Options, members: usize) -> Result<Self> {
        let lab = Lab::new(options)?;
        let capture = lab.capture(&addresses())?;
        let targets = Targets { addresses: addresses(), interval: Duration::from_millis(5) };
        let prober = lab.prober(vec![targets])?;
        lab.form_cluster_of(members)?;
        let profile = if options.profile == "fast" { Profile::Fast } else { Profile::Default };
        Ok(Self { _prober: prober, capture, lab, timing: profile.timing() })
    }

    pub fn lease(&self) -> Duration {
        self.timing.lease
    }

    /// Until both addresses were answered by the host after that moment; answers when the later was.
    pub fn wait_answers(&self, host: usize, after: Moment) -> Result<Moment> {
        let wait = |address| self.lab.wait_answer(&self.capture, address, host, after);
        Ok(addresses().into_iter().map(wait).collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(after))
    }

    /// Until both are in service on the host, as `seen_by` sees it.
    pub fn wait_in_service(&self, on: usize, seen_by: usize) -> Result<()> {
        self.lab.wait(vipd_tests::lab::PATIENCE, "both addresses are in service", || {
            TAGS.into_iter().try_for_each(|tag| self.lab.check_in_service(tag, on, seen_by))
        })
    }

    /// The host used neither address later than its lease allows after `lost`, the moment from which
    /// it could not renew it.
    pub fn check_silent_within_lease(&self, host: usize, lost: Moment) -> Result<()> {
        let mac = self.lab.host(host).mac();
        for address in addresses() {
            let last = self.capture.look(|timeline| timeline.last_use(address, mac));
            let Some(last) = last else { continue };
            let late = last.time.since(lost);
            ensure!(
                late <= self.lease() + ON_THE_WAY,
                "{address} was used by the deposed host {late:?} after it could not renew its lease: {last:?}"
            );
        }
        Ok(())
    }

    /// The safety rule: `owners` are the hosts that owned the addresses, one after another.
    pub fn check_terms(&self, owners: &[usize]) -> Result<()> {
        let terms: Vec<Mac> = owners.iter().map(|index| self.lab.host(*index).mac()).collect();
        for address in addresses() {
            let outside: Vec<Record> = self.capture.look(|timeline| timeline.outside_terms(address, &terms));
            let users = self.capture.look(|timeline| timeline.users(address));
            if !outside.is_empty() {
                let error = anyhow::anyhow!(
                    "{} frames for {address} outside the terms of hosts {owners:?}; used by {users:?}; the first: {:?}",
                    outside.len(),
                    outside.first()
                );
                return Err(self.lab.explain(error));
            }
        }
        Ok(())
    }

    /// Nobody uses either address while this many milliseconds pass, from now on.
    pub fn check_quiet(&self, milliseconds: u64) -> Result<()> {
        let from = Moment::now();
        // Not a wait for something to happen, but the time in which nothing may.
        std::thread::sleep(Duration::from_millis(milliseconds));
        let seen = self.capture.timeline().between(from, Moment(u64::MAX)).records;
        ensure!(
            seen.is_empty(),
            "{} frames where silence was due, the first: {:?}",
            seen.len(),
            seen.first()
        );
        Ok(())
    }
}
