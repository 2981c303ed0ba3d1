//! All that this host accepts packets for, at one moment.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use super::{Assigned, LocalRoute, NetworkError, addresses, netlink::Netlink, routes};
use crate::model::{Range, Ranges};

/// Local routes that have the same owner, interface and kind of prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class {
    pub(crate) index: u32,
    pub(crate) protocol: u8,
    /// For one address, not for a prefix.
    pub(crate) host: bool,
}

pub(crate) struct Snapshot {
    all: Vec<Assigned>,
    by_address: HashMap<IpAddr, Vec<usize>>,
    /// What local routes cover, but for those that the kernel made itself.
    routed: BTreeMap<Class, Ranges>,
}

impl Snapshot {
    pub(crate) async fn read(netlink: &Netlink) -> Result<Self, NetworkError> {
        let all = addresses(netlink, 0).await?;
        let routes = routes::local(netlink, routes::Of::Anybody).await?;
        Ok(Self::new(all, &routes))
    }

    fn new(all: Vec<Assigned>, routes: &[LocalRoute]) -> Self {
        let mut by_address = HashMap::<_, Vec<_>>::with_capacity(all.len());
        for (i, assigned) in all.iter().enumerate() {
            by_address.entry(assigned.address.addr()).or_default().push(i);
        }
        Self { all, by_address, routed: routed(routes) }
    }

    /// Where the address is assigned: usually nowhere or once.
    pub(crate) fn find(&self, address: IpAddr) -> impl Iterator<Item = &Assigned> {
        self.by_address.get(&address).into_iter().flatten().map(|&i| &self.all[i])
    }

    pub(crate) fn assigned(&self) -> &[Assigned] {
        &self.all
    }

    pub(crate) fn routed(&self) -> &BTreeMap<Class, Ranges> {
        &self.routed
    }

    /// Whether this host accepts packets for the address, in whichever way.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.by_address.contains_key(&address) || self.routed.values().any(|r| r.contains(address))
    }
}

pub(crate) fn routed(routes: &[LocalRoute]) -> BTreeMap<Class, Ranges> {
    let mut classes = BTreeMap::<Class, Vec<Range>>::new();
    for LocalRoute { net, index, protocol } in routes {
        let class =
            Class { index: *index, protocol: *protocol, host: net.prefix_len() == net.max_prefix_len() };
        classes.entry(class).or_default().push((*net).into());
    }
    classes.into_iter().map(|(class, ranges)| (class, ranges.into())).collect()
}
