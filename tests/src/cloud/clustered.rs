//! A lab whose hosts are instances of the cloud.

use anyhow::{Context, Result};

use super::{Cloud, Credentials, Imds, Plan, World};
use crate::lab::{Lab, Options};

/// Each host has a metadata service that knows its `eth0`, credentials of its own role from there, and `api0` towards
/// the API. Fields are dropped in this order: daemons first.
pub struct CloudLab {
    pub lab: Lab,
    /// By number of the host.
    pub imds: Vec<Imds>,
    /// Node I is host I; it is reached there as [`Cloud::address`].
    pub world: World,
    pub cloud: Cloud,
}

/// The name of a host's role.
pub fn role(index: usize) -> String {
    format!("host{}", index + 1)
}

impl CloudLab {
    /// No daemon runs yet. All roles have this policy; it counts once [`super::Moto::enforce_policies`] is called.
    ///
    /// # Errors
    /// When the plan has fewer nodes than the lab has hosts, or anything cannot be set up.
    pub fn new(options: &Options, plan: &Plan, policy: &str) -> Result<Self> {
        let cloud = Cloud::start()?;
        let world = World::build(&cloud.moto, plan)?;
        let mut options = options.clone();
        options.config.push_str(&format!("\n[ec2]\nendpoint = \"{}\"\n", cloud.endpoint()));
        let lab = Lab::new(&options)?;
        let start = |index: usize| {
            let node = world.nodes.get(index).context("the plan has too few nodes")?;
            let name = role(index);
            let credentials: Credentials = cloud.moto.role(&name, policy)?;
            let mut identity = world.identity(node, &lab.host(index).mac().to_string());
            identity.role = Some((name, credentials));
            let ns = lab.segment.host(index);
            cloud.connect(ns, index)?;
            Imds::start(ns, identity)
        };
        let imds = (0..lab.hosts.len()).map(start).collect::<Result<_>>()?;
        Ok(Self { lab, imds, world, cloud })
    }
}
