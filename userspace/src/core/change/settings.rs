//! Changes of settings: of a resource, and of what holds where a resource says nothing.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Applied, DefaultSetting, Refusal, Result, Setting, cloud, no_node,
    resources::{self, check_settings, extended, kept},
    subnets,
};
use crate::model::{
    AcceptBy, ClusterState, Defaults, NodeId, NodeSettings, Resource, Tag, Threshold, TwoNodes,
};

/// Bounds of what an operator may set.
const FAILURE_TIMEOUT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30 * 24 * 3600));

pub(super) fn set(
    state: &mut ClusterState,
    tag: &Tag,
    node: Option<NodeId>,
    setting: &Setting,
) -> Result<Applied> {
    let resource = kept(state, tag)?;
    if let Some(id) = node {
        extended(state, resource, id)?;
    }
    cloud::check_setting(resource, setting)?;
    // A hierarchy is placed as one: what decides about that is the same for all members.
    let members = match setting {
        Setting::Switchback(_)
        | Setting::Priority(_)
        | Setting::Stickiness(_)
        | Setting::Maintenance(_)
        | Setting::IgnoresConnectivity(_) => state.hierarchy_of(tag),
        Setting::Devices(_)
        | Setting::RestoreAndRecover(_)
        | Setting::Source(_)
        | Setting::OnConflict(_)
        | Setting::Accept(_)
        | Setting::Subnets(_)
        | Setting::MigrationThreshold(_)
        | Setting::FailureTimeout(_)
        | Setting::ServiceFailfast(_)
        | Setting::NodeFailfast(_) => BTreeSet::from([tag.clone()]),
    };
    let mut changed = Vec::new();
    // The one that was named first: what is wrong is told of that.
    let others = members.into_iter().filter(|member| member != tag);
    for member in std::iter::once(tag.clone()).chain(others) {
        let mut resource = kept(state, &member)?.clone();
        if !set_as_a_whole(state, &mut resource, node, setting)? {
            set_on_nodes(state, &mut resource, node, setting)?;
        }
        changed.push(resource);
    }
    for resource in changed {
        state.resources.insert(resource.tag.clone(), resource);
    }
    Ok(Applied::Done)
}

/// False where the setting is one that each node has for itself.
fn set_as_a_whole(
    state: &ClusterState,
    resource: &mut Resource,
    node: Option<NodeId>,
    setting: &Setting,
) -> Result<bool> {
    let policy = &mut resource.policy;
    let name = match setting {
        Setting::Priority(_) | Setting::Devices(_) | Setting::RestoreAndRecover(_) | Setting::Source(_) => {
            return Ok(false);
        }
        Setting::Switchback(switchback) => {
            resource.switchback = *switchback;
            "switchback"
        }
        Setting::OnConflict(on_conflict) => {
            resource.on_conflict = *on_conflict;
            "on-conflict"
        }
        Setting::Accept(accept) => {
            let refusal = resources::no_ip(resource);
            let Some(ip) = resource.ip_mut() else { return Err(refusal) };
            ip.accept = *accept;
            ip.accept_by = AcceptBy::Operator;
            "accept"
        }
        Setting::Subnets(needed) => {
            resource.monitored = subnets::needed(state, &resource.tag, needed.iter().copied())?;
            "subnets"
        }
        Setting::Stickiness(stickiness) => {
            policy.stickiness = *stickiness;
            "stickiness"
        }
        Setting::MigrationThreshold(threshold) => {
            threshold.map_or(Ok(()), check_threshold)?;
            policy.migration_threshold = *threshold;
            "migration-threshold"
        }
        Setting::FailureTimeout(timeout) => {
            timeout.map_or(Ok(()), check_failure_timeout)?;
            policy.failure_timeout = *timeout;
            "failure-timeout"
        }
        Setting::ServiceFailfast(on) => {
            policy.service_failfast = *on;
            "service-failfast"
        }
        Setting::NodeFailfast(on) => {
            policy.node_failfast = *on;
            "node-failfast"
        }
        Setting::Maintenance(on) => {
            policy.maintenance = *on;
            "maintenance"
        }
        Setting::IgnoresConnectivity(on) => {
            policy.ignores_connectivity = *on;
            "connectivity"
        }
    };
    if node.is_some() {
        let tag = &resource.tag;
        return Err(Refusal(format!("{name} holds for '{tag}' as a whole: set it without --node")));
    }
    Ok(true)
}

