//! Neighbour solicitations for addresses that are not assigned: the kernel joins no solicited-node group
//! for them, so a network card drops what XDP is to answer, unless it lets all multicast through.

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkFlags, LinkMessage},
};
use nix::libc;

use crate::observe::network::{Kept, Link, Network, NetworkError};

impl Network {
    /// Switches allmulticast on. Whether that was vipd is known only to this process: after a restart it
    /// stays on, which costs the host a look at each multicast frame, where switching off what an
    /// administrator wants would lose frames.
    pub(super) async fn hear_all(&self, link: &Link, kept: &mut Kept) -> Result<(), NetworkError> {
        if !link.is_ethernet() || self.hears_all(link.index).await? != Some(false) {
            return Ok(());
        }
        self.set_allmulti(link.index, true).await?;
        kept.allmulti.insert(link.index);
        Ok(())
    }

    /// Switches off what was switched on here, on the interfaces that do not need it any more.
    pub(super) async fn stop_hearing_all(
        &self,
        kept: &mut Kept,
        needed: impl Fn(u32) -> bool,
    ) -> Result<(), NetworkError> {
        let idle: Vec<u32> = kept.allmulti.iter().copied().filter(|index| !needed(*index)).collect();
        for index in idle {
            self.set_allmulti(index, false).await?;
            kept.allmulti.remove(&index);
        }
        Ok(())
    }

    /// None when there is no such interface.
    async fn hears_all(&self, index: u32) -> Result<Option<bool>, NetworkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.netlink.get(RouteNetlinkMessage::GetLink(message)).await {
            Ok(found) => Ok(found.iter().find_map(|m| match m {
                RouteNetlinkMessage::NewLink(l) => Some(l.header.flags.contains(LinkFlags::Allmulti)),
                _ => None,
            })),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(NetworkError::trying("read the flags of an interface")(e)),
        }
    }

    async fn set_allmulti(&self, index: u32, on: bool) -> Result<(), NetworkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.change_mask = LinkFlags::Allmulti;
        message.header.flags = if on { LinkFlags::Allmulti } else { LinkFlags::empty() };
        match self.netlink.change(RouteNetlinkMessage::SetLink(message), 0).await {
            // An interface that is gone hears nothing.
            Err(e) if !on && e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            result => {
                let way = if on { "on" } else { "off" };
                result
                    .map_err(NetworkError::trying(format!("switch {way} allmulticast for interface {index}")))
            }
        }
    }
}
