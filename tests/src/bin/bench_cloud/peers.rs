//! The OCF agent and the AWS command line. As many of them run side by side as Pacemaker lets run on a node by
//! default: twice the number of cores.

use std::{net::Ipv4Addr, process::Command, time::Duration};

use anyhow::Result;
use vipd_tests::{
    cloud::{Cloud, Imds, Plan, REGION, World, tools},
    interrupt,
    netns::{NetNs, run, veth},
    timeline::Moment,
};

use super::{Arguments, Run, addresses, all, by_action, check_moved, last_write};

/// As on EC2, and unlike any interface of the machine's own: the agent looks into /sys first, which shows those.
const INTERFACE: &str = "ens5";
const MACS: [&str; 2] = ["02:00:00:77:00:01", "02:00:00:77:00:02"];
const POLICY: &str =
    r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}]}"#;

#[derive(Clone, Copy, Debug)]
pub enum Peer {
    Agent,
    CommandLine,
}

impl Peer {
    pub const ALL: [Self; 2] = [Self::Agent, Self::CommandLine];

    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "aws-vpc-move-ip",
            Self::CommandLine => "aws ec2 replace-route",
        }
    }
}

/// Two instances that addresses move between. Fields are dropped in this order.
pub struct Stage {
    _imds: Vec<Imds>,
    hosts: Vec<NetNs>,
    world: World,
    cloud: Cloud,
    vips: Vec<Ipv4Addr>,
}

impl Stage {
    pub fn new(arguments: &Arguments, count: usize) -> Result<Self> {
        let cloud = Cloud::start()?;
        let mut plan = Plan { tables: arguments.tables, ..Plan::default() };
        plan.nodes.truncate(2);
        let world = World::build(&cloud.moto, &plan)?;
        let vips = addresses(count);
        vips.iter().try_for_each(|vip| world.add_vip(*vip, &world.nodes[0].eni))?;
        let hosts = [NetNs::new("vipd-host1")?, NetNs::new("vipd-host2")?];
        veth(&hosts[0], INTERFACE, &hosts[1], INTERFACE)?;
        let role = cloud.moto.role("node", POLICY)?;
        let imds = hosts.iter().enumerate().map(|(index, host)| {
            host.ip(&format!("link set {INTERFACE} address {}", MACS[index]))?;
            cloud.connect(host, index)?;
            let mut identity = world.identity(&world.nodes[index], MACS[index]);
            identity.role = Some(("node".to_owned(), role.clone()));
            Imds::start(host, identity)
        });
        let _imds = imds.collect::<Result<_>>()?;
        cloud.proxy.set_latency(Duration::from_millis(arguments.latency));
        Ok(Self { _imds, hosts: hosts.into(), world, cloud, vips })
    }

    pub fn measure(&self, peer: Peer, to: usize) -> Result<Run> {
        let mark = self.cloud.proxy.mark();
        let begun = Moment::now();
        match peer {
            Peer::Agent => {
                let agents = self.vips.iter().map(|vip| move || self.agent(to, *vip));
                all(agents.collect())?;
            }
            Peer::CommandLine => {
                let pairs = self.vips.iter().flat_map(|vip| self.world.tables.iter().map(move |t| (vip, t)));
                all(pairs.map(|(vip, table)| move || self.replace(to, *vip, table)).collect())?;
            }
        }
        let done = Moment::now();
        check_moved(&self.world, &self.vips, to)?;
        let calls = self.cloud.proxy.calls_since(mark);
        let last = last_write(&calls)?;
        eprint!(".");
        let ms = |at: Moment| at.since(begun).as_secs_f64() * 1e3;
        Ok(Run {
            begun_ms: 0.0,
            last_route_ms: ms(last),
            done_ms: ms(done),
            calls: calls.len(),
            calls_by_action: by_action(&calls),
            perhaps_checks: 0,
        })
    }

    /// `start` on the new host, as a resource manager calls it.
    fn agent(&self, host: usize, vip: Ipv4Addr) -> Result<()> {
        let mut agent = self.hosts[host].command(tools::AGENT);
        self.cloud.environment(&mut agent);
        agent.arg("start").env("OCF_ROOT", "/usr/lib/ocf").env("OCF_RESOURCE_INSTANCE", format!("vip-{vip}"));
        agent.env("OCF_RESKEY_ip", vip.to_string()).env("OCF_RESKEY_interface", INTERFACE);
        agent.env("OCF_RESKEY_routing_table", self.world.tables.join(",")).env("OCF_RESKEY_region", REGION);
        agent.env("OCF_RESKEY_awscli", tools::program("aws")?);
        // moto names no instance at a route to an interface.
        agent.env("OCF_RESKEY_lookup_type", "NetworkInterfaceId");
        finish(&mut agent)
    }

    fn replace(&self, host: usize, vip: Ipv4Addr, table: &str) -> Result<()> {
        let mut aws = self.hosts[host].command(tools::program("aws")?);
        self.cloud.environment(&mut aws);
        aws.args(["ec2", "replace-route", "--route-table-id", table]);
        aws.args(["--destination-cidr-block", &format!("{vip}/32")]);
        aws.args(["--network-interface-id", &self.world.nodes[host].eni]);
        finish(&mut aws)
    }
}

fn finish(command: &mut Command) -> Result<()> {
    interrupt::check()?;
    run(command).map(drop)
}
