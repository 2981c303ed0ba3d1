//! Address assignment on this host through rtnetlink.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::observe::network::{Link, Network, NetworkError};

/// IFA_PROTO of every address that vipd adds (Linux 5.18): leftovers are recognised after a crash.
pub const PROTOCOL: u8 = 0x76;

impl Network {
    pub async fn set_link(&self, _link: &Link, _up: bool) -> Result<(), NetworkError> {
        unimplemented!()
    }

    /// Adds a secondary address, without duplicate address detection by the kernel (it is done
    /// before) and, for IPv6, never preferred as a source. It is no error when it is there already.
    pub async fn add_address(&self, _link: &Link, _address: IpNet) -> Result<(), NetworkError> {
        unimplemented!()
    }

    /// It is no error when it is not there.
    pub async fn delete_address(&self, _link: &Link, _address: IpNet) -> Result<(), NetworkError> {
        unimplemented!()
    }

    /// Removes the host route in the local table that a removed address may leave behind.
    pub async fn delete_host_route(&self, _link: &Link, _address: IpAddr) -> Result<(), NetworkError> {
        unimplemented!()
    }

    pub async fn flush_route_cache(&self) -> Result<(), NetworkError> {
        unimplemented!()
    }

    pub async fn flush_neighbours(&self, _link: &Link) -> Result<(), NetworkError> {
        unimplemented!()
    }
}
