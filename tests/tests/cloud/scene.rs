//! What most tests of resources in EC2 begin with: a cluster of instances with an address that is in no subnet, and
//! routes to it that lead to somebody else.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, ensure};
use vipd::api::CloudStatus;
use vipd_tests::{
    cloud::{Call, Cloud, CloudLab, Plan, Snapshot},
    lab::{Lab, Options, PATIENCE},
};

/// Outside of the VPC's blocks.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 5);
pub const IP: &str = "web";
pub const ALL: &str = r#"{"Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}]}"#;
/// As `create ec2-route` names it.
pub const ROUTE: &str = "ec2-web";

/// Broadcasts do not get from one zone to another. Short waits where the defaults are for people.
pub const TUNABLES: &str = "NOBCASTPING=1\nIP_QUICKCHECK_INTERVAL=1\nEC2_QUICKCHECK_INTERVAL=2\n\
                            EC2_CALL_TIMEOUT=2\nEC2_MAX_RETRY=2\nEC2_QUICKCHECK_TIMEOUT=20\n";

pub struct Served {
    pub instances: CloudLab,
    /// Of all routes, before any of them was turned.
    pub before: Snapshot,
}

pub fn options() -> Options {
    Options { tunables: TUNABLES.into(), ..Options::default() }
}

/// `10.9.0.5/32`
pub fn destination() -> String {
    format!("{VIP}/32")
}

impl Served {
    /// A cluster without resources; the routes to [`VIP`] lead to a stranger.
    pub fn empty(options: &Options, plan: &Plan) -> Result<Self> {
        let instances = CloudLab::new(options, plan, ALL)?;
        instances.world.add_vip(VIP, &instances.world.stranger.eni)?;
        instances.world.add_vip(Ipv4Addr::new(10, 9, 0, 6), &instances.world.stranger.eni)?;
        instances.lab.form_cluster()?;
        let before = instances.world.snapshot()?;
        Ok(Self { instances, before })
    }

    /// With the address and its routes in service on the first host, all others as successors in their order.
    pub fn routes() -> Result<Self> {
        Self::routes_with(&options(), &Plan::default())
    }

    pub fn routes_with(options: &Options, plan: &Plan) -> Result<Self> {
        let served = Self::empty(options, plan)?;
        served.create_ip(&format!("{VIP}/32"))?;
        served.order(0, &["create", "ec2-route", "--ip", IP])?;
        served.wait_routes(0)?;
        served.wait_in_service(ROUTE, 0)?;
        Ok(served)
    }

    pub fn create_ip(&self, addresses: &str) -> Result<()> {
        self.order(0, &["create", "ip", addresses, "--dev", "eth0", "--tag", IP, "--extend-to", "all"])?;
        self.wait_in_service(IP, 0)
    }

    pub fn lab(&self) -> &Lab {
        &self.instances.lab
    }

    pub fn cloud(&self) -> &Cloud {
        &self.instances.cloud
    }

    /// What vipctl says when it does it.
    pub fn order(&self, on: usize, arguments: &[&str]) -> Result<String> {
        let answer = self.lab().host(on).vipctl(arguments)?;
        Ok(answer.done().map_err(|e| self.lab().explain(e))?.stdout)
    }

    pub fn wait_in_service(&self, tag: &str, on: usize) -> Result<()> {
        self.lab().wait_in_service(tag, on)
    }

    /// Until every route to the address leads to the host; answers how long that took.
    pub fn wait_routes(&self, host: usize) -> Result<()> {
        let what = format!("all routes lead to {}", self.lab().host(host).name());
        self.lab().wait(PATIENCE, &what, || self.check_routes(host))
    }

    pub fn check_routes(&self, host: usize) -> Result<()> {
        let (world, now) = (&self.instances.world, self.instances.world.snapshot()?);
        for table in &world.tables {
            let target = now.target(table, &destination());
            ensure!(target.as_deref() == Some(&*world.nodes[host].eni), "{table} leads to {target:?}");
        }
        Ok(())
    }

    /// All other routes of all tables are what they were.
    pub fn check_others_untouched(&self) -> Result<()> {
        let (world, now) = (&self.instances.world, self.instances.world.snapshot()?);
        let rest = |all: &Snapshot| all.except(&world.tables, &[destination()]);
        ensure!(!rest(&self.before).is_empty());
        ensure!(rest(&now) == rest(&self.before), "{now:?}\nwas\n{:?}", self.before);
        Ok(())
    }

    /// As [`Served::check_others_untouched`], where these destinations are ours.
    pub fn check_others_but(&self, ours: &[String]) -> Result<()> {
        let (world, now) = (&self.instances.world, self.instances.world.snapshot()?);
        let rest = |all: &Snapshot| all.except(&world.tables, ours);
        ensure!(rest(&now) == rest(&self.before), "{now:?}\nwas\n{:?}", self.before);
        Ok(())
    }

    /// Until something that takes as long as EC2 is unwilling.
    pub fn wait_long(&self, what: &str, look: impl FnMut() -> Result<()>) -> Result<()> {
        self.lab().wait(3 * PATIENCE, what, look)
    }

    /// What the host itself knows of the resource's state in EC2.
    pub fn known(&self, host: usize, tag: &str) -> Result<CloudStatus> {
        self.lab().resource(host, tag)?.cloud.with_context(|| format!("nothing is known of {tag}"))
    }

    pub fn epoch(&self, seen_by: usize, tag: &str) -> Result<u64> {
        Ok(self.lab().resource(seen_by, tag)?.epoch)
    }

    /// Events of that kind of the host.
    pub fn events(&self, host: usize, kind: &str) -> Result<Vec<String>> {
        let all = self.lab().host(host).events()?;
        Ok(all.into_iter().filter(|e| e.kind == kind).map(|e| e.message).collect())
    }

    /// Until the host has told of it.
    pub fn wait_event(&self, host: usize, kind: &str, part: &str) -> Result<String> {
        self.lab().wait(PATIENCE, &format!("{kind} on {}", self.lab().host(host).name()), || {
            let all = self.events(host, kind)?;
            all.iter().find(|m| m.contains(part)).cloned().with_context(|| format!("there are {all:?}"))
        })
    }

    /// The host's calls of that action since the mark.
    pub fn calls(&self, host: usize, action: &str, mark: usize) -> Vec<Call> {
        let from = Cloud::address(host);
        let mut calls = self.cloud().proxy.calls_since(mark);
        calls.retain(|c| c.client == from && c.action == action && !c.is_dry_run());
        calls
    }

    /// Until the host has made so many calls of that action since the mark.
    pub fn wait_calls(&self, host: usize, action: &str, mark: usize, count: usize) -> Result<()> {
        self.lab().wait(PATIENCE, &format!("{count} calls of {action}"), || {
            let made = self.calls(host, action, mark).len();
            ensure!(made >= count, "{made} were made");
            Ok(())
        })
    }
}

/// What an operator feels: no order may take as long as EC2 is silent.
pub const PROMPT: Duration = Duration::from_secs(10);
