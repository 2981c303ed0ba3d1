//! Which resources a status lists, and how many entries they take: thousands stay readable and quick.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    api::{ResourceNodeStatus, ResourceStatus, Run, Selection},
    model::{ClusterState, Kind, Resource},
};

/// Entries for the selected resources, and how many of them are in each state.
pub fn select(
    selection: &Selection,
    state: &ClusterState,
    all: impl Iterator<Item = ResourceStatus>,
) -> (Vec<ResourceStatus>, BTreeMap<String, usize>) {
    let fits = |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|w| Some(w) == is);
    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    let mut entries: Vec<ResourceStatus> = all
        .filter(|r| fits(&selection.owner, r.owner.as_deref()))
        .filter(|r| selection.state.as_deref().is_none_or(|s| s.eq_ignore_ascii_case(&r.state)))
        .filter(|r| {
            let Some(pattern) = &selection.pattern else { return true };
            state.resources.get(&r.tag).is_some_and(|resource| matches(pattern, resource))
        })
        .inspect(|r| *states.entry(r.state.clone()).or_default() += 1)
        .collect();
    if selection.join_above.is_some_and(|most| entries.len() > most) {
        entries = join(entries);
    }
    let limit = selection.limit.unwrap_or(usize::MAX);
    (entries.into_iter().skip(selection.offset).take(limit).collect(), states)
}

/// A tag with wildcards, a part of a tag, or an address.
fn matches(pattern: &str, resource: &Resource) -> bool {
    if let Ok(address) = pattern.parse::<IpAddr>()
        && (resource.addresses().contains(address) || is_elastic_ip(resource, address))
    {
        return true;
    }
    let tag = resource.tag.as_str();
    if pattern.contains(['*', '?']) {
        glob(pattern.as_bytes(), tag.as_bytes())
    } else {
        tag.contains(pattern)
    }
}

fn is_elastic_ip(resource: &Resource, address: IpAddr) -> bool {
    matches!(&resource.kind, Kind::Ec2Eip(eip) if address == eip.address)
}

/// `*` for anything, `?` for one character.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star does not fit: one character further.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            Some(_) | None => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// By address; resources at consecutive addresses that are alike in everything shown become one entry.
fn join(mut all: Vec<ResourceStatus>) -> Vec<ResourceStatus> {
    all.sort_by(|a, b| (a.address.addr(), &a.tag).cmp(&(b.address.addr(), &b.tag)));
    let mut joined: Vec<ResourceStatus> = Vec::new();
    for next in all {
        match joined.last_mut() {
            Some(run) if follows(run, &next) => extend(run, &next),
            Some(_) | None => joined.push(next),
        }
    }
    joined
}

fn extend(run: &mut ResourceStatus, next: &ResourceStatus) {
    let count = run.run.as_ref().map_or(1, |r| r.count) + 1;
    run.run = Some(Run { count, last_tag: next.tag.clone(), last_address: next.address });
    run.packets = [run.packets, next.packets].into_iter().flatten().reduce(u64::saturating_add);
}

fn follows(a: &ResourceStatus, b: &ResourceStatus) -> bool {
    let last = a.run.as_ref().map_or(a.address, |r| r.last_address);
    // Epochs differ between resources as a matter of course, and are shown by `vipctl show`.
    successor(last.addr()) == Some(b.address.addr())
        && (a.addresses, b.addresses) == (1, 1)
        && last.prefix_len() == b.address.prefix_len()
        && a.kind == b.kind
        && a.state == b.state
        && a.owner == b.owner
        && a.device == b.device
        && a.accept == b.accept
        && a.choice == b.choice
        && (&a.cloud, &b.cloud) == (&None, &None)
        && a.nodes.len() == b.nodes.len()
        && a.nodes.iter().zip(&b.nodes).all(|(x, y)| same_on_node(x, y))
}

fn same_on_node(x: &ResourceNodeStatus, y: &ResourceNodeStatus) -> bool {
    x.node == y.node
        && x.state == y.state
        && x.priority == y.priority
        && x.reason == y.reason
        && x.failures == y.failures
}

fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|b| IpAddr::V4(b.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|b| IpAddr::V6(b.into())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Accept, NodeSettings};

    fn resource(address: &str, state: &str, owner: &str) -> ResourceStatus {
        ResourceStatus {
            tag: format!("ip-{}", address.split('/').next().unwrap()).parse().unwrap(),
            kind: "ip".into(),
            address: address.parse().unwrap(),
            addresses: 1,
            span: address.into(),
            accept: Accept::Assign,
            accept_reason: String::new(),
            state: state.into(),
            owner: Some(owner.into()),
            epoch: 1,
            device: Some("eth0".into()),
            nodes: vec![ResourceNodeStatus {
                node: owner.into(),
                priority: 1,
                state: state.into(),
                reason: None,
                failures: 0,
            }],
            choice: None,
            packets: Some(2),
            cloud: None,
            run: None,
        }
    }

    fn known(all: &[ResourceStatus]) -> ClusterState {
        let mut state = ClusterState::default();
        for r in all {
            let nodes = [(1, NodeSettings::new(1, vec!["eth0".into()]))];
            state.resources.insert(r.tag.clone(), Resource::new(r.tag.clone(), r.address, nodes));
        }
        state
    }

    fn chosen(selection: Selection, all: &[ResourceStatus]) -> Vec<String> {
        let (entries, _) = select(&selection, &known(all), all.iter().cloned());
        entries.iter().map(|r| r.tag.to_string()).collect()
    }

    #[test]
    fn runs_are_joined_and_breaks_are_kept() {
        let mut all = vec![
            resource("10.0.0.10/24", "ISP", "a"),
            resource("10.0.0.9/24", "ISP", "a"),
            resource("10.0.0.11/24", "OSU", "a"),
            resource("10.0.0.12/24", "OSU", "b"),
            resource("10.0.0.14/24", "OSU", "b"),
            resource("10.0.0.15/25", "OSU", "b"),
            resource("10.0.0.16/25", "OSU", "b"),
        ];
        all[6].addresses = 2;
        let joining = Selection { join_above: Some(3), ..Selection::default() };
        let (entries, states) = select(&joining, &known(&all), all.iter().cloned());
        assert_eq!(entries.len(), 6);
        let first = &entries[0];
        let run = first.run.as_ref().unwrap();
        assert_eq!(
            (first.tag.as_str(), run.count, run.last_tag.as_str()),
            ("ip-10.0.0.9", 2, "ip-10.0.0.10")
        );
        assert_eq!((run.last_address.to_string().as_str(), first.packets), ("10.0.0.10/24", Some(4)));
        assert!(entries[1..].iter().all(|e| e.run.is_none()));
        assert_eq!(states, [("ISP".to_owned(), 2), ("OSU".to_owned(), 5)].into());
        let few = Selection { join_above: Some(7), ..Selection::default() };
        assert_eq!(chosen(few, &all).len(), 7);
    }

    #[test]
    fn by_pattern_owner_state_and_page() {
        let all = [
            resource("10.0.0.9/24", "ISP", "a"),
            resource("10.0.0.10/24", "ISP", "b"),
            resource("10.0.0.99/24", "OSF", "b"),
        ];
        let some = |s: &str| Some(s.to_owned());
        let pattern = |p: &str| chosen(Selection { pattern: some(p), ..Selection::default() }, &all);
        assert_eq!(pattern("ip-10.0.0.9"), ["ip-10.0.0.9", "ip-10.0.0.99"], "a part");
        assert_eq!(pattern("10.0.0.10"), ["ip-10.0.0.10"], "an address");
        assert_eq!(pattern("ip-*.9?"), ["ip-10.0.0.99"]);
        assert_eq!(pattern("*9"), ["ip-10.0.0.9", "ip-10.0.0.99"]);
        assert!(pattern("web*").is_empty() && pattern("*9?x").is_empty());
        assert_eq!(chosen(Selection { owner: some("b"), ..Selection::default() }, &all).len(), 2);
        assert_eq!(chosen(Selection { state: some("osf"), ..Selection::default() }, &all), ["ip-10.0.0.99"]);
        let page = Selection { limit: Some(1), offset: 1, ..Selection::default() };
        let (entries, states) = select(&page, &known(&all), all.iter().cloned());
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].tag.as_str(), "ip-10.0.0.10");
        assert_eq!(states.values().sum::<usize>(), 3, "all that match are counted");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_doubled(hosts in proptest::collection::btree_set(0u8..=255, 0..60), odd: u8) {
            let all: Vec<ResourceStatus> = hosts
                .iter()
                .map(|h| resource(&format!("10.0.0.{h}/24"), if h % 7 == odd % 7 { "OSU" } else { "ISP" }, "a"))
                .collect();
            let joining = Selection { join_above: Some(0), ..Selection::default() };
            let (entries, states) = select(&joining, &known(&all), all.iter().cloned());
            let count: usize = entries.iter().map(|e| e.run.as_ref().map_or(1, |r| r.count)).sum();
            prop_assert_eq!(count, all.len());
            prop_assert_eq!(states.values().sum::<usize>(), all.len());
        }

        #[test]
        fn a_pattern_of_a_text_matches_it(text in "[ab]{0,8}", at in 0usize..8, len in 0usize..8) {
            let at = at.min(text.len());
            let end = (at + len).min(text.len());
            let pattern = format!("{}*{}", &text[..at], &text[end..]);
            prop_assert!(glob(pattern.as_bytes(), text.as_bytes()));
            prop_assert_eq!(glob(text.replace('a', "?").as_bytes(), text.as_bytes()), true);
        }
    }
}
