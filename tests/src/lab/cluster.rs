//! What an operator does with the lab's hosts, through the real CLI.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context, Result, ensure};
use vipd::{api::ResourceStatus, model::Standing};

use super::{Host, Lab, PATIENCE};
use crate::{interrupt, timeline::Moment};

/// Orders given side by side when there are many: each waits for the duplicate check.
const AT_ONCE: usize = 16;

/// An IP resource to be created.
#[derive(Clone, Debug)]
pub struct NewIp<'a> {
    /// With its prefix length.
    pub address: &'a str,
    pub tag: &'a str,
    /// Where it is created and so comes up first.
    pub on: usize,
    /// Further hosts, best first.
    pub extend_to: &'a [usize],
}

impl Lab {
    /// Starts all daemons and makes one cluster of them.
    pub fn form_cluster(&self) -> Result<()> {
        self.form_cluster_of(self.hosts.len())
    }

    /// As [`Lab::form_cluster`], of the first `count` hosts; the others are not started.
    pub fn form_cluster_of(&self, count: usize) -> Result<()> {
        let hosts = &self.hosts[..count];
        hosts.iter().try_for_each(Host::start)?;
        hosts.iter().try_for_each(|host| host.wait_up().map(drop))?;
        let first = &hosts[0];
        first.vipctl(&["cluster", "init", "lab"])?.done().map_err(|e| self.explain(e))?;
        self.wait(PATIENCE, "the first host gives a token", || {
            first.vipctl(&["cluster", "token"])?.done().map(drop)
        })?;
        (1..count).try_for_each(|host| self.join(host, 0))?;
        self.wait_members(&(0..count).collect::<Vec<_>>())
    }

    /// The host, whose daemon runs, joins through another.
    pub fn join(&self, host: usize, via: usize) -> Result<()> {
        let (host, via) = (&self.hosts[host], &self.hosts[via]);
        let token = via.vipctl(&["cluster", "token"])?.done()?.stdout.trim().to_owned();
        self.wait(PATIENCE, &format!("{} joins", host.name()), || {
            host.vipctl(&["cluster", "join", via.rpc(), "--token", &token])?.done().map(drop)
        })
    }

    /// Until every host knows all hosts as trusted members with a quorum, and holds a lease.
    pub fn wait_whole(&self) -> Result<()> {
        self.wait_members(&(0..self.hosts.len()).collect::<Vec<_>>())
    }

    /// As [`Lab::wait_whole`], of these hosts and nobody else.
    pub fn wait_members(&self, members: &[usize]) -> Result<()> {
        self.wait(PATIENCE, "the cluster is whole", || {
            members.iter().try_for_each(|host| self.check_whole(&self.hosts[*host], members.len()))
        })
    }

    fn check_whole(&self, host: &Host, members: usize) -> Result<()> {
        let (status, name) = (host.status()?, host.name());
        let cluster = status.cluster.with_context(|| format!("{name} has no cluster"))?;
        ensure!(cluster.quorum, "{name} has no quorum");
        ensure!(cluster.leader.is_some(), "{name} knows no leader");
        ensure!(status.nodes.len() == members, "{name} knows {} nodes", status.nodes.len());
        for node in &status.nodes {
            ensure!(node.standing == Standing::Member, "{name}: {} is {:?}", node.name, node.standing);
            ensure!(node.alive || node.name == name, "{name} does not hear {}", node.name);
        }
        ensure!(status.lease.valid, "{name} has no valid lease");
        Ok(())
    }

    /// Creates a resource, extends it, and waits until it is in service where it was created.
    pub fn create_ip(&self, new: &NewIp) -> Result<()> {
        let host = &self.hosts[new.on];
        let create = ["create", "ip", new.address, "--dev", "eth0", "--tag", new.tag];
        host.vipctl(&create)?.done().map_err(|e| self.explain(e))?;
        for to in new.extend_to {
            let extend = ["extend", new.tag, "--to", self.hosts[*to].name(), "--dev", "eth0"];
            host.vipctl(&extend)?.done().map_err(|e| self.explain(e))?;
        }
        self.wait_in_service(new.tag, new.on)
    }

