//! From the SDK's types to ours.

use std::net::Ipv4Addr;

use aws_sdk_ec2::types::{self, RouteOrigin, RouteState};
use ipnet::Ipv4Net;

use crate::{Association, ElasticIp, InterfaceDetails, Route, RouteTable};

/// None without an id: there is nothing that could be done about it.
pub fn table(table: &types::RouteTable) -> Option<RouteTable> {
    Some(RouteTable {
        id: table.route_table_id()?.to_owned(),
        routes: table.routes().iter().filter_map(route).collect(),
    })
}

fn route(route: &types::Route) -> Option<Route> {
    if is_learned(route) {
        return None;
    }
    let destination: Ipv4Net = route.destination_cidr_block()?.parse().ok()?;
    (destination.prefix_len() == 32).then(|| Route {
        destination,
        target: target(route).unwrap_or_default().to_owned(),
        blackhole: route.state() == Some(&RouteState::Blackhole),
    })
}

/// It came from a virtual private gateway or from a route server, and goes as it came: it stands beside an entry with the
/// same destination, which goes before it, and `ReplaceRoute` knows only the entry.
fn is_learned(route: &types::Route) -> bool {
    matches!(route.origin(), Some(RouteOrigin::EnableVgwRoutePropagation | RouteOrigin::Advertisement))
}

/// A route to an interface that is attached names the instance as well: the interface is what counts.
fn target(route: &types::Route) -> Option<&str> {
    route
        .network_interface_id()
        .or(route.gateway_id())
        .or(route.nat_gateway_id())
        .or(route.instance_id())
        .or(route.vpc_peering_connection_id())
        .or(route.transit_gateway_id())
        .or(route.local_gateway_id())
        .or(route.carrier_gateway_id())
        .or(route.egress_only_internet_gateway_id())
        .or(route.core_network_arn())
}

/// None for what is not an Elastic IP of a VPC.
pub fn elastic_ip(address: &types::Address) -> Option<ElasticIp> {
    Some(ElasticIp {
        address: address.public_ip()?.parse().ok()?,
        allocation: address.allocation_id()?.to_owned(),
        association: address.association_id().map(|id| Association {
            id: id.to_owned(),
            interface: some(address.network_interface_id()),
            instance: some(address.instance_id()),
            private_address: address.private_ip_address().and_then(|address| address.parse().ok()),
        }),
    })
}

pub fn interface(interface: &types::NetworkInterface) -> Option<InterfaceDetails> {
    Some(InterfaceDetails {
        id: interface.network_interface_id()?.to_owned(),
        vpc: interface.vpc_id()?.to_owned(),
        instance: interface.attachment().and_then(|attachment| some(attachment.instance_id())),
        // EC2 always says it; it is on unless switched off.
        source_dest_check: interface.source_dest_check().unwrap_or(true),
        private_addresses: private_addresses(interface),
    })
}

fn private_addresses(interface: &types::NetworkInterface) -> Vec<Ipv4Addr> {
    let mut addresses: Vec<Ipv4Addr> = interface
        .private_ip_addresses()
        .iter()
        .filter_map(|address| address.private_ip_address()?.parse().ok())
        .collect();
    if let Some(primary) = interface.private_ip_address().and_then(|address| address.parse().ok()) {
        // The primary one comes first.
        addresses.retain(|address| *address != primary);
        addresses.insert(0, primary);
    }
    addresses
}

/// Some XML has empty elements for what is not there.
fn some(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}