fn set_on_nodes(
    state: &ClusterState,
    resource: &mut Resource,
    node: Option<NodeId>,
    setting: &Setting,
) -> Result<()> {
    let tag = resource.tag.clone();
    match (setting, node) {
        (Setting::Priority(priority), Some(id)) => {
            resources::check_priority_free(state, resource, id, *priority)?;
        }
        (Setting::Priority(priority), None) if resource.nodes.len() != 1 => {
            return Err(Refusal(format!(
                "a priority belongs to one node: name it with 'vipctl set {tag} priority={priority} --node NODE'"
            )));
        }
        (Setting::Source(true), _) if resource.addresses().subnets().all(|s| s.addr().is_ipv6()) => {
            return Err(Refusal(format!(
                "'{tag}' has no IPv4 address, and a source address setting is for IPv4 only (row IP-12): choose the \
                 source in the application, or with 'ip -6 route'"
            )));
        }
        (_, Some(_) | None) => {}
    }
    let mut nodes = resource.nodes.clone();
    for (id, settings) in nodes.iter_mut().filter(|(id, _)| node.is_none_or(|n| n == **id)) {
        set_on_node(settings, setting);
        let node = state.nodes.get(id).ok_or_else(|| no_node(*id))?;
        check_settings(state, resource, node, settings)?;
    }
    resource.nodes = nodes;
    Ok(())
}

fn set_on_node(settings: &mut NodeSettings, setting: &Setting) {
    match setting {
        Setting::Priority(priority) => settings.priority = *priority,
        Setting::Devices(devices) => settings.devices.clone_from(devices),
        Setting::RestoreAndRecover(enabled) => settings.restore_and_recover = *enabled,
        Setting::Source(enabled) => settings.source = *enabled,
        Setting::Switchback(_)
        | Setting::OnConflict(_)
        | Setting::Accept(_)
        | Setting::Subnets(_)
        | Setting::Stickiness(_)
        | Setting::MigrationThreshold(_)
        | Setting::FailureTimeout(_)
        | Setting::ServiceFailfast(_)
        | Setting::NodeFailfast(_)
        | Setting::Maintenance(_)
        | Setting::IgnoresConnectivity(_) => {}
    }
}

pub(super) fn set_default(state: &mut ClusterState, setting: &DefaultSetting) -> Result<Applied> {
    let Defaults { stickiness, migration_threshold, failure_timeout, maintenance, two_nodes } =
        &mut state.defaults;
    match setting {
        DefaultSetting::Stickiness(score) => *stickiness = *score,
        DefaultSetting::MigrationThreshold(threshold) => {
            check_threshold(*threshold)?;
            *migration_threshold = *threshold;
        }
        DefaultSetting::FailureTimeout(timeout) => {
            check_failure_timeout(*timeout)?;
            *failure_timeout = *timeout;
        }
        DefaultSetting::Maintenance(on) => *maintenance = *on,
        DefaultSetting::TwoNodes(TwoNodes::TieBreaker) if state.connectivity.hosts.is_empty() => {
            return Err(Refusal::new(
                "two-nodes=tie-breaker asks the connectivity hosts, and there are none: name what both nodes reach and \
                 is no part of either, such as their routers, with 'vipctl connectivity add HOST' first",
            ));
        }
        DefaultSetting::TwoNodes(policy) => *two_nodes = *policy,
    }
    Ok(Applied::Done)
}

fn check_threshold(threshold: Threshold) -> Result<()> {
    match threshold {
        Threshold::Failures(0) => Err(Refusal::new(
            "a migration threshold of 0 failures would leave a resource nowhere to be: use 1 or more, or 'unlimited'",
        )),
        Threshold::Failures(_) | Threshold::Unlimited => Ok(()),
    }
}

fn check_failure_timeout(timeout: Duration) -> Result<()> {
    let (least, most) = FAILURE_TIMEOUT;
    if timeout < least || timeout > most {
        return Err(Refusal(format!(
            "failures cannot be forgotten after {timeout:?}: use a time from 1 second to 30 days"
        )));
    }
    Ok(())
}
