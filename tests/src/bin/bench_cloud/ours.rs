//! vipd itself: two instances and a witness, the addresses on one of the two until they are moved.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use vipd::api::Event;
use vipd_tests::{
    cloud::{Call, Cloud, CloudLab, Plan},
    lab::{Host, Lab, Options},
    stage::moment_of,
    timeline::Moment,
};

use super::{Arguments, Run, addresses, all, by_action, check_moved, last_write};

/// A thousand calls one after another take the server its time.
const PATIENCE: Duration = Duration::from_secs(180);
/// A move begins when nobody has asked anything for so long: between two of the checks that follow the last one.
const QUIET: Duration = Duration::from_millis(1500);
/// No check of what came in service begins sooner.
const FIRST_CHECK: Duration = Duration::from_secs(1);
/// Broadcasts do not get from one zone to another.
const TUNABLES: &str = "NOBCASTPING=1\n";
const POLICY: &str =
    r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}]}"#;
/// A set is within one subnet.
const PREFIX_LEN: u8 = 16;
const SET: &str = "vips";

/// How the addresses are given to vipd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An IP resource and its routes for each address.
    Each,
    /// One IP resource with all addresses, and one with their routes.
    Set,
}

impl Shape {
    pub const ALL: [Self; 2] = [Self::Each, Self::Set];

    pub fn name(self) -> &'static str {
        match self {
            Self::Each => "a resource each",
            Self::Set => "one set",
        }
    }
}

/// Why they move.
#[derive(Clone, Copy, Debug)]
pub enum Cause {
    /// Of the set's resource by `in-service --on`, of many by `node standby`.
    Order,
    Kill,
}

impl Cause {
    pub const ALL: [Self; 2] = [Self::Order, Self::Kill];

    pub fn name(self) -> &'static str {
        match self {
            Self::Order => "planned move",
            Self::Kill => "owner killed",
        }
    }
}

pub struct Cluster {
    instances: CloudLab,
    shape: Shape,
    vips: Vec<Ipv4Addr>,
    /// Of the resources that have the addresses.
    tags: Vec<String>,
}

/// As `create ec2-route` names it.
fn route_of(tag: &str) -> String {
    format!("ec2-{tag}")
}

impl Cluster {
    /// All in service on the first host.
    pub fn new(arguments: &Arguments, shape: Shape, count: usize) -> Result<Self> {
        let options = Options { witness: Some(2), tunables: TUNABLES.to_owned(), ..Options::default() };
        let plan = Plan { tables: arguments.tables, ..Plan::default() };
        let instances = CloudLab::new(&options, &plan, POLICY)?;
        let vips = addresses(count);
        let world = &instances.world;
        vips.iter().try_for_each(|vip| world.add_vip(*vip, &world.stranger.eni))?;
        instances.lab.form_cluster()?;
        let tags = match shape {
            Shape::Each => (0..count).map(|n| format!("vip-{n:03}")).collect(),
            Shape::Set => vec![SET.to_owned()],
        };
        let cluster = Self { instances, shape, vips, tags };
        cluster.create().map_err(|e| cluster.lab().explain(e))?;
        cluster.wait_all_on(0)?;
        cluster.instances.cloud.proxy.set_latency(Duration::from_millis(arguments.latency));
        Ok(cluster)
    }

    fn create(&self) -> Result<()> {
        let first = self.lab().host(0);
        let each = |vip: &Ipv4Addr| format!("{vip}/{PREFIX_LEN}");
        match (self.shape, &self.vips[..]) {
            (Shape::Set, [first, .., last]) => {
                self.lab().create_many(0, &[(SET.to_owned(), format!("{first}-{last}/{PREFIX_LEN}"))])?;
            }
            (Shape::Set | Shape::Each, vips) => {
                let pairs = self.tags.iter().cloned().zip(vips.iter().map(each));
                self.lab().create_many(0, &pairs.collect::<Vec<_>>())?;
            }
        }
        let route = |tag| move || order(first, &["create", "ec2-route", "--ip", tag, "--no-wait"]);
        all(self.tags.iter().map(|tag| route(tag.as_str())).collect())
    }

    fn lab(&self) -> &Lab {
        &self.instances.lab
    }

    /// One move to the other host.
    pub fn measure(&self, cause: Cause) -> Result<Run> {
        let from = self.owner()?;
        self.wait_quiet()?;
        let run = self.once(cause, from, 1 - from).map_err(|e| self.lab().explain(e))?;
        eprint!(".");
        Ok(run)
    }

