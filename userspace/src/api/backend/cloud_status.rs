//! The resources in EC2 in `status`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::status::ms;
use crate::{
    api::{CloudStatus, ResourceStatus, in_cloud::InCloud},
    core::time::BootTime,
    model::{Addresses, Cloud, ClusterState, Resource},
};

/// What a resource is about: its own addresses, those to which its routes lead, or its Elastic IP.
pub(super) fn addresses(state: &ClusterState, resource: &Resource) -> Addresses {
    match resource.cloud() {
        None => resource.addresses().clone(),
        Some(Cloud::Route(route)) => {
            state.resources.get(&route.ip).map(|ip| ip.addresses().clone()).unwrap_or_default()
        }
        Some(Cloud::Eip(eip)) => IpNet::from(IpAddr::V4(eip.address)).into(),
    }
}

/// The resource that says on which interface this one is.
pub(super) fn carrier<'a>(state: &'a ClusterState, resource: &'a Resource) -> &'a Resource {
    match resource.cloud() {
        Some(Cloud::Route(route)) => state.resources.get(&route.ip).unwrap_or(resource),
        None | Some(Cloud::Eip(_)) => resource,
    }
}

/// As far as this node knows.
pub(super) fn known(known: &InCloud, resource: &Resource, now: BootTime) -> Option<CloudStatus> {
    let facts = known.facts(&resource.tag)?;
    Some(CloudStatus {
        interface: facts.interface,
        targets: facts.targets,
        answered_ms: facts.answered.map(|at| ms(now.since(at))),
        trouble: facts.trouble.as_ref().map(|(what, _)| what.clone()),
        trouble_ms: facts.trouble.as_ref().map(|(_, since)| ms(now.since(*since))),
    })
}

/// Those that are in service here, though it is not known whether they are of use.
pub(super) fn warnings(all: &[ResourceStatus]) -> Vec<String> {
    let troubled = all.iter().filter(|r| r.state == "ISP").filter_map(|r| Some((r, r.cloud.as_ref()?)));
    let troubled = troubled.filter_map(|(r, c)| Some((&r.tag, c.trouble.as_ref()?, c.trouble_ms?)));
    troubled
        .map(|(tag, what, ms)| format!("'{tag}' stays in service; since {} s: {what}", ms / 1000))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::cloud::CloudReport,
        model::{Ec2Eip, Ec2Route, Kind, NodeSettings},
    };

    #[test]
    fn a_route_shows_the_addresses_and_the_interface_of_what_it_follows() {
        let mut state = ClusterState::default();
        let nodes = || [(1, NodeSettings::new(1, vec!["eth1".into()]))];
        let ip = Resource::new("web".parse().unwrap(), "10.9.0.5/32".parse::<IpNet>().unwrap(), nodes());
        state.resources.insert(ip.tag.clone(), ip.clone());
        let route = Kind::Ec2Route(Ec2Route { ip: ip.tag.clone(), region: None });
        let route = Resource::of_kind("r".parse().unwrap(), route, [(1, NodeSettings::new(1, vec![]))]);
        assert_eq!((&addresses(&state, &route), carrier(&state, &route)), (ip.addresses(), &ip));
        let eip = Kind::Ec2Eip(Ec2Eip { address: [198, 51, 100, 7].into(), region: None });
        let eip = Resource::of_kind("e".parse().unwrap(), eip, nodes());
        assert_eq!(addresses(&state, &eip).to_string(), "198.51.100.7/32");
        assert_eq!(carrier(&state, &eip), &eip);

        let all = InCloud::default();
        assert_eq!(known(&all, &route, BootTime(0)), None);
        let report = CloudReport { trouble: Some("silent".into()), ..CloudReport::default() };
        all.learn(&route.tag, &report, BootTime(1_000_000));
        let status = known(&all, &route, BootTime(6_000_000)).unwrap();
        assert_eq!((status.trouble_ms, status.answered_ms), (Some(5), None));
    }
}
