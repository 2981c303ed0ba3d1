//! `create ip`: everything is checked before anything is changed (rows IP-2 to IP-5).

pub(super) mod accept;
mod cloud;
pub(super) mod given;
mod group;
mod separate;

use std::collections::BTreeMap;

use ipnet::IpNet;

use self::{
    given::{Mistakes, Reading, settle},
    separate::Pattern,
};
use super::{
    Context, Member, Out, Result,
    devices::{self, Subnets},
    lookup, progress,
};
use crate::{
    api::{Answer, ApiError, CreateIp, accept_name, counted, thousands},
    core::{
        accept::Budget,
        change::{ADDRESSES_MAX, Change},
        inspection::Inquiries,
    },
    model::{
        Accept, AcceptBy, Addresses, ClusterState, IpResource, Kind, NodeId, NodeSettings, Ranges, Resource,
        Tag,
    },
    observe::network::{Assigned, Link},
};

/// The creating node's priority unless given: the best.
const FIRST_PRIORITY: u16 = 1;

/// What this host has, and the addresses that are wanted of it.
struct Wish {
    links: Vec<Link>,
    assigned: Vec<Assigned>,
    addresses: Addresses,
}

impl Context {
    pub(super) async fn create_ip(&self, wanted: CreateIp, out: &Out) -> Result<Answer> {
        let member = self.member()?;
        if self.config.witness {
            return Err(ApiError::refused(
                "this node is a witness, which holds no addresses: create it on another node",
            ));
        }
        check_usage(&wanted)?;
        let (links, mut assigned) = self.look().await?;
        let reading = Reading { netmask: wanted.netmask.as_deref(), each: wanted.each };
        let mut mistakes = Mistakes::default();
        let parts = reading.read(&*self.host, &wanted.addresses, &mut mistakes).await;
        if let [one] = &parts[..]
            && one.range.count() == 1
            && let Some(own) = devices::stationary(&assigned, one.range.first())
        {
            mistakes.refuse()?;
            let device = links.iter().find(|l| l.index == own.index).map(|l| l.name.clone());
            let (devices, net) = physical(own, device, one.prefix, &wanted)?;
            return self.create_physical(&member, wanted, devices, net, out).await;
        }
        assigned.extend(self.accepted(&member, &links));
        let addresses = settle(&parts, &wanted.except, &Subnets::new(&assigned), &mut mistakes);
        mistakes.refuse()?;
        check_count(&addresses)?;
        let state = member.fresh().await?;
        refuse_stationary(&state, &assigned, &addresses, member.id)?;
        let wish = Wish { links, assigned, addresses };
        if let Some(group) = &wanted.group
            && state.resources.contains_key(group)
        {
            return self.join_group(&member, &state, group, &wanted, wish, out).await;
        }
        self.create_new(&member, &state, wanted, wish, out).await
    }

    async fn create_new(
        &self,
        member: &Member,
        state: &ClusterState,
        wanted: CreateIp,
        wish: Wish,
        out: &Out,
    ) -> Result<Answer> {
        let Wish { links, assigned, addresses } = wish;
        refuse_owned(state, &addresses)?;
        let nets: Vec<IpNet> = addresses.firsts().collect();
        let devices = devices::choose(&links, &assigned, &nets, &wanted.devices)?;
        let used: Vec<&Link> = links.iter().filter(|l| devices.contains(&l.name)).collect();
        let others = others(state, &wanted.extend_to, member.id)?;
        let nodes = settings(member.id, &others, wanted.priority, &devices, false)?;
        let resources = if wanted.separate {
            let pattern = Pattern { nodes, switchback: wanted.switchback, accept: wanted.accept };
            pattern.apply(state, &addresses)?
        } else {
            vec![self.one_resource(state, &wanted, &addresses, nodes)?]
        };
        for ip in resources.iter().filter_map(Resource::ip) {
            self.check_xdp(ip.accept, ip.accept_by, &ip.addresses, &used)?;
        }
        let unasked = self.check_new(member, state, &resources, &addresses, wanted.force, out).await?;
        let what = counted(&addresses);
        let resource = match <[Resource; 1]>::try_from(resources) {
            Ok([resource]) if !wanted.separate => resource,
            Ok([resource]) => return self.create_all(member, vec![resource], wanted.wait, out).await,
            Err(resources) => return self.create_all(member, resources, wanted.wait, out).await,
        };

        // One change for all nodes: another `create` of the same address comes before it or after it,
        // never in between, and is refused.
        let tag = resource.tag.clone();
        let ip = lookup::ip(&resource)?;
        let way = match addresses.is_single() && ip.accept_by == AcceptBy::Size {
            true => unasked,
            false => format!(" ({}, {}){unasked}", accept_name(ip.accept), accept::reason(ip)),
        };
        member.propose(vec![Change::Create { resource, on: member.id }]).await?;
        progress(out, format!("{tag} is created, for {what} on {}{way}", devices.join(", "))).await;
        if !wanted.wait {
            return Ok(Answer::done(format!(
                "{tag} is created, for {what}{way}, and being brought in service"
            )));
        }
        let limit = self.limit_of_start();
        let done = self.wait(member, &tag, limit, out, |state| self.started(state, &tag, None)).await?;
        Ok(match done {
            Answer::Done { message } if !addresses.is_single() => {
                Answer::done(format!("{message}, with {what}{way}"))
            }
            other => other,
        })
    }

