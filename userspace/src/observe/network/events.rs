//! The kernel's notifications about links and addresses.

use std::io;

use futures::{StreamExt, channel::mpsc::UnboundedReceiver};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::{
    MulticastGroup,
    proto::Connection,
    sys::{AsyncSocket, SocketAddr},
};
use tokio::{sync::broadcast, task::JoinHandle, time::Duration};

use super::{NetworkEvent, convert};

/// Room for the notifications of about ten thousand addresses that change at once.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;

/// Between two attempts to open the socket again.
const REOPEN_PERIOD: Duration = Duration::from_millis(500);

/// The task that receives notifications; it ends when this is dropped.
pub(super) struct Pump(JoinHandle<()>);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Messages = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

impl Pump {
    /// Subscribes now: whatever changes after the return will be sent to `events`.
    pub(super) fn start(events: broadcast::Sender<NetworkEvent>) -> io::Result<Self> {
        let first = subscribe()?;
        Ok(Self(tokio::spawn(async move {
            let mut subscription = Some(first);
            loop {
                if let Some((connection, messages)) = subscription.take() {
                    tokio::select! {
                        // Ends only when the socket is broken.
                        () = connection => {}
                        () = forward(messages, &events) => {}
                    }
                    tracing::warn!("the netlink socket for notifications was closed; opening it again");
                }
                match subscribe() {
                    Ok(opened) => {
                        subscription = Some(opened);
                        // What happened in between was not heard.
                        let _ = events.send(NetworkEvent::Resync);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot subscribe to netlink notifications; trying again");
                        tokio::time::sleep(REOPEN_PERIOD).await;
                    }
                }
            }
        })))
    }
}

fn subscribe() -> io::Result<(Connection<RouteNetlinkMessage>, Messages)> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (mut connection, _, messages) = rtnetlink::new_multicast_connection(&groups)?;
    let socket = connection.socket_mut().socket_mut();
    // Needs CAP_NET_ADMIN; with less, an overrun only comes sooner, and means reading everything again.
    if let Err(error) = setsockopt(&*socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES) {
        tracing::debug!(%error, "the netlink receive buffer keeps its default size");
    }
    Ok((connection, messages))
}

async fn forward(mut messages: Messages, events: &broadcast::Sender<NetworkEvent>) {
    while let Some((message, _)) = messages.next().await {
        // An error means that nobody listens at present.
        if let Some(event) = event(&message.payload) {
            let _ = events.send(event);
        }
    }
}

fn event(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<NetworkEvent> {
    match payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message),
        ) => {
            let link = convert::link(message);
            Some(NetworkEvent::Link { index: link.index, name: link.name })
        }
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message),
        ) => {
            let assigned = convert::assigned(message)?;
            Some(NetworkEvent::Address { index: assigned.index, address: assigned.address.addr() })
        }
        NetlinkPayload::Overrun(_) => Some(NetworkEvent::Resync),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overrun_means_reading_again() {
        assert_eq!(event(&NetlinkPayload::Overrun(Vec::new())), Some(NetworkEvent::Resync));
        assert_eq!(event(&NetlinkPayload::Noop), None);
    }
}
