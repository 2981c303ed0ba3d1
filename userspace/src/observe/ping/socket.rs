//! Raw ICMP and ICMPv6 sockets that hear nothing but echo replies.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::AsRawFd,
};

use nix::{
    libc,
    net::if_::if_nametoindex,
    sys::socket::{SockaddrIn, SockaddrIn6, SockaddrLike, recvfrom},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use super::echo::Identity;
use crate::observe::packet_socket::readable;

/// `include/uapi/linux/icmp.h`.
const ICMP_FILTER: libc::c_int = 1;
/// `include/uapi/linux/icmpv6.h`.
const ICMPV6_FILTER: libc::c_int = 1;
const ECHO_REPLY_V4: u32 = 0;
const ECHO_REPLY_V6: u32 = 129;

/// One socket for each address family that is pinged.
pub(super) struct Sockets {
    v4: Option<AsyncFd<Socket>>,
    v6: Option<AsyncFd<Socket>>,
    /// Of the device, for IPv6; 0 without one.
    scope: u32,
}

impl Sockets {
    /// `freely`: from a source that is not assigned, as local routes allow; IPv4 needs nothing for that.
    pub(super) fn open(
        source: Option<IpAddr>,
        device: Option<&str>,
        targets: &[IpAddr],
        freely: bool,
    ) -> io::Result<Self> {
        let scope = match device {
            Some(name) => if_nametoindex(name)?,
            None => 0,
        };
        if let Some(source) = source
            && let Some(other) = targets.iter().find(|t| t.is_ipv4() != source.is_ipv4())
        {
            let reason = format!("{other} is of another address family than {source}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let open = |v6| {
            targets
                .iter()
                .any(|t| t.is_ipv6() == v6)
                .then(|| readable(raw(v6, source, device, scope, freely)?))
                .transpose()
        };
        Ok(Self { v4: open(false)?, v6: open(true)?, scope })
    }

    /// Sends one request to each target; an error when not one could be sent.
    pub(super) fn send_all(&self, targets: &[IpAddr], identity: &Identity, n: u16) -> io::Result<()> {
        let (request4, request6) = (identity.request4(n), identity.request6(n));
        let mut failure = None;
        let mut sent = false;
        for target in targets {
            let result = match (target, &self.v4, &self.v6) {
                (IpAddr::V4(a), Some(socket), _) => {
                    socket.get_ref().send_to(&request4, &SocketAddr::from((*a, 0)).into())
                }
                (IpAddr::V6(a), _, Some(socket)) => {
                    let to = SocketAddrV6::new(*a, 0, 0, if is_link_scoped(*a) { self.scope } else { 0 });
                    socket.get_ref().send_to(&request6, &to.into())
                }
                _ => continue,
            };
            match result {
                Ok(_) => sent = true,
                Err(e) => failure = Some(e),
            }
        }
        match failure {
            Some(e) if !sent => Err(e),
            _ => Ok(()),
        }
    }

    /// The next answer: from whom, and to which sequence number. Cancel-safe.
    pub(super) async fn receive(&self, identity: &Identity) -> io::Result<(IpAddr, u16)> {
        let mut buffer4 = [0; 2048];
        let mut buffer6 = [0; 2048];
        tokio::select! {
            heard = heard4(self.v4.as_ref(), &mut buffer4, identity) => heard,
            heard = heard6(self.v6.as_ref(), &mut buffer6, identity) => heard,
        }
    }
}

async fn heard4(
    socket: Option<&AsyncFd<Socket>>,
    buffer: &mut [u8],
    identity: &Identity,
) -> io::Result<(IpAddr, u16)> {
    loop {
        let (length, from) = received::<SockaddrIn>(socket, buffer).await?;
        if let (Some(from), Some(sequence)) = (from, identity.answer4(&buffer[..length])) {
            return Ok((IpAddr::V4(from.ip()), sequence));
        }
    }
}

async fn heard6(
    socket: Option<&AsyncFd<Socket>>,
    buffer: &mut [u8],
    identity: &Identity,
) -> io::Result<(IpAddr, u16)> {
    loop {
        let (length, from) = received::<SockaddrIn6>(socket, buffer).await?;
        if let (Some(from), Some(sequence)) = (from, identity.answer6(&buffer[..length])) {
            return Ok((IpAddr::V6(from.ip()), sequence));
        }
    }
}

/// Never ready without a socket.
async fn received<A: SockaddrLike>(
    socket: Option<&AsyncFd<Socket>>,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<A>)> {
    let Some(socket) = socket else { return std::future::pending().await };
    socket
        .async_io(Interest::READABLE, |socket| recvfrom(socket.as_raw_fd(), buffer).map_err(Into::into))
        .await
}

fn raw(
    v6: bool,
    source: Option<IpAddr>,
    device: Option<&str>,
    scope: u32,
    freely: bool,
) -> io::Result<Socket> {
    let (domain, protocol) =
        if v6 { (Domain::IPV6, Protocol::ICMPV6) } else { (Domain::IPV4, Protocol::ICMPV4) };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if v6 {
        hear_only_v6(&socket)?;
        // This host's own answers to all-nodes pings would not count.
        socket.set_multicast_loop_v6(false)?;
        socket.set_multicast_if_v6(scope)?;
        socket.set_freebind_v6(freely)?;
    } else {
        hear_only_v4(&socket)?;
        socket.set_broadcast(true)?;
    }
    socket.bind_device(device.map(str::as_bytes))?;
    match source {
        Some(IpAddr::V4(a)) => socket.bind(&SocketAddr::from((a, 0)).into())?,
        Some(IpAddr::V6(a)) => {
            let scope = if is_link_scoped(a) { scope } else { 0 };
            socket.bind(&SocketAddrV6::new(a, 0, 0, scope).into())?;
        }
        None if v6 => socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())?,
        None => socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?,
    }
    Ok(socket)
}

fn is_link_scoped(address: Ipv6Addr) -> bool {
    // ff02::/16 is the link-local multicast scope (RFC 4291 section 2.7).
    address.is_unicast_link_local() || address.segments()[0] == 0xff02
}

/// A bit that is set keeps the type away.
fn hear_only_v4(socket: &Socket) -> io::Result<()> {
    let filter: u32 = !(1 << ECHO_REPLY_V4);
    set_option(socket, libc::SOL_RAW, ICMP_FILTER, &filter)
}

/// A bit that is set keeps the type away (Linux's way; RFC 3542 section 3.2 leaves it open).
fn hear_only_v6(socket: &Socket) -> io::Result<()> {
    let mut filter = [u32::MAX; 8];
    filter[(ECHO_REPLY_V6 / 32) as usize] &= !(1 << (ECHO_REPLY_V6 % 32));
    set_option(socket, libc::SOL_ICMPV6, ICMPV6_FILTER, &filter)
}

fn set_option<T: bytemuck::Pod>(
    socket: &Socket,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: the value is plain data, passed with its size, and only read.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