    /// On every node that may have it. Separate resources differ only in their addresses: asked for as one.
    async fn check_new(
        &self,
        member: &Member,
        state: &ClusterState,
        resources: &[Resource],
        addresses: &Addresses,
        force: bool,
        out: &Out,
    ) -> Result<String> {
        let Some(pattern) = resources.iter().find(|r| r.accept() != Accept::Assign).or(resources.first())
        else {
            return Ok(String::new());
        };
        let mut all = pattern.clone();
        if let Some(ip) = all.ip_mut() {
            ip.addresses = addresses.clone();
        }
        let mut inquiries = Inquiries::default();
        inquiries.whole(&all, &addresses.hosts(), member.id, state);
        let verdict = self.ask_nodes(member, state, &inquiries, force, out).await;
        verdict.refuse()?;
        Ok(verdict.said())
    }

    fn one_resource(
        &self,
        state: &ClusterState,
        wanted: &CreateIp,
        addresses: &Addresses,
        nodes: BTreeMap<NodeId, NodeSettings>,
    ) -> Result<Resource> {
        let tag = match (&wanted.tag, &wanted.group, addresses.first()) {
            (Some(tag), ..) | (None, Some(tag), _) => tag.clone(),
            (None, None, Some(first)) => default_tag(first)?,
            (None, None, None) => return Err(ApiError::usage("no address is left: give at least one")),
        };
        refuse_tag(state, &tag)?;
        let (accept, by) = match wanted.accept {
            Some(accept) => (accept, AcceptBy::Operator),
            None => Budget::new(state).choose(addresses, nodes.keys().copied()),
        };
        let kind = Kind::Ip(IpResource { addresses: addresses.clone(), accept, accept_by: by });
        let resource = Resource::of_kind(tag, kind, nodes);
        Ok(Resource { switchback: wanted.switchback, ..resource })
    }

    /// The node's own address, protected as it is.
    async fn create_physical(
        &self,
        member: &Member,
        wanted: CreateIp,
        devices: Vec<String>,
        net: IpNet,
        out: &Out,
    ) -> Result<Answer> {
        let state = member.fresh().await?;
        let tag = match &wanted.tag {
            Some(tag) => tag.clone(),
            None => default_tag(net)?,
        };
        refuse_owned(&state, &Addresses::from(net))?;
        refuse_tag(&state, &tag)?;
        let nodes = settings(member.id, &[], wanted.priority, &devices, true)?;
        let resource = Resource { switchback: wanted.switchback, ..Resource::new(tag.clone(), net, nodes) };
        progress(out, format!("{net} is this node's own address: it is protected, and never touched")).await;
        member.propose(vec![Change::Create { resource, on: member.id }]).await?;
        if !wanted.wait {
            return Ok(Answer::done(format!("{tag} is created, for {net}, and being brought in service")));
        }
        self.wait(member, &tag, self.limit_of_start(), out, |state| self.started(state, &tag, None)).await
    }
}

fn check_usage(wanted: &CreateIp) -> Result<()> {
    let no = |text: &str| Err(ApiError::usage(text));
    match (&wanted.tag, &wanted.group, wanted.separate) {
        (Some(_), Some(_), _) => no("--group G is the tag of the resource as well: leave --tag out"),
        (Some(_), None, true) => {
            no("--separate makes a resource for each address, with a tag each: leave --tag out")
        }
        (None, Some(_), true) => {
            no("--separate makes a resource for each address, --group one of all: choose one")
        }
        (..) => Ok(()),
    }
}

fn check_count(addresses: &Addresses) -> Result<()> {
    match addresses.count() {
        0 => Err(ApiError::usage("no address is left: give at least one that --except does not leave out")),
        n if n > ADDRESSES_MAX => Err(ApiError::refused(format!(
            "these are {} addresses, and {} are the limit of one order: give smaller ranges",
            thousands(n),
            thousands(ADDRESSES_MAX)
        ))),
        _ => Ok(()),
    }
}

/// The node's own address may be protected as it is; nothing about it can be chosen (row IP-5).
fn physical(
    own: &Assigned,
    device: Option<String>,
    prefix: Option<u8>,
    wanted: &CreateIp,
) -> Result<(Vec<String>, IpNet)> {
    let net = own.address;
    let address = net.addr();
    let device = device
        .ok_or_else(|| ApiError::failed(format!("the interface of {address} has just gone: try again")))?;
    if wanted.separate || wanted.group.is_some() {
        return Err(ApiError::refused(format!(
            "{address} is this node's own address, which is protected as it is: leave it out with --except"
        )));
    }
    let no =
        |reason: String| Err(ApiError::refused(format!("{address} is this node's own address {reason}")));
    if prefix.is_some_and(|p| p != net.prefix_len()) {
        return no(format!("with prefix length {}: leave the length out", net.prefix_len()));
    }
    if wanted.devices.iter().any(|d| *d != device) {
        return no(format!("on {device}: leave --dev out"));
    }
    if !wanted.extend_to.is_empty() {
        return no("and cannot be brought up on another node: leave --extend-to out".to_owned());
    }
    if address.is_loopback() {
        return no("for itself alone (loopback): choose one that others reach".to_owned());
    }
    Ok((vec![device], net))
}

