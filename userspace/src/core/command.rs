//! What a sequence wants done, and what came of it. The executor is [`crate::act::executor`].

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

use crate::model::Epoch;

/// One effect on this host. Every command is answered with one [`Effect`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// -> `Effect::Link`
    ReadLink { device: String },
    /// -> `Effect::Done`
    SetLink { device: String, up: bool },
    /// -> `Effect::Done`
    Wait { duration: Duration },
    /// -> `Effect::Presence`
    ReadAddress { address: IpNet, device: String },
    /// ARP probe (RFC 5227) or neighbour solicitation -> `Effect::Claims`
    ProbeDuplicate { address: IpAddr, device: String },
    /// Tell the datapath of the address, gate closed -> `Effect::Done`
    Program { address: IpAddr, device: String },
    /// Take the address out of the datapath -> `Effect::Done`
    Unprogram { address: IpAddr },
    /// Allow answers, under the present lease -> `Effect::Done`
    OpenGate { address: IpAddr, epoch: Epoch },
    /// -> `Effect::Done`
    CloseGate { address: IpAddr },
    /// -> `Effect::Done`
    AddAddress { address: IpNet, device: String },
    /// -> `Effect::Done`, also when it was not there
    DeleteAddress { address: IpNet, device: String },
    /// Removes the local host route left behind, if any -> `Effect::Done`
    DeleteHostRoute { address: IpAddr, device: String },
    /// -> `Effect::Done`
    FlushRouteCache,
    /// Forget what the device's neighbours were -> `Effect::Done`
    FlushNeighbours { device: String },
    /// Four gratuitous ARPs or unsolicited advertisements -> `Effect::Done`
    Announce { address: IpAddr, device: String },
    /// Pings all targets at once from the address -> `Effect::Answers`
    PingList { source: IpAddr, device: String, targets: Vec<IpAddr>, tries: u32, wait: Duration },
    /// Broadcast (IPv4) or all-nodes (IPv6) ping from the address; the node's own addresses do not
    /// count -> `Effect::Answers`
    BroadcastPing { source: IpNet, device: String, tries: u32, wait: Duration },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Done,
    Link(LinkState),
    Presence(Presence),
    /// Link-layer addresses (text) of others that use the address.
    Claims(Vec<String>),
    /// Who answered.
    Answers(Vec<IpAddr>),
    /// The effect failed: what was tried and what happened, for an operator to read.
    Failed(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    Missing,
    /// Administratively down.
    Down,
    /// Up without carrier.
    NoCarrier,
    Up,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    Absent,
    /// On the right device with the right prefix length; `ours` by its protocol number.
    Present {
        ours: bool,
    },
    /// On this host, but elsewhere or with another prefix length; `ours` by its protocol number.
    Misplaced {
        device: String,
        prefix_len: u8,
        ours: bool,
    },
}
