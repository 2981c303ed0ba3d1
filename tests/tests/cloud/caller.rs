//! A cloud with a world in it, and a host that calls it.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use vipd_tests::{
    cloud::{Cloud, Element, Plan, Refusal, World, http::Response, moto},
    netns::NetNs,
};

pub const VIP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 50);
pub const ROUTE: &str = "172.16.0.50/32";
/// Longest wait for an answer that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// `VIP` leads to the first node.
pub struct Scene {
    pub cloud: Cloud,
    pub world: World,
    pub hosts: Vec<Host>,
}

pub struct Host {
    pub ns: NetNs,
    pub address: IpAddr,
}

impl Scene {
    pub fn new(hosts: usize) -> Result<Self> {
        let cloud = Cloud::start()?;
        let world = World::build(&cloud.moto, &Plan::default())?;
        world.add_vip(VIP, &world.nodes[0].eni)?;
        let host = |index| {
            let ns = NetNs::new("vipd-host")?;
            let address = cloud.connect(&ns, index)?;
            Ok(Host { ns, address })
        };
        let hosts = (0..hosts).map(host).collect::<Result<_>>()?;
        Ok(Self { cloud, world, hosts })
    }

    /// What comes back for a call of the first host's.
    pub fn send(&self, action: &str, parameters: &[(&str, &str)]) -> Result<Response> {
        self.send_from(0, action, parameters, PATIENCE)
    }

    pub fn send_from(
        &self,
        host: usize,
        action: &str,
        parameters: &[(&str, &str)],
        patience: Duration,
    ) -> Result<Response> {
        let request = moto::call(&self.cloud.proxy.address().to_string(), action, parameters);
        request.exchange(self.cloud.dial(&self.hosts[host].ns)?, patience)
    }

    /// As [`Scene::send`], read.
    pub fn call(&self, action: &str, parameters: &[(&str, &str)]) -> Result<Element> {
        moto::read(&self.send(action, parameters)?)
    }

    /// As [`Scene::call`], of a call that must be refused.
    pub fn refusal(&self, action: &str, parameters: &[(&str, &str)]) -> Result<Refusal> {
        refusal(self.call(action, parameters))
    }

    /// Points the VIP's route in a table to the second node.
    pub fn swap(&self, table: usize) -> [(&'static str, String); 3] {
        [
            ("RouteTableId", self.world.tables[table].clone()),
            ("DestinationCidrBlock", ROUTE.to_owned()),
            ("NetworkInterfaceId", self.world.nodes[1].eni.clone()),
        ]
    }

    /// Which node's interface the VIP's route in the table leads to.
    pub fn owner(&self, table: usize) -> Result<usize> {
        let target = self.world.snapshot()?.target(&self.world.tables[table], ROUTE);
        let target = target.context("no route")?;
        self.world.nodes.iter().position(|node| node.eni == target).context("nobody's")
    }
}

pub fn refusal(answer: Result<Element>) -> Result<Refusal> {
    match answer {
        Ok(answer) => bail!("it was not refused: {}", answer.to_xml()),
        Err(error) => error.downcast::<Refusal>().map_err(|error| error.context("no refusal")),
    }
}

/// As parameters are passed.
pub fn pairs<'a>(all: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    all.iter().map(|(key, value)| (*key, value.as_str())).collect()
}
