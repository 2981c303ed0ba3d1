//! What this process changed for several resources together and has to put back after the last of them.

use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use netlink_packet_route::route::RouteMessage;

/// Whoever decides from what remains on an interface whether something shared is still needed holds this:
/// otherwise two could each leave it to the other.
#[derive(Default)]
pub(crate) struct Kept {
    /// Interfaces whose allmulticast was off before.
    pub(crate) allmulti: HashSet<u32>,
    /// In the order in which they were asked for, each address of an interface once.
    pub(crate) sources: Vec<Source>,
    /// The routes to a subnet on an interface before the first of these was their source.
    pub(crate) routes: HashMap<(u32, Ipv4Net), Vec<RouteMessage>>,
}

/// An address that is to be the source of its subnet's route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) index: u32,
    pub(crate) subnet: Ipv4Net,
    pub(crate) address: Ipv4Addr,
}
