//! How a new resource accepts packets, where the operator does not say (row IP-17): the kernel takes
//! quadratic time to assign many addresses, and no default may lead there.

use std::collections::BTreeMap;

use super::super::{Context, Result};
use crate::{
    act::datapath::Attachment,
    api::{ApiError, accept_name, thousands},
    core::accept::{Budget, NODE, SET},
    model::{Accept, AcceptBy, Addresses, ClusterState, IpResource, Resource},
    observe::network::Link,
};

/// Why a resource accepts packets in its way, for people.
pub fn reason(ip: &IpResource) -> String {
    let (v4, v6) = (thousands(NODE.v4), NODE.v6);
    match (ip.accept_by, ip.accept) {
        (AcceptBy::Operator, _) => "an operator's choice".to_owned(),
        (AcceptBy::Limit, _) => format!(
            "by default: a node would have more than {v4} assigned IPv4 or {v6} IPv6 addresses, and many take the \
             kernel quadratic time"
        ),
        (AcceptBy::Size, Accept::Assign) => format!("by default: at most {SET} addresses"),
        (AcceptBy::Size, Accept::Route | Accept::Anyip) => format!(
            "by default: more than {SET} addresses, and assigning many takes the kernel quadratic time"
        ),
    }
}

impl Context {
    /// Without an assigned address the kernel answers no neighbour solicitation: XDP has to.
    pub(in crate::api::backend) fn check_xdp(
        &self,
        accept: Accept,
        by: AcceptBy,
        addresses: &Addresses,
        devices: &[&Link],
    ) -> Result<()> {
        if accept == Accept::Assign || !addresses.subnets().any(|s| s.addr().is_ipv6()) {
            return Ok(());
        }
        let attached: BTreeMap<u32, Attachment> = self.datapath.attached().into_iter().collect();
        for link in devices {
            let why = match attached.get(&link.index) {
                Some(Attachment::Native | Attachment::Generic { .. }) => continue,
                Some(Attachment::None { reason }) => format!(" ({reason})"),
                // It is attached once a resource may use it; what comes of that is told by the bring-up.
                None => match self.datapath.unguarded() {
                    None => continue,
                    Some(reason) => format!(" ({reason})"),
                },
            };
            let (way, device) = (accept_name(accept), &link.name);
            let remedy = match by {
                AcceptBy::Operator => {
                    "use assign, or another interface ('vipctl status' shows where XDP is)".to_owned()
                }
                AcceptBy::Size | AcceptBy::Limit => format!(
                    "take fewer addresses, another interface ('vipctl status' shows where XDP is), or --accept assign \
                     if the time is acceptable: up to {} IPv6 addresses a node are quick",
                    NODE.v6
                ),
            };
            return Err(ApiError::refused(format!(
                "IPv6 addresses that are not assigned ({way}) are answered for by XDP alone, and {device} has none{why}: \
                 {remedy}"
            )));
        }
        Ok(())
    }

    /// A set that grows must not be assigned beyond what is by default, unless an operator chose it.
    pub(in crate::api::backend) fn check_growth(
        &self,
        state: &ClusterState,
        resource: &Resource,
        grown: &Addresses,
    ) -> Result<()> {
        let Some(ip) = resource.ip() else { return Ok(()) };
        if ip.accept != Accept::Assign || ip.accept_by == AcceptBy::Operator {
            return Ok(());
        }
        let mut others = state.clone();
        others.resources.remove(&resource.tag);
        match Budget::new(&others).choose(grown, resource.nodes.keys().copied()) {
            (Accept::Assign, _) => Ok(()),
            (better @ (Accept::Route | Accept::Anyip), _) => {
                let (tag, better) = (&resource.tag, accept_name(better));
                Err(ApiError::refused(format!(
                    "'{tag}' assigns its addresses and would have {}, which is too many for the kernel to do so \
                     quickly: 'vipctl set {tag} accept={better}', then 'vipctl out-of-service {tag}' and 'vipctl \
                     in-service {tag}', and then add them; or 'vipctl set {tag} accept=assign' to have it so",
                    thousands(grown.count())
                )))
            }
        }
    }
}
