//! `create ip`: everything is checked before anything is changed (rows IP-2 to IP-5).

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::{Context, Out, Result, address, devices, lookup, progress};
use crate::{
    api::{Answer, ApiError, CreateIp},
    core::change::Change,
    model::{Addresses, ClusterState, NodeId, NodeSettings, Resource, Tag},
    observe::network::Assigned,
};

/// The creating node's priority unless given: the best.
const FIRST_PRIORITY: u16 = 1;

impl Context {
    pub(super) async fn create_ip(&self, wanted: CreateIp, out: &Out) -> Result<Answer> {
        let member = self.member()?;
        if self.config.witness {
            return Err(ApiError::refused(
                "this node is a witness, which holds no addresses: create it on another node",
            ));
        }
        let resolved = address::resolve(&*self.host, &wanted.address, wanted.netmask.as_deref()).await?;
        let (links, assigned) = self.look().await?;
        let own = devices::stationary(&assigned, resolved.address);
        let (devices, net) = match own {
            Some(own) => {
                let device = links.iter().find(|l| l.index == own.index).map(|l| l.name.clone());
                physical(own, device, resolved, &wanted)?
            }
            None => devices::choose(&links, &assigned, resolved, &wanted.devices)?,
        };
        if own.is_none() {
            address::check(net)?;
        }
        let state = member.fresh().await?;
        let tag = match &wanted.tag {
            Some(tag) => tag.clone(),
            None => default_tag(net)?,
        };
        refuse_taken(&state, &tag, net, member.id)?;
        let others = others(&state, &wanted.extend_to, member.id)?;
        let nodes = settings(member.id, &others, wanted.priority, &devices, own.is_some())?;
        let resource = Resource { switchback: wanted.switchback, ..Resource::new(tag.clone(), net, nodes) };

        let tunables = self.tunables.read();
        if own.is_some() {
            progress(out, format!("{net} is this node's own address: it is protected, and never touched"))
                .await;
        } else if tunables.no_unique_check {
            progress(out, "NOIPUNIQUE=1: not checked whether the address is in use on the network").await;
        } else if let Some(link) = links.iter().find(|l| l.name == devices[0]) {
            progress(out, format!("looking whether {} is in use on {}", net.addr(), link.name)).await;
            self.refuse_duplicate(link, net.addr(), self.config.profile.timing().duplicate_wait).await?;
        }

        // One change for all nodes: another `create` of the same address comes before it or after it,
        // never in between, and is refused.
        member.propose(vec![Change::Create { resource, on: member.id }]).await?;
        progress(out, format!("{tag} is created, for {net} on {}", devices.join(", "))).await;
        if !wanted.wait {
            return Ok(Answer::done(format!("{tag} is created, for {net}, and being brought in service")));
        }
        self.wait(&member, &tag, self.limit_of_start(), out, |state| self.started(state, &tag, None)).await
    }
}

/// The node's own address may be protected as it is; nothing about it can be chosen (row IP-5).
fn physical(
    own: &Assigned,
    device: Option<String>,
    resolved: address::Wanted,
    wanted: &CreateIp,
) -> Result<(Vec<String>, IpNet)> {
    let net = own.address;
    let address = net.addr();
    let device = device
        .ok_or_else(|| ApiError::failed(format!("the interface of {address} has just gone: try again")))?;
    let no =
        |reason: String| Err(ApiError::refused(format!("{address} is this node's own address {reason}")));
    if resolved.prefix.is_some_and(|p| p != net.prefix_len()) {
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

fn refuse_taken(state: &ClusterState, tag: &Tag, net: IpNet, me: NodeId) -> Result<()> {
    if let Some(other) = state.resource_with(&Addresses::from(net).hosts()) {
        return Err(ApiError::refused(format!(
            "{} belongs to the resource '{}' already: 'vipctl show {}' shows it",
            net.addr(),
            other.tag,
            other.tag
        )));
    }
    if state.resources.contains_key(tag) {
        return Err(ApiError::refused(format!("the tag '{tag}' is taken: choose another with --tag")));
    }
    let theirs =
        |n: &&crate::model::Node| n.rpc.ip() == net.addr() || n.paths.iter().any(|p| p.ip() == net.addr());
    if let Some(node) = state.nodes.values().filter(|n| n.id != me).find(theirs) {
        return Err(ApiError::refused(format!(
            "{} is an address of node '{}' itself, by which the cluster reaches it: choose another",
            net.addr(),
            node.name
        )));
    }
    Ok(())
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
