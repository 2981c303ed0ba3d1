//! From what the nodes met on the network to what an operator is told of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Claim, Claimant, Mac};
use crate::model::NodeId;

/// Who uses an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A node of the cluster, by itself.
    Member(NodeId, Mac),
    Stranger(Mac),
    /// Whoever answered a ping.
    Pinged,
}

/// An address that is in use on the network already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub address: IpAddr,
    /// Who met him, and by which interface.
    pub seen_by: NodeId,
    pub device: String,
    pub who: Who,
}

/// One for each address, in their order. Members that only look for an address, as this check itself does and others
/// may at the same time, do not use it (RFC 5227 would have both give way): which of two changes comes first is
/// decided by the cluster. What `me` saw goes before what others did, and a link-layer address before a ping.
pub fn conflicts(
    claims: &BTreeMap<NodeId, Vec<Claim>>,
    members: &BTreeMap<Mac, NodeId>,
    me: NodeId,
) -> Vec<Conflict> {
    let mut found: BTreeMap<IpAddr, ((bool, bool), Conflict)> = BTreeMap::new();
    for (seen_by, claim) in claims.iter().flat_map(|(node, all)| all.iter().map(move |c| (*node, c))) {
        let who = match claim.by {
            Claimant::Prober(mac) if members.contains_key(&mac) => continue,
            Claimant::Prober(mac) | Claimant::Holder(mac) => match members.get(&mac) {
                Some(node) => Who::Member(*node, mac),
                None => Who::Stranger(mac),
            },
            Claimant::Pinged => Who::Pinged,
        };
        let rank = (seen_by != me, who == Who::Pinged);
        let conflict = Conflict { address: claim.address, seen_by, device: claim.device.clone(), who };
        match found.get(&claim.address) {
            Some((known, _)) if *known <= rank => {}
            Some(_) | None => drop(found.insert(claim.address, (rank, conflict))),
        }
    }
    found.into_values().map(|(_, conflict)| conflict).collect()
}

/// Those who were met probing and are no known members: perhaps members that were not asked yet.
pub fn unknown_probers(
    claims: &BTreeMap<NodeId, Vec<Claim>>,
    members: &BTreeMap<Mac, NodeId>,
) -> BTreeSet<Mac> {
    let probers = claims.values().flatten().filter_map(|claim| match claim.by {
        Claimant::Prober(mac) => Some(mac),
        Claimant::Holder(_) | Claimant::Pinged => None,
    });
    probers.filter(|mac| !members.contains_key(mac)).collect()
}
