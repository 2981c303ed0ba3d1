//! Elastic IPs (row EC2-2) where the API answers.

use std::{collections::BTreeMap, net::Ipv4Addr};

use anyhow::{Context, Result, ensure};
use vipd_tests::{
    cloud::{Cloud, Plan, imds::Interface, world::Eip},
    lab::{Lab, Options, PATIENCE},
};

use super::{
    Test,
    scene::{IP, ROUTE, Served, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("eips::follow_the_owner_and_no_other_is_touched", follow),
    ("eips::of_strangers_are_taken_off_the_next_owners_interface_first", evicted),
    ("eips::that_were_moved_away_come_back_where_they_were", repaired),
    ("eips::out_of_service_are_nowhere_and_in_service_here", services),
    ("eips::of_a_detached_interface_go_to_another_node", detached),
    ("eips::go_to_the_standby_interface_of_the_same_node", standby),
    ("eips::and_routes_go_with_the_interface_of_their_address", routes_standby),
];

/// One that the cluster has, and two that it has not.
pub struct Elastic {
    pub served: Served,
    pub address: Ipv4Addr,
    /// As `create ec2-eip` names it.
    pub tag: String,
    /// All of the account, before the cluster had any of them.
    before: BTreeMap<Ipv4Addr, Eip>,
}

impl Elastic {
    /// In service on the first host, on its `eth0`, all others as successors in their order.
    pub fn new() -> Result<Self> {
        Self::with(&options(), |_| Ok(()), &["--dev", "eth0"])
    }

    pub fn with(
        options: &Options,
        prepare: impl FnOnce(&Served) -> Result<()>,
        devices: &[&str],
    ) -> Result<Self> {
        let served = Served::empty(options, &Plan::default())?;
        prepare(&served)?;
        let world = &served.instances.world;
        let address = world.allocate_address()?;
        let elsewhere = world.allocate_address()?;
        world.associate_address(elsewhere, &world.stranger.eni)?;
        world.allocate_address()?;
        let before = world.eips()?;
        let elastic = Self { tag: format!("ec2-{address}"), served, address, before };
        let create = ["create", "ec2-eip", "--eip", &address.to_string(), "--extend-to", "all"];
        elastic.served.order(0, &[&create[..], devices].concat())?;
        elastic.check_on(0)?;
        elastic.served.wait_in_service(&elastic.tag, 0)?;
        Ok(elastic)
    }

    pub fn lab(&self) -> &Lab {
        self.served.lab()
    }

    /// Where it is.
    pub fn place(&self) -> Result<Option<String>> {
        Ok(self.served.instances.world.eip(self.address)?.eni)
    }

    /// It is on the first interface of the host.
    pub fn check_on(&self, host: usize) -> Result<()> {
        self.check_at(&self.served.instances.world.nodes[host].eni)
    }

    pub fn check_at(&self, eni: &str) -> Result<()> {
        let place = self.place()?;
        ensure!(place.as_deref() == Some(eni), "it is on {place:?}, not on {eni}");
        Ok(())
    }

    pub fn wait_on(&self, host: usize) -> Result<()> {
        let what = format!("{} is on {}", self.address, self.lab().host(host).name());
        self.lab().wait(PATIENCE, &what, || self.check_on(host))
    }

    pub fn in_service_on(&self, host: usize) -> Result<String> {
        self.served.order(0, &["in-service", &self.tag, "--on", self.lab().host(host).name()])
    }

    /// Puts it elsewhere, behind everybody's back.
    pub fn steal(&self, eni: &str) -> Result<()> {
        let world = &self.served.instances.world;
        let allocation = world.eip(self.address)?.allocation;
        let to = [("AllocationId", allocation.as_str()), ("NetworkInterfaceId", eni)];
        let to = [&to[..], &[("AllowReassociation", "true")]].concat();
        world.moto().ec2("AssociateAddress", &to).map(drop)
    }

    /// All Elastic IPs but this are what they were.
    pub fn check_others_untouched(&self) -> Result<()> {
        let mut now = self.served.instances.world.eips()?;
        now.retain(|address, _| *address != self.address && self.before.contains_key(address));
        let mut before = self.before.clone();
        before.remove(&self.address);
        ensure!(before.len() == 2 && now == before, "{now:?}\nwas\n{before:?}");
        // Nor are routes any of its business.
        ensure!(self.served.instances.world.snapshot()? == self.served.before);
        Ok(())
    }

    /// (host, action) of what was changed since the mark.
    pub fn written(&self, mark: usize) -> Vec<(usize, String)> {
        let proxy = &self.served.cloud().proxy;
        let mut all: Vec<_> =
            proxy.calls_since(mark).into_iter().filter(|c| c.is_effective_write()).collect();
        all.sort_by_key(|c| c.executed.map(|done| done.order));
        let host = |c: &vipd_tests::cloud::Call| (0..3).find(|h| Cloud::address(*h) == c.client);
        all.iter().map(|c| (host(c).unwrap_or(usize::MAX), c.action.clone())).collect()
    }
}

pub fn writes(all: &[(usize, &str)]) -> Vec<(usize, String)> {
    all.iter().map(|(host, action)| (*host, (*action).to_owned())).collect()
}

pub const TAKE: &str = "DisassociateAddress";
pub const PUT: &str = "AssociateAddress";

fn follow() -> Result<()> {
    let elastic = Elastic::new()?;
    let (served, lab, tag) = (&elastic.served, elastic.lab(), elastic.tag.as_str());
    let world = &served.instances.world;
    elastic.check_others_untouched()?;
    // It was nowhere.
    ensure!(elastic.written(0) == writes(&[(0, PUT)]), "{:?}", elastic.written(0));
    let known = served.known(0, tag)?;
    ensure!(known.interface.as_deref() == Some(&*world.nodes[0].eni), "{known:?}");
    ensure!(known.targets.len() == 1 && known.trouble.is_none(), "{known:?}");
    ensure!(known.targets[0].contains(&world.nodes[0].eni), "{known:?}");

    // In the order that an operator gives: who had it lets go of it first.
    for (from, to) in [(0, 1), (1, 0)] {
        let mark = served.cloud().proxy.mark();
        elastic.in_service_on(to)?;
        elastic.check_on(to)?;
        lab.check_in_service(tag, to, to)?;
        let written = elastic.written(mark);
        ensure!(written == writes(&[(from, TAKE), (to, PUT)]), "{written:?}");
    }

    let mark = served.cloud().proxy.mark();
    lab.host(0).sigkill()?;
    elastic.wait_on(1)?;
    served.wait_in_service(tag, 1)?;
    let written = elastic.written(mark);
    ensure!(written == writes(&[(1, TAKE), (1, PUT)]), "{written:?}");
    // The killed one returns and leaves it alone.
    let mark = served.cloud().proxy.mark();
    lab.host(0).start()?;
    lab.wait_whole()?;
    elastic.check_on(1)?;
    ensure!(elastic.written(mark).is_empty(), "{:?}", elastic.written(mark));
    elastic.check_others_untouched()
}

fn evicted() -> Result<()> {
    let elastic = Elastic::new()?;
    let (served, world) = (&elastic.served, &elastic.served.instances.world);
    let mut guests = Vec::new();
    for node in [1, 2] {
        let guest = world.allocate_address()?;
        world.associate_address(guest, &world.nodes[node].eni)?;
        guests.push(guest);
    }
    let associations: Vec<String> = guests.iter().filter_map(|g| world.eip(*g).ok()?.association).collect();
    let mark = served.cloud().proxy.mark();
    elastic.in_service_on(1)?;
    elastic.check_on(1)?;
    ensure!(world.eip(guests[0])?.association.is_none(), "{:?}", world.eip(guests[0])?);
    // First what is in the way, and nothing that is not.
    let calls = served.calls(1, TAKE, mark);
    let taken: Vec<&str> = calls.iter().map(|c| c.parameter("AssociationId")).collect();
    ensure!(taken == [associations[0].as_str()], "{taken:?}");
    let written = elastic.written(mark);
    ensure!(written == writes(&[(0, TAKE), (1, TAKE), (1, PUT)]), "{written:?}");
    let stayed = world.eip(guests[1])?;
    ensure!(stayed.association.as_ref() == Some(&associations[1]), "{stayed:?}");
    served.wait_event(1, "restore.ec2-write", &guests[0].to_string())?;

    // One that comes later goes, too, and nothing else happens.
    let epoch = served.epoch(1, &elastic.tag)?;
    let association = world.eip(elastic.address)?.association;
    world.associate_address(guests[0], &world.nodes[1].eni)?;
    elastic.lab().wait(PATIENCE, "the guest is taken off again", || {
        ensure!(world.eip(guests[0])?.association.is_none());
        Ok(())
    })?;
    served.wait_event(1, "quickcheck.failed", &guests[0].to_string())?;
    ensure!(world.eip(elastic.address)?.association == association, "it was taken off with it");
    elastic.lab().wait(PATIENCE, "it is mended", || {
        let known = served.known(1, &elastic.tag)?;
        ensure!(known.trouble.is_none(), "{known:?}");
        elastic.lab().check_in_service(&elastic.tag, 1, 1)
    })?;
    ensure!(served.epoch(1, &elastic.tag)? == epoch, "it was granted anew");
    elastic.check_others_untouched()
}

fn repaired() -> Result<()> {
    let elastic = Elastic::new()?;
    let (served, world) = (&elastic.served, &elastic.served.instances.world);
    let epoch = served.epoch(0, &elastic.tag)?;
    let seen = |stolen_by: &str| {
        let mark = served.cloud().proxy.mark();
        let told = served.events(0, "quickcheck.failed")?.len();
        match stolen_by {
            "" => world.moto().ec2(TAKE, &[("PublicIp", &elastic.address.to_string())]).map(drop)?,
            eni => elastic.steal(eni)?,
        }
        elastic.wait_on(0)?;
        elastic.lab().wait(PATIENCE, "it is mended", || {
            let known = served.known(0, &elastic.tag)?;
            ensure!(known.trouble.is_none(), "{known:?}");
            elastic.lab().check_in_service(&elastic.tag, 0, 0)
        })?;
        ensure!(served.epoch(0, &elastic.tag)? == epoch, "it was granted anew");
        let said = served.events(0, "quickcheck.failed")?;
        let said = said.get(told).context("nothing was told")?;
        ensure!(said.contains(if stolen_by.is_empty() { "nowhere" } else { stolen_by }), "{said}");
        anyhow::Ok(elastic.written(mark))
    };
    // By hand, by another node's, by an interface that has one already.
    ensure!(seen("")? == writes(&[(0, PUT)]));
    for eni in [&world.nodes[2].eni, &world.stranger.eni] {
        let written = seen(eni)?;
        ensure!(written == writes(&[(0, TAKE), (0, PUT)]), "{written:?}");
    }
    elastic.check_others_untouched()
}

fn services() -> Result<()> {
    let elastic = Elastic::new()?;
    let (served, lab, tag) = (&elastic.served, elastic.lab(), elastic.tag.as_str());
    let nowhere = || {
        let place = elastic.place()?;
        ensure!(place.is_none(), "it is on {place:?}");
        Ok(())
    };
    served.order(0, &["out-of-service", tag])?;
    lab.wait(PATIENCE, "it is nowhere", nowhere)?;
    // Nobody looks after it now, whoever restarts.
    let mark = served.cloud().proxy.mark();
    lab.host(0).terminate()?;
    lab.host(0).start()?;
    lab.wait_whole()?;
    nowhere()?;
    ensure!(elastic.written(mark).is_empty(), "{:?}", elastic.written(mark));
    served.order(0, &["in-service", tag])?;
    elastic.check_on(0)?;
    served.order(0, &["delete", tag])?;
    lab.wait(PATIENCE, "it is gone", || {
        let all = lab.host(0).status()?.resources;
        ensure!(all.iter().all(|r| r.tag.as_str() != tag), "{all:?}");
        nowhere()
    })?;
    elastic.check_others_untouched()
}

fn detached() -> Result<()> {
    let elastic = Elastic::new()?;
    let served = &elastic.served;
    served.instances.imds[0].change(|identity| identity.interfaces.clear());
    elastic.wait_on(1)?;
    served.wait_in_service(&elastic.tag, 1)?;
    let reason = served.wait_event(0, "recover.failed", "")?;
    ensure!(reason.contains(&elastic.lab().host(0).mac().to_string()), "{reason}");
    elastic.check_others_untouched()
}

/// Each host has a second interface, `eth2`, which EC2 knows as well. What the nodes say to each other goes over a
/// network of its own.
pub fn two_interfaces() -> Options {
    Options { paths: 2, rpc_path: 1, ..options() }
}

pub fn plug_second(served: &Served) -> Result<Vec<String>> {
    let world = &served.instances.world;
    let plug = |host: usize| {
        let node = &world.nodes[host];
        served.lab().segment.plug_standby(host)?;
        let address = Ipv4Addr::new(10, 77, node.subnet as u8, 20 + host as u8);
        let eni = world.add_interface(node, address)?;
        let interface = Interface {
            eni: eni.clone(),
            vpc: world.vpc.clone(),
            vpc_cidrs: vec![world.cidr.clone()],
            addresses: vec![address],
            subnet: world.subnets[node.subnet].id.clone(),
            device: 1,
        };
        let mac = served.lab().segment.standby_mac(host).to_string();
        served.instances.imds[host].change(|identity| {
            identity.interfaces.insert(mac, interface);
        });
        Ok(eni)
    };
    (0..served.lab().hosts.len()).map(plug).collect()
}

fn standby() -> Result<()> {
    let mut second = Vec::new();
    let prepare = |served: &Served| {
        second = plug_second(served)?;
        Ok(())
    };
    let elastic = Elastic::with(&two_interfaces(), prepare, &["--dev", "eth0", "--dev", "eth2"])?;
    let (served, lab, tag) = (&elastic.served, elastic.lab(), elastic.tag.as_str());
    let epoch = served.epoch(0, tag)?;
    let mark = served.cloud().proxy.mark();
    lab.segment.set_carrier(0, false, false)?;
    lab.wait(PATIENCE, "it is on the second interface", || {
        elastic.check_at(&second[0])?;
        lab.check_in_service(tag, 0, 0)?;
        let used = lab.resource(0, tag)?.device;
        ensure!(used.as_deref() == Some("eth2"), "it is on {used:?}");
        Ok(())
    })?;
    ensure!(served.epoch(0, tag)? == epoch, "moved within the node, and yet granted anew");
    let written = elastic.written(mark);
    ensure!(written == writes(&[(0, TAKE), (0, PUT)]), "{written:?}");
    let known = served.known(0, tag)?;
    ensure!(known.interface.as_ref() == Some(&second[0]) && known.trouble.is_none(), "{known:?}");
    // With both gone, so is the node.
    lab.segment.set_carrier(0, true, false)?;
    elastic.wait_on(1)?;
    lab.wait(PATIENCE, "it is in service there", || lab.check_in_service(tag, 1, 1))?;
    elastic.check_others_untouched()
}

fn routes_standby() -> Result<()> {
    let served = Served::empty(&two_interfaces(), &Plan::default())?;
    let second = plug_second(&served)?;
    let (lab, world) = (served.lab(), &served.instances.world);
    let create = ["create", "ip", "10.9.0.5/32", "--dev", "eth0", "--dev", "eth2", "--tag", IP];
    served.order(0, &[&create[..], &["--extend-to", "all"]].concat())?;
    served.wait_in_service(IP, 0)?;
    served.order(0, &["create", "ec2-route", "--ip", IP])?;
    served.wait_routes(0)?;
    served.wait_in_service(ROUTE, 0)?;
    let epochs = (served.epoch(0, IP)?, served.epoch(0, ROUTE)?);
    lab.segment.set_carrier(0, false, false)?;
    lab.wait(PATIENCE, "all routes lead to the second interface", || {
        let now = world.snapshot()?;
        for table in &world.tables {
            let target = now.target(table, "10.9.0.5/32");
            ensure!(target.as_ref() == Some(&second[0]), "{table} leads to {target:?}");
        }
        let used = lab.resource(0, IP)?.device;
        ensure!(used.as_deref() == Some("eth2"), "the address is on {used:?}");
        lab.check_in_service(IP, 0, 0)?;
        lab.check_in_service(ROUTE, 0, 0)
    })?;
    ensure!((served.epoch(0, IP)?, served.epoch(0, ROUTE)?) == epochs, "granted anew");
    served.check_others_untouched()
}
