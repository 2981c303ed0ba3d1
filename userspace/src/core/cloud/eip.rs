//! Elastic IPs (row EC2-2).

use std::{collections::BTreeSet, net::Ipv4Addr};

use vipd_ec2::{Association, ElasticIp};

use super::{
    Ask, Goal,
    judgement::{Finding, Judgement},
};

/// Looks at the Elastic IP and at what else is on the interface. Others are taken off it first, and the Elastic IP
/// off where it is: an interface has one for its primary address, and an Elastic IP one place.
pub(super) fn judge(
    address: Ipv4Addr,
    eip: Option<&ElasticIp>,
    on_interface: &[ElasticIp],
    interface: &str,
) -> Finding {
    let Some(eip) = eip else {
        let what = format!(
            "this account has no Elastic IP {address} in the region: allocate it, or delete this resource"
        );
        return Finding { targets: Vec::new(), judgement: Judgement::Nothing { what } };
    };
    let place = eip.association.as_ref().map_or_else(|| "nowhere".to_owned(), place);
    let targets = vec![format!("{address} -> {place}")];
    let strangers: Vec<&ElasticIp> = on_interface.iter().filter(|e| e.address != address).collect();
    let is_here = eip.association.as_ref().is_some_and(|a| is_on(a, interface));
    if is_here && strangers.is_empty() {
        return Finding { targets, judgement: Judgement::Right { lacking: None } };
    }
    let mut writes = Vec::new();
    let mut away: Vec<String> =
        strangers.iter().filter_map(|e| e.association.as_ref()).map(|a| a.id.clone()).collect();
    let mut what = Vec::new();
    if !strangers.is_empty() {
        let all: Vec<String> = strangers.iter().map(|e| e.address.to_string()).collect();
        what.push(format!("{interface} has {} as well", all.join(", ")));
    }
    if !is_here {
        what.push(format!("{address} is {}", if place == "nowhere" { place } else { format!("on {place}") }));
        away.extend(eip.association.as_ref().map(|a| a.id.clone()));
    }
    if !away.is_empty() {
        writes.push(Ask::Disassociate { associations: away });
    }
    if !is_here {
        writes.push(Ask::Associate { allocation: eip.allocation.clone(), interface: interface.to_owned() });
    }
    Finding { targets, judgement: Judgement::Wrong { what: what.join("; "), writes } }
}

/// What has to go for the Elastic IP not to be on the interface.
pub(super) fn farewell(eip: Option<&ElasticIp>, interface: &str) -> Option<String> {
    let association = eip?.association.as_ref()?;
    is_on(association, interface).then(|| association.id.clone())
}

/// The associations of all others.
pub(super) fn beside(goal: &Goal, on_interface: &[ElasticIp]) -> BTreeSet<String> {
    let others = on_interface.iter().filter(|e| *goal != Goal::Eip(e.address));
    others.filter_map(|e| Some(e.association.as_ref()?.id.clone())).collect()
}

fn is_on(association: &Association, interface: &str) -> bool {
    association.interface.as_deref() == Some(interface)
}

fn place(association: &Association) -> String {
    match (&association.interface, &association.instance) {
        (Some(interface), Some(instance)) => format!("{interface} of {instance}"),
        (Some(interface), None) => interface.clone(),
        (None, Some(instance)) => instance.clone(),
        (None, None) => association.id.clone(),
    }
}
