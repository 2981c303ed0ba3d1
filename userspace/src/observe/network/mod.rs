//! Links and addresses of this host through rtnetlink.

mod batch;
mod convert;
mod events;
mod exact;
mod kept;
pub(crate) mod netlink;
pub(crate) mod routes;
mod snapshot;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use ipnet::IpNet;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::AddressMessage,
    link::{LinkAttribute, LinkExtentMask, LinkMessage},
};
use nix::libc;
use tokio::sync::broadcast;

use self::{events::Pump, exact::Asker, netlink::Netlink};
pub(crate) use self::{
    kept::{Kept, Source},
    snapshot::{Class, Snapshot, routed},
};
use super::{packet_socket::Sender, shared::Shared};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// All zero where link-layer addresses are not six bytes long.
    pub mac: [u8; 6],
    pub admin_up: bool,
    pub carrier: bool,
    pub loopback: bool,
    /// IFLA_INFO_KIND: veth, bridge, vlan ...; None for a physical device.
    pub kind: Option<String>,
    pub mtu: u32,
}

impl Link {
    /// Whether addresses are resolved there: not on loopback and most tunnels.
    pub(crate) fn is_ethernet(&self) -> bool {
        !self.loopback && self.mac != [0; 6]
    }

    /// The link-layer address as `ip link` writes it.
    pub(crate) fn mac_text(&self) -> String {
        mac_text(self.mac)
    }
}

/// A link-layer address as `ip link` writes it.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// An address on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    pub index: u32,
    /// With the prefix length of its subnet, host bits kept.
    pub address: IpNet,
    pub broadcast: Option<IpAddr>,
    /// IPv4: there is an older address of the same subnet on the interface.
    pub secondary: bool,
    /// IFA_PROTO; [`crate::act::address::PROTOCOL`] marks ours.
    pub protocol: Option<u8>,
    /// Still in duplicate address detection, or failed it.
    pub tentative: bool,
}

/// A change of links or addresses; the receiver reads again what it cares about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkEvent {
    Link {
        index: u32,
        name: String,
    },
    Address {
        index: u32,
        address: IpAddr,
    },
    /// Events were lost: read everything again.
    Resync,
}

/// Why something about this host's network could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("cannot {action}: {source}{}", remedy(source))]
    Io { action: String, source: io::Error },
    #[error("there is no interface '{0}' on this host")]
    NoDevice(String),
}

fn remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM) => "; this needs root, or CAP_NET_ADMIN and CAP_NET_RAW",
        _ => "",
    }
}

impl NetworkError {
    /// For `map_err`: says what was tried.
    pub(crate) fn trying<A: Into<String>>(action: A) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Io { action: action.into(), source }
    }
}

/// Events kept for a slow receiver.
const EVENT_BACKLOG: usize = 4096;

/// A handle on this network namespace's rtnetlink; cheap to clone.
#[derive(Clone)]
pub struct Network {
    pub(crate) netlink: Netlink,
    events: broadcast::Sender<NetworkEvent>,
    snapshot: Arc<Shared<Result<Arc<Snapshot>, String>>>,
    pub(crate) kept: Arc<tokio::sync::Mutex<Kept>>,
    /// The looks at what of that is still needed.
    pub(crate) tidied: Arc<Shared<Result<(), String>>>,
    asker: Arc<Asker>,
    /// Opened when it is first needed.
    sender: Arc<Mutex<Option<Arc<Sender>>>>,
    _pump: Arc<Pump>,
}

/// A route by which this host accepts packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LocalRoute {
    pub(crate) net: IpNet,
    pub(crate) index: u32,
    /// RTA_PROTOCOL; [`crate::act::address::PROTOCOL`] marks ours.
    pub(crate) protocol: u8,
}

impl Network {
    /// Opens the netlink sockets in the calling thread's namespace and spawns the tasks that serve
    /// them; they end with the last clone. Needs a tokio runtime whose threads are in that namespace.
    pub fn open() -> Result<Self, NetworkError> {
        let events = broadcast::channel(EVENT_BACKLOG).0;
        let pump = Pump::start(events.clone())
            .map_err(NetworkError::trying("subscribe to netlink's notifications"))?;
        let netlink = Netlink::open().map_err(NetworkError::trying("open a netlink socket"))?;
        let asker = Asker::open().map_err(NetworkError::trying("open a socket for questions"))?;
        let (snapshot, sender) = (Arc::default(), Arc::default());
        let (kept, tidied) = (Arc::default(), Arc::default());
        let (asker, pump) = (Arc::new(asker), Arc::new(pump));
        Ok(Self { netlink, events, snapshot, kept, tidied, asker, sender, _pump: pump })
    }