fn default_tag(net: IpNet) -> Result<Tag> {
    format!("ip-{}", net.addr()).parse().map_err(|e| ApiError::usage(format!("{e}; give one with --tag")))
}

fn refuse_owned(state: &ClusterState, addresses: &Addresses) -> Result<()> {
    let hosts = addresses.hosts();
    let Some(other) = state.resource_with(&hosts) else { return Ok(()) };
    let both = hosts.intersection(&other.addresses().hosts());
    let which = match both.count() {
        1 => both.to_string(),
        n => format!(
            "{} ({})",
            thousands(n),
            both.ranges().first().map(ToString::to_string).unwrap_or_default()
        ),
    };
    let except = if addresses.is_single() { "" } else { ", --except leaves addresses out" };
    Err(ApiError::refused(format!(
        "{which} belongs to the resource '{0}' already: 'vipctl show {0}' shows it{except}",
        other.tag
    )))
}

fn refuse_tag(state: &ClusterState, tag: &Tag) -> Result<()> {
    if state.resources.contains_key(tag) {
        return Err(ApiError::refused(format!("the tag '{tag}' is taken: choose another with --tag")));
    }
    Ok(())
}

/// Addresses by which nodes are reached, or that this host has for itself, stay where they are.
pub(super) fn refuse_stationary(
    state: &ClusterState,
    assigned: &[Assigned],
    addresses: &Addresses,
    me: NodeId,
) -> Result<()> {
    let hosts = addresses.hosts();
    let mut found: BTreeMap<std::net::IpAddr, String> = BTreeMap::new();
    for node in state.nodes.values() {
        let its = node.paths.iter().map(|p| p.ip()).chain([node.rpc.ip()]);
        found.extend(its.filter(|ip| hosts.contains(*ip)).map(|ip| (ip, node.name.clone())));
    }
    let own = assigned.iter().filter(|a| a.protocol != Some(crate::act::address::PROTOCOL));
    let own = own.map(|a| a.address.addr()).filter(|ip| hosts.contains(*ip));
    found.extend(own.map(|ip| (ip, state.node_name(me))));
    let Some((first, node)) = found.first_key_value() else { return Ok(()) };
    if addresses.is_single() {
        return Err(ApiError::refused(format!(
            "{first} is an address of node '{node}' itself, by which the cluster reaches it: choose another"
        )));
    }
    let named: Vec<String> = found.iter().map(|(ip, node)| format!("{ip} of node '{node}'")).collect();
    let all: Ranges = found.keys().copied().collect();
    Err(ApiError::refused(format!(
        "these addresses are stationary: {}; leave them out with --except {all}",
        named.join(", ")
    )))
}

/// The nodes to extend to, in falling preference.
fn others(state: &ClusterState, names: &[String], me: NodeId) -> Result<Vec<NodeId>> {
    if names.iter().any(|n| n == "all") {
        if names.len() > 1 {
            return Err(ApiError::usage("--extend-to all names every node already: leave the others out"));
        }
        return Ok(state.nodes.values().filter(|n| !n.witness && n.id != me).map(|n| n.id).collect());
    }
    let mut ids: Vec<NodeId> = Vec::new();
    for name in names {
        let id = lookup::holder(state, name)?.id;
        if id == me {
            return Err(ApiError::usage(format!(
                "--extend-to {name} is this node, which has it already: leave it out"
            )));
        }
        if ids.contains(&id) {
            return Err(ApiError::usage(format!("--extend-to {name} is given twice: give it once")));
        }
        ids.push(id);
    }
    Ok(ids)
}

fn settings(
    me: NodeId,
    others: &[NodeId],
    priority: Option<u16>,
    devices: &[String],
    physical: bool,
) -> Result<BTreeMap<NodeId, NodeSettings>> {
    let mut nodes = BTreeMap::new();
    let mut priority = Ok(priority.unwrap_or(FIRST_PRIORITY));
    for id in std::iter::once(me).chain(others.iter().copied()) {
        let this = priority?;
        let settings = NodeSettings {
            priority: this,
            devices: devices.to_vec(),
            restore_and_recover: true,
            physical,
            source: false,
        };
        nodes.insert(id, settings);
        priority = next_priority(this);
    }
    Ok(nodes)
}

/// The next multiple of ten: room for others in between.
pub(super) fn next_priority(worst: u16) -> Result<u16> {
    const MOST: u16 = 999;
    let next = (worst / 10 + 1) * 10;
    if next <= MOST {
        Ok(next)
    } else {
        Err(ApiError::refused(format!(
            "there is no priority left after {worst} (the last is {MOST}): give a smaller --priority"
        )))
    }
}
