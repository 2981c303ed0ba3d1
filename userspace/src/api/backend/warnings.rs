//! What a person should look at now: each warning names the thing, the reason and the remedy.

use crate::{
    api::{NodeStatus, Status},
    core::links::LinkHealth,
    model::{ClusterState, Phase, Standing, Tag},
};

/// Failed resources that have a warning of their own.
const FAILED_NAMED: usize = 10;

/// Warnings that follow from what the status says.
pub fn of(status: &Status, is_member: bool, witness: bool) -> Vec<String> {
    let mut found = Vec::new();
    if !is_member {
        found.push(
            "this node is in no cluster: found one with 'vipctl cluster init NAME' or join one with 'vipctl \
             cluster join ADDRESS --token T'"
                .to_owned(),
        );
    }
    if let Some(cluster) = &status.cluster {
        // Two voters have words of their own.
        if !cluster.quorum && cluster.voters != 2 {
            found.push(
                "no quorum: this node reaches no majority of the voters, so nothing can be changed and its \
                 addresses go silent with its lease; look at the nodes below and the network between them"
                    .to_owned(),
            );
        }
        found.extend(cluster.cautions.iter().cloned());
        let store = &cluster.store;
        if let Some(away) = store.unreachable_ms {
            found.push(format!(
                "{} unreachable since {} s: what is in service stays so, and nothing can be changed or fail over ({})",
                store.kind,
                away / 1000,
                store.reason.as_deref().unwrap_or("no reason is known")
            ));
        }
        for member in store.members.iter().filter(|m| !m.healthy && store.unreachable_ms.is_none()) {
            found.push(format!(
                "{} {} is '{}' ({}): the state is safe while a majority of its members is well",
                store.kind, member.endpoint, member.state, member.trouble
            ));
        }
        for member in store.members.iter().filter(|m| m.healthy && !m.trouble.is_empty()) {
            found.push(format!("{} {} complains: {}", store.kind, member.endpoint, member.trouble));
        }
        if cluster.quorum && cluster.leader.is_none() && store.unreachable_ms.is_none() {
            found.push("no leader is known: an election is under way, or it cannot end".to_owned());
        }
    }
    if !witness {
        if is_member && !status.lease.valid {
            found.push(
                "the lease is not valid: the kernel gives no answers for this node's addresses until a majority \
                 renews it"
                    .to_owned(),
            );
        }
        if let Some(reason) = &status.datapath.reason {
            found.push(format!(
                "the guard is not in the kernel ({reason}): a killed or frozen daemon leaves its addresses \
                 answering"
            ));
        }
        found.extend(status.conflicts.iter().map(|c| {
            format!(
                "{} claimed {} of '{}' while it was in service here (told {} times, last {} s ago): take it away \
                 from that host",
                c.mac,
                c.address,
                c.tag,
                c.count,
                c.last_ms / 1000
            )
        }));
        let carriers = status.resources.iter().filter(|r| r.owner.as_deref() == Some(status.node.as_str()));
        let carriers: std::collections::BTreeSet<_> = carriers.filter_map(|r| r.device.as_deref()).collect();
        for interface in &status.interfaces {
            let reason = interface.health_reason.as_deref().unwrap_or_default();
            match interface.health {
                LinkHealth::Deaf => found.push(format!(
                    "{} is deaf: {reason}; look at its switch port, VLAN and filters",
                    interface.name
                )),
                LinkHealth::Unreachable => {
                    found.push(format!("no polling target is reached through {}: {reason}", interface.name))
                }
                LinkHealth::Up | LinkHealth::AdminDown | LinkHealth::NoCarrier | LinkHealth::Missing => {}
            }
            if carriers.contains(interface.name.as_str()) && !(interface.up && interface.carrier) {
                found.push(format!(
                    "{} carries addresses and has no link: look at its cable or peer",
                    interface.name
                ));
            }
        }
    }
    if status.profile == "fast" {
        found.push(
            "profile fast: leases last a third of a second, so a node whose cores are all taken may lose its \
             addresses; the same profile must be set on every node"
                .to_owned(),
        );
    }
    found.extend(status.nodes.iter().filter(|n| n.name != status.node).flat_map(about_node));
    let failed: Vec<_> = status.resources.iter().filter(|r| r.state == "OSF").collect();
    for resource in failed.iter().take(FAILED_NAMED) {
        let reasons: Vec<String> = resource
            .nodes
            .iter()
            .filter_map(|n| Some(format!("{}: {}", n.node, n.reason.as_ref()?)))
            .collect();
        found.push(format!(
            "{tag} failed on every node ({}): mend that, then 'vipctl in-service {tag}'",
            reasons.join("; "),
            tag = resource.tag
        ));
    }
    if failed.len() > FAILED_NAMED {
        found.push(format!(
            "{} more resources failed on every node: 'vipctl status --resources --state OSF' lists them",
            failed.len() - FAILED_NAMED
        ));
    }
    found
}

/// Resources that are in service without all of their addresses.
pub fn of_amendments(state: &ClusterState) -> Vec<String> {
    let troubled = state.placements.iter().filter_map(|(tag, p)| {
        let grant = p.grant.filter(|g| g.phase == Phase::InService)?;
        Some((tag, state.node_name(grant.owner), p.trouble.as_ref()?))
    });
    let troubled: Vec<_> = troubled.collect();
    let line = |(tag, owner, reason): &(&Tag, String, &String)| {
        format!("'{tag}' is in service without all of its addresses on {owner}: {reason}")
    };
    let mut found: Vec<String> = troubled.iter().take(FAILED_NAMED).map(line).collect();
    if troubled.len() > FAILED_NAMED {
        found.push(format!(
            "{} more resources are in service without all of their addresses: 'vipctl show TAG' says why",
            troubled.len() - FAILED_NAMED
        ));
    }
    found
}

fn about_node(n: &NodeStatus) -> Vec<String> {
    let name = &n.name;
    let mut found = Vec::new();
    match n.standing {
        Standing::Member => {}
        Standing::Joining => found.push(format!(
            "node {name} has begun to join and is no voter yet: look at its log if this lasts"
        )),
        Standing::Deposed => found.push(format!(
            "node {name} is deposed: it has lost its lease and gets no addresses until it has rejoined by itself"
        )),
    }
    if !n.alive {
        found.push(format!("node {name} is silent: look whether it runs and is connected"));
        return found;
    }
    for path in n.paths.iter().filter(|p| !p.up) {
        found.push(format!(
            "path {} of node {name} is down, another still works: look at that network before the last one fails",
            path.address
        ));
    }
    if !n.witness && !n.lease_valid && n.standing == Standing::Member {
        found.push(format!("node {name} has no valid lease: it answers for no address"));
    }
    found
}