    /// What changes from now on. A receiver that is told `Lagged` has lost events: the same as
    /// [`NetworkEvent::Resync`].
    pub fn events(&self) -> broadcast::Receiver<NetworkEvent> {
        self.events.subscribe()
    }

    /// All interfaces.
    pub async fn links(&self) -> Result<Vec<Link>, NetworkError> {
        links(&self.netlink).await
    }

    /// `NoDevice` when there is none of that name.
    pub async fn link(&self, name: &str) -> Result<Link, NetworkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match self.netlink.get(RouteNetlinkMessage::GetLink(message)).await {
            Ok(found) => found
                .iter()
                .find_map(as_link)
                .filter(|link| link.name == name)
                .ok_or_else(|| NetworkError::NoDevice(name.to_owned())),
            // A name that is too long is refused with EINVAL or ERANGE: no interface has it either.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENODEV | libc::EINVAL | libc::ERANGE)) => {
                Err(NetworkError::NoDevice(name.to_owned()))
            }
            Err(e) => Err(NetworkError::trying(format!("read interface '{name}'"))(e)),
        }
    }

    /// All addresses of all interfaces.
    pub async fn addresses(&self) -> Result<Vec<Assigned>, NetworkError> {
        addresses(&self.netlink, 0).await
    }

    /// The addresses of one interface; none when there is no such interface.
    pub async fn addresses_on(&self, ifindex: u32) -> Result<Vec<Assigned>, NetworkError> {
        addresses(&self.netlink, ifindex).await
    }

    /// All that this host accepts packets for, as it was at some moment after the call. Many callers at
    /// once share a dump: with thousands of addresses, one dump for each operation would be quadratic.
    pub(crate) async fn snapshot(&self) -> Result<Arc<Snapshot>, NetworkError> {
        let read = || async {
            let snapshot = Snapshot::read(&self.netlink).await.map_err(|e| e.to_string())?;
            Ok(Arc::new(snapshot))
        };
        self.snapshot
            .get(read)
            .await
            .map_err(|reason| NetworkError::trying("know this host's addresses")(io::Error::other(reason)))
    }

    /// The last one that somebody asked for, however old, if there was any.
    pub(crate) async fn last_snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.last().await.and_then(Result::ok)
    }

    /// The IPv4 address on that interface, with its prefix length, if it is there. Cheap.
    pub(crate) fn find4(&self, link: &Link, address: Ipv4Addr) -> Option<IpNet> {
        self.asker.find(link, address)
    }

    /// Where the IPv6 address is, if anywhere. Cheap.
    pub(crate) async fn find6(&self, address: Ipv6Addr) -> Result<Option<Assigned>, NetworkError> {
        exact::find6(&self.netlink, address).await
    }
}

impl Network {
    /// The one socket through which this process sends its frames.
    pub(crate) fn sender(&self) -> io::Result<Arc<Sender>> {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*sender {
            return Ok(Arc::clone(sender));
        }
        let opened = Arc::new(Sender::open()?);
        *sender = Some(Arc::clone(&opened));
        Ok(opened)
    }
}

pub(crate) async fn links(netlink: &Netlink) -> Result<Vec<Link>, NetworkError> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let found = netlink.dump(RouteNetlinkMessage::GetLink(message)).await;
    let found = found.map_err(NetworkError::trying("list the interfaces"))?;
    Ok(found.iter().filter_map(as_link).collect())
}

/// The addresses of one interface, or of all (0).
pub(crate) async fn addresses(netlink: &Netlink, ifindex: u32) -> Result<Vec<Assigned>, NetworkError> {
    let mut message = AddressMessage::default();
    message.header.index = ifindex;
    let found = match netlink.dump(RouteNetlinkMessage::GetAddress(message)).await {
        Err(e) if ifindex != 0 && e.raw_os_error() == Some(libc::ENODEV) => Vec::new(),
        found => found.map_err(NetworkError::trying("list the addresses"))?,
    };
    let assigned = found.iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewAddress(address) => convert::assigned(address),
        _ => None,
    });
    // Kernels before 4.20 do not filter.
    Ok(assigned.filter(|a| ifindex == 0 || a.index == ifindex).collect())
}

fn as_link(message: &RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(link) => Some(convert::link(link)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_layer_addresses_are_written_as_usual() {
        assert_eq!(mac_text([0, 1, 0xab, 3, 4, 0xff]), "00:01:ab:03:04:ff");
    }
}