    /// Creates many resources at once, tag and address with its prefix length each, extended to all
    /// hosts, and waits until all are in service where they were created.
    pub fn create_many(&self, on: usize, resources: &[(String, String)]) -> Result<()> {
        let host = &self.hosts[on];
        let share = resources.len().div_ceil(AT_ONCE).max(1);
        let create = |(tag, address): &(String, String)| -> Result<()> {
            interrupt::check()?;
            let create = ["create", "ip", address, "--dev", "eth0", "--tag", tag];
            host.vipctl(&[&create[..], &["--extend-to", "all", "--no-wait"]].concat())?.done().map(drop)
        };
        let create = &create;
        std::thread::scope(|scope| {
            let threads: Vec<_> = resources
                .chunks(share)
                .map(|chunk| scope.spawn(move || chunk.iter().try_for_each(create)))
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<()>>| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            threads.into_iter().try_for_each(join)
        })
        .map_err(|e| self.explain(e))?;
        let wanted: BTreeSet<&str> = resources.iter().map(|(tag, _)| tag.as_str()).collect();
        let what = format!("{} resources are in service on {}", wanted.len(), host.name());
        self.wait(PATIENCE, &what, || {
            let status = host.status()?;
            let there = status.resources.iter().filter(|r| {
                wanted.contains(r.tag.to_string().as_str())
                    && r.state == "ISP"
                    && r.owner.as_deref() == Some(host.name())
            });
            let count = there.count();
            ensure!(count == wanted.len(), "{count} are");
            Ok(())
        })
    }

    /// The resource as a host sees it.
    pub fn resource(&self, seen_by: usize, tag: &str) -> Result<ResourceStatus> {
        let status = self.hosts[seen_by].status()?;
        let found = status.resources.into_iter().find(|r| r.tag.to_string() == tag);
        found.with_context(|| format!("{} knows no resource '{tag}'", self.hosts[seen_by].name()))
    }

    /// Until the host itself says that the resource is in service on it.
    pub fn wait_in_service(&self, tag: &str, on: usize) -> Result<()> {
        let what = format!("{tag} is in service on {}", self.hosts[on].name());
        self.wait(PATIENCE, &what, || self.check_in_service(tag, on, on))
    }

    /// An error unless `seen_by` sees the resource in service on `on`.
    pub fn check_in_service(&self, tag: &str, on: usize, seen_by: usize) -> Result<()> {
        let resource = self.resource(seen_by, tag)?;
        let owner = self.hosts[on].name();
        let there = resource.state == "ISP" && resource.owner.as_deref() == Some(owner);
        ensure!(there, "{tag} is {} on {:?}", resource.state, resource.owner);
        Ok(())
    }

    /// Until there is no such resource, as `seen_by` sees it.
    pub fn wait_gone(&self, tag: &str, seen_by: usize) -> Result<()> {
        self.wait(PATIENCE, &format!("{tag} is gone"), || {
            let all = self.hosts[seen_by].status()?.resources;
            ensure!(all.iter().all(|r| r.tag.as_str() != tag), "{all:?}");
            Ok(())
        })
    }

    /// The host that owns the resource, as `seen_by` sees it.
    pub fn owner(&self, seen_by: usize, tag: &str) -> Result<usize> {
        let resource = self.resource(seen_by, tag)?;
        let owner = resource.owner.with_context(|| format!("{tag} has no owner ({})", resource.state))?;
        let found = self.hosts.iter().position(|host| host.name() == owner);
        found.with_context(|| format!("{tag} is owned by {owner}, which is no host of the lab"))
    }

    /// The host that leads, as `seen_by` sees it.
    pub fn leader(&self, seen_by: usize) -> Result<usize> {
        let cluster = self.hosts[seen_by].status()?.cluster.context("no cluster")?;
        let leader = cluster.leader.context("no leader")?;
        let found = self.hosts.iter().position(|host| host.name() == leader);
        found.with_context(|| format!("{leader} leads, which is no host of the lab"))
    }

    /// Until the client got an answer for the address from the host, seen after `after`.
    pub fn wait_answer(
        &self,
        capture: &crate::capture::Capture,
        address: IpAddr,
        from: usize,
        after: Moment,
    ) -> Result<Moment> {
        let host = &self.hosts[from];
        self.wait(PATIENCE, &format!("{} answers for {address}", host.name()), || {
            capture.look(|timeline| {
                let mut all = timeline.of(address);
                let first = all.find(|r| r.time > after && r.mac == host.mac() && r.kind.is_answer());
                first.map(|r| r.time).context("no answer yet")
            })
        })
    }
}
