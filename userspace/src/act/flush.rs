//! Forgets what the kernel has learnt: neighbours and route exceptions.

use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use nix::libc;

use crate::observe::network::{Link, Network, NetworkError};

/// Writing to these empties the caches of learnt route exceptions.
const ROUTE_CACHES: [&str; 2] = ["/proc/sys/net/ipv4/route/flush", "/proc/sys/net/ipv6/route/flush"];

impl Network {
    /// Forgets learnt route exceptions (redirects, path MTUs). Where /proc/sys cannot be written
    /// (containers, a hardened unit) this is left to the kernel, which does the same by itself at
    /// every change of an IPv4 address.
    pub async fn flush_route_cache(&self) -> Result<(), NetworkError> {
        for path in ROUTE_CACHES {
            match std::fs::write(path, "-1") {
                Ok(()) => {}
                Err(e)
                    if matches!(
                        e.raw_os_error(),
                        Some(libc::ENOENT | libc::EROFS | libc::EACCES | libc::EPERM)
                    ) =>
                {
                    tracing::debug!(path, error = %e, "the route cache is left to the kernel");
                }
                Err(e) => return Err(NetworkError::trying(format!("flush the route cache ({path})"))(e)),
            }
        }
        Ok(())
    }

    /// Forgets the neighbours learnt on the interface; entries that somebody configured stay.
    pub async fn flush_neighbours(&self, link: &Link) -> Result<(), NetworkError> {
        let failed = || NetworkError::trying(format!("flush the neighbour entries of {}", link.name));
        let mut filter = NeighbourMessage::default();
        filter.attributes.push(NeighbourAttribute::IfIndex(link.index));
        let found = match self.netlink.dump(RouteNetlinkMessage::GetNeighbour(filter)).await {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
            found => found.map_err(failed())?,
        };
        let learnt = found.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(n) if n.header.ifindex == link.index => learnt(&n),
            _ => None,
        });
        let deletions: Vec<_> = learnt.map(RouteNetlinkMessage::DelNeighbour).collect();
        let refused = self.netlink.change_all(deletions, 0).await.map_err(failed())?;
        let gone = |errno| matches!(errno, Some(libc::ENOENT | libc::ENODEV));
        match refused.into_iter().find(|r| !gone(r.error.raw_os_error())) {
            Some(refusal) => Err(failed()(refusal.error)),
            None => Ok(()),
        }
    }
}

/// What to delete, if the entry was learnt.
fn learnt(neighbour: &NeighbourMessage) -> Option<NeighbourMessage> {
    if matches!(neighbour.header.state, NeighbourState::Permanent | NeighbourState::Noarp) {
        return None;
    }
    let destination = neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(address) => Some(address.clone()),
        _ => None,
    })?;
    let mut entry = NeighbourMessage::default();
    entry.header.family = neighbour.header.family;
    entry.header.ifindex = neighbour.header.ifindex;
    entry.attributes.push(NeighbourAttribute::Destination(destination));
    Some(entry)
}
