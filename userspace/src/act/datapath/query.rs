//! Which XDP program an interface has, asked of rtnetlink: attaching must never replace a stranger's.

use std::os::fd::AsRawFd as _;

use aya::programs::loaded_programs;
use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp},
};
use nix::{
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt,
        socket, sockopt::ReceiveTimeout,
    },
    sys::time::{TimeVal, TimeValLike as _},
};

/// One answer holds all attributes of one link.
const ANSWER_MAX: usize = 64 * 1024;

/// Ids of the XDP programs on an interface: one per mode (generic, native, offloaded).
pub(super) fn xdp_programs(ifindex: u32) -> std::io::Result<Vec<u32>> {
    Ok(programs(&link(ifindex)?))
}

/// All that rtnetlink says of one link of this network namespace.
pub(super) fn link(ifindex: u32) -> std::io::Result<LinkMessage> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    // The kernel answers at once; this is for the case that it does not.
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(1))?;

    let mut link = LinkMessage::default();
    link.header.index = ifindex;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut request = NetlinkMessage::new(header, RouteNetlinkMessage::GetLink(link).into());
    request.finalize();
    let mut buffer = vec![0; request.buffer_len()];
    request.serialize(&mut buffer);
    sendto(socket.as_raw_fd(), &buffer, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;

    let mut answer = vec![0; ANSWER_MAX];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer[..length])
        .map_err(std::io::Error::other)?;
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(link),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        other => Err(std::io::Error::other(format!("unexpected answer to RTM_GETLINK: {other:?}"))),
    }
}

fn programs(link: &LinkMessage) -> Vec<u32> {
    let mut ids: Vec<u32> = link
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkAttribute::Xdp(xdp) => Some(xdp),
            _ => None,
        })
        .flatten()
        .filter_map(|xdp| match xdp {
            LinkXdp::ProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::HwProgId(id) => {
                Some(*id)
            }
            _ => None,
        })
        .filter(|id| *id != 0)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// "'name' (id 7)", for an operator to read.
pub(super) fn describe(id: u32) -> String {
    let name = loaded_programs()
        .flatten()
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned));
    match name {
        Some(name) => format!("'{name}' (id {id})"),
        None => format!("id {id}"),
    }
}
