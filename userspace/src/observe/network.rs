//! Links and addresses of this host through rtnetlink.

use std::net::IpAddr;

use ipnet::IpNet;
use tokio::sync::broadcast;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mac: [u8; 6],
    pub admin_up: bool,
    pub carrier: bool,
    pub loopback: bool,
    /// IFLA_INFO_KIND: veth, bridge, vlan ...; None for a physical device.
    pub kind: Option<String>,
    pub mtu: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    pub index: u32,
    pub address: IpNet,
    pub broadcast: Option<IpAddr>,
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

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("cannot {action}: {source}")]
    Netlink { action: String, source: rtnetlink::Error },
    #[error("cannot {action}: {source}")]
    Io { action: String, source: std::io::Error },
    #[error("there is no interface '{0}' on this host")]
    NoDevice(String),
}

/// A handle on this network namespace's rtnetlink; cheap to clone.
#[derive(Clone)]
pub struct Network {
    pub(crate) handle: rtnetlink::Handle,
    events: broadcast::Sender<NetworkEvent>,
}

impl Network {
    /// Opens the netlink sockets in the calling thread's namespace and spawns the tasks that serve them.
    pub fn open() -> Result<Self, NetworkError> {
        unimplemented!()
    }

    pub fn events(&self) -> broadcast::Receiver<NetworkEvent> {
        self.events.subscribe()
    }

    pub async fn links(&self) -> Result<Vec<Link>, NetworkError> {
        unimplemented!()
    }

    /// `NoDevice` when there is none of that name.
    pub async fn link(&self, _name: &str) -> Result<Link, NetworkError> {
        unimplemented!()
    }

    pub async fn addresses(&self) -> Result<Vec<Assigned>, NetworkError> {
        unimplemented!()
    }
}
