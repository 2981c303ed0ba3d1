//! Hundreds of alike addresses in one line each run.

use std::net::IpAddr;

use crate::api::{ResourceNodeStatus, ResourceStatus};

/// Resources at consecutive addresses that are alike in everything shown.
pub struct Group<'a> {
    pub members: Vec<&'a ResourceStatus>,
}

impl<'a> Group<'a> {
    pub fn first(&self) -> &'a ResourceStatus {
        self.members[0]
    }

    fn last(&self) -> &'a ResourceStatus {
        self.members[self.members.len() - 1]
    }

    /// `ip-10.0.0.1`, or `ip-10.0.0.1 .. ip-10.0.0.9 (9)`
    pub fn tags(&self) -> String {
        match self.members.len() {
            1 => self.first().tag.to_string(),
            n => format!("{} .. {} ({n})", self.first().tag, self.last().tag),
        }
    }

    /// `10.0.0.1/24`, or `10.0.0.1 .. 10.0.0.9/24`
    pub fn addresses(&self) -> String {
        match self.members.len() {
            1 => self.first().address.to_string(),
            _ => format!("{} .. {}", self.first().address.addr(), self.last().address),
        }
    }

    /// Frames received for all of them; None where nobody counts.
    pub fn packets(&self) -> Option<u64> {
        self.members.iter().filter_map(|m| m.packets).reduce(u64::saturating_add)
    }
}

/// By address; runs of alike ones together when `join`.
pub fn groups(resources: &[ResourceStatus], join: bool) -> Vec<Group<'_>> {
    let mut sorted: Vec<&ResourceStatus> = resources.iter().collect();
    sorted.sort_by_key(|r| (r.address.addr(), &r.tag));
    let mut groups: Vec<Group<'_>> = Vec::new();
    for resource in sorted {
        match groups.last_mut() {
            Some(group) if join && follows(group.last(), resource) => group.members.push(resource),
            Some(_) | None => groups.push(Group { members: vec![resource] }),
        }
    }
    groups
}

fn follows(a: &ResourceStatus, b: &ResourceStatus) -> bool {
    // Epochs differ between resources as a matter of course, and are shown by `vipctl show`.
    successor(a.address.addr()) == Some(b.address.addr())
        && a.address.prefix_len() == b.address.prefix_len()
        && a.kind == b.kind
        && a.state == b.state
        && a.owner == b.owner
        && a.device == b.device
        && a.nodes.len() == b.nodes.len()
        && a.nodes.iter().zip(&b.nodes).all(|(x, y)| same_on_node(x, y))
}

fn same_on_node(x: &ResourceNodeStatus, y: &ResourceNodeStatus) -> bool {
    x.node == y.node && x.state == y.state && x.priority == y.priority && x.reason == y.reason
}

fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|b| IpAddr::V4(b.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|b| IpAddr::V6(b.into())),
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    pub fn resource(address: &str, state: &str, owner: &str) -> ResourceStatus {
        ResourceStatus {
            tag: format!("ip-{}", address.split('/').next().unwrap()).parse().unwrap(),
            kind: "ip".into(),
            address: address.parse().unwrap(),
            addresses: 1,
            accept: crate::model::Accept::Assign,
            state: state.into(),
            owner: Some(owner.into()),
            epoch: 1,
            device: Some("eth0".into()),
            nodes: vec![ResourceNodeStatus {
                node: owner.into(),
                priority: 1,
                state: state.into(),
                reason: None,
            }],
            packets: Some(2),
        }
    }

    #[test]
    fn runs_are_joined_and_breaks_are_kept() {
        let all = [
            resource("10.0.0.10/24", "ISP", "a"),
            resource("10.0.0.9/24", "ISP", "a"),
            resource("10.0.0.11/24", "OSU", "a"),
            resource("10.0.0.12/24", "OSU", "b"),
            resource("10.0.0.14/24", "OSU", "b"),
            resource("10.0.0.15/25", "OSU", "b"),
        ];
        let shown: Vec<String> = groups(&all, true).iter().map(Group::addresses).collect();
        assert_eq!(
            shown,
            ["10.0.0.9 .. 10.0.0.10/24", "10.0.0.11/24", "10.0.0.12/24", "10.0.0.14/24", "10.0.0.15/25"]
        );
        assert_eq!(groups(&all, true)[0].tags(), "ip-10.0.0.9 .. ip-10.0.0.10 (2)");
        assert_eq!(groups(&all, true)[0].packets(), Some(4));
        assert_eq!(groups(&all, false).len(), 6);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_doubled(hosts in proptest::collection::btree_set(0u8..=255, 0..60), odd: u8) {
            let all: Vec<ResourceStatus> = hosts
                .iter()
                .map(|h| resource(&format!("10.0.0.{h}/24"), if h % 7 == odd % 7 { "OSU" } else { "ISP" }, "a"))
                .collect();
            let members: Vec<_> = groups(&all, true).iter().flat_map(|g| g.members.clone()).map(|r| r.address).collect();
            let expected: Vec<_> = all.iter().map(|r| r.address).collect();
            prop_assert_eq!(members, expected);
        }
    }
}
