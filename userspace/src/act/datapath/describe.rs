//! What the programs need to know of each interface, as entries of the maps.

use std::collections::BTreeMap;

use aya::maps::{MapError, PerCpuValues};
use datapath_common::{
    BroadcastKey, BroadcastSource, INTERFACE_BROADCAST_PING, INTERFACE_ROUTER, Interface, InterfaceActivity,
};

use super::{
    DatapathError, InterfaceFacts,
    bpffs::failed,
    kernel::{Inner, absent_is_fine},
    links::text,
};

impl Inner {
    pub(super) fn write_interface(&mut self, facts: &InterfaceFacts) -> Result<(), DatapathError> {
        let name = &facts.name;
        let wrong = |error| failed(format!("write the map entries of {name}"), text(error));
        let answers = facts.broadcast_pings_per_second;
        let v6 = |address: Option<std::net::Ipv6Addr>| address.map_or([0; 16], |address| address.octets());
        let interface = Interface {
            mac: facts.mac,
            flags: if answers > 0 { INTERFACE_BROADCAST_PING } else { 0 }
                | if facts.router { INTERFACE_ROUTER } else { 0 },
            broadcast_pings_per_second: answers,
            link_local: v6(facts.link_local),
            global_v6: v6(facts.global_v6),
            primary_v4: facts.stationary_v4.first().map_or([0; 4], |(address, _)| address.octets()),
            ..Interface::default()
        };
        self.maps.interfaces.insert(facts.index, interface, 0).map_err(wrong)?;

        let mut wanted = BTreeMap::new();
        for (address, broadcast) in &facts.stationary_v4 {
            // The first address of a subnet is its primary one.
            wanted.entry(broadcast.octets()).or_insert(address.octets());
        }
        self.forget_broadcasts(facts.index, |broadcast| wanted.contains_key(broadcast)).map_err(wrong)?;
        for (broadcast, address) in wanted {
            let key = BroadcastKey { ifindex: facts.index, broadcast };
            self.maps.broadcasts.insert(key, BroadcastSource { address }, 0).map_err(wrong)?;
        }

        match self.maps.interface_activity.get(&facts.index, 0) {
            Ok(_) => Ok(()),
            Err(MapError::KeyNotFound) => {
                let zero = PerCpuValues::try_from(vec![InterfaceActivity::default(); self.cpus])
                    .map_err(|error| failed(format!("write the map entries of {name}"), error))?;
                self.maps.interface_activity.insert(facts.index, zero, 0).map_err(wrong)
            }
            Err(error) => Err(wrong(error)),
        }
    }

    pub(super) fn forget_interface(&mut self, ifindex: u32) -> Result<(), DatapathError> {
        let wrong = |error| failed(format!("forget interface {ifindex}"), text(error));
        self.forget_broadcasts(ifindex, |_| false).map_err(wrong)?;
        absent_is_fine(self.maps.interfaces.remove(&ifindex)).map_err(wrong)?;
        absent_is_fine(self.maps.broadcast_rates.remove(&ifindex)).map_err(wrong)?;
        absent_is_fine(self.maps.interface_activity.remove(&ifindex)).map_err(wrong)
    }

    fn forget_broadcasts(&mut self, ifindex: u32, keep: impl Fn(&[u8; 4]) -> bool) -> Result<(), MapError> {
        let keys: Result<Vec<_>, _> = self.maps.broadcasts.keys().collect();
        for key in keys? {
            if key.ifindex == ifindex && !keep(&key.broadcast) {
                absent_is_fine(self.maps.broadcasts.remove(&key))?;
            }
        }
        Ok(())
    }
}