    fn once(&self, cause: Cause, from: usize, to: usize) -> Result<Run> {
        let (former, next) = (self.lab().host(from), self.lab().host(to));
        let mark = self.instances.cloud.proxy.mark();
        let begun = match cause {
            Cause::Kill => former.sigkill()?,
            Cause::Order => {
                let begun = Moment::now();
                match self.shape {
                    Shape::Each => order(next, &["node", "standby", former.name()])?,
                    Shape::Set => order(next, &["in-service", &route_of(SET), "--on", next.name()])?,
                }
                begun
            }
        };
        self.wait_written(mark, to)?;
        self.wait_all_on(to)?;
        let calls = self.instances.cloud.proxy.calls_since(mark);
        let events = later(next, begun)?;
        check_moved(&self.instances.world, &self.vips, to)?;
        match (cause, self.shape) {
            (Cause::Kill, _) => former.start()?,
            (Cause::Order, Shape::Each) => order(next, &["node", "online", former.name()])?,
            // Where it is shall be no wish of the operator's when the next one to go is killed.
            (Cause::Order, Shape::Set) => order(next, &["clear", &route_of(SET)])?,
        }
        self.judge(begun, &calls, &events, to)
    }

    /// What of it was the move.
    fn judge(&self, begun: Moment, calls: &[Call], events: &[(Moment, Event)], to: usize) -> Result<Run> {
        let writers: BTreeSet<_> =
            calls.iter().filter(|c| c.is_effective_write()).map(|c| c.client).collect();
        ensure!(writers == [Cloud::address(to)].into(), "others wrote too: {writers:?}");
        let first = events.iter().find(|(_, e)| e.kind.starts_with("restore.")).context("nothing began")?.0;
        let mut in_service = BTreeMap::new();
        for (at, event) in events.iter().filter(|(_, e)| e.kind == "resource.in-service") {
            in_service.insert(event.tag.as_ref().map(ToString::to_string).unwrap_or_default(), *at);
        }
        let routes = self.tags.iter().map(|tag| route_of(tag));
        let routes =
            routes.map(|tag| in_service.get(&tag).copied().with_context(|| format!("no event of {tag}")));
        let routes: Vec<Moment> = routes.collect::<Result<_>>()?;
        // Each depends on an address, which is in service before.
        let done = routes.iter().max().copied().context("no routes")?;
        let first_in_service = routes.iter().min().copied().context("no routes")?;
        let of_move = |c: &&Call| c.client == Cloud::address(to) && c.at <= done;
        let calls: Vec<Call> = calls.iter().filter(of_move).cloned().collect();
        let perhaps_check =
            |c: &&Call| c.action.starts_with("Describe") && c.at.since(first_in_service) >= FIRST_CHECK;
        let ms = |at: Moment| at.since(begun).as_secs_f64() * 1e3;
        Ok(Run {
            begun_ms: ms(first),
            last_route_ms: ms(last_write(&calls)?),
            done_ms: ms(done),
            calls: calls.len(),
            calls_by_action: by_action(&calls),
            perhaps_checks: calls.iter().filter(perhaps_check).count(),
        })
    }

    /// Until the host has turned every route of every table.
    fn wait_written(&self, mark: usize, to: usize) -> Result<()> {
        let wanted = self.vips.len() * self.instances.world.tables.len();
        let from = Cloud::address(to);
        self.lab().wait(PATIENCE, "all routes are turned", || {
            let calls = self.instances.cloud.proxy.calls_since(mark);
            let written = calls.iter().filter(|c| c.client == from && c.is_effective_write()).count();
            ensure!(written >= wanted, "{written} of {wanted} are");
            Ok(())
        })
    }

    /// Until the host itself says that all resources are in service on it.
    fn wait_all_on(&self, on: usize) -> Result<()> {
        let host = self.lab().host(on);
        let wanted = 2 * self.tags.len();
        self.lab().wait(PATIENCE, &format!("all is in service on {}", host.name()), || {
            let status = host.status()?;
            let there = |r: &&_| is_on(r, host);
            let count = status.resources.iter().filter(there).count();
            ensure!(count == wanted, "{count} of {wanted} are");
            Ok(())
        })
    }

    /// The host that has all of them, once all hosts are as they shall be.
    fn owner(&self) -> Result<usize> {
        self.lab().wait_whole()?;
        let owner = self.lab().owner(0, &self.tags[0])?;
        self.wait_all_on(owner)?;
        Ok(owner)
    }

    fn wait_quiet(&self) -> Result<()> {
        self.lab().wait(PATIENCE, "nobody asks anything of EC2", || {
            let last = self.instances.cloud.proxy.calls().last().map_or(Moment::default(), |c| c.at);
            ensure!(Moment::now().since(last) >= QUIET, "somebody does");
            Ok(())
        })
    }
}

fn is_on(resource: &vipd::api::ResourceStatus, host: &Host) -> bool {
    resource.state == "ISP" && resource.owner.as_deref() == Some(host.name())
}

fn order(host: &Host, arguments: &[&str]) -> Result<()> {
    host.vipctl(arguments)?.done().map(drop)
}

/// The host's events since that moment.
fn later(host: &Host, begun: Moment) -> Result<Vec<(Moment, Event)>> {
    let mut later = Vec::new();
    for event in host.events()? {
        let at = moment_of(event.boot_ns)?;
        if at >= begun {
            later.push((at, event));
        }
    }
    Ok(later)
}
