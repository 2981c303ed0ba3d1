//! Headers as they are on the wire, and the way to the handler of each protocol. Fields are 16-bit
//! words in network order (Ethernet, IP and ICMP headers are aligned to two bytes), which keeps the
//! compiler from taking addresses apart byte by byte.

use datapath_common::{Address, Interface, Verdict};

use crate::{
    Outcome, arp,
    frame::{Frame, Wire},
    ipv4, ipv6,
};

pub const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;

#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u16; 3]);

impl Mac {
    /// 33:33:00:00:00:01, to which frames for ff02::1 go (RFC 2464 section 7).
    pub const ALL_NODES: Self = Self([0x3333, 0, u16::from_be_bytes([0, 1]).to_be()]);
    pub const BROADCAST: Self = Self([0xffff; 3]);

    #[inline(always)]
    pub fn of(interface: &Interface) -> Self {
        let m = &interface.mac;
        Self([
            u16::from_ne_bytes([m[0], m[1]]),
            u16::from_ne_bytes([m[2], m[3]]),
            u16::from_ne_bytes([m[4], m[5]]),
        ])
    }

    #[inline(always)]
    pub fn is_group(self) -> bool {
        self.0[0].to_ne_bytes()[0] & 1 != 0
    }

    #[inline(always)]
    pub fn is_zero(self) -> bool {
        self.0 == [0; 3]
    }
}

#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct V4(pub [u16; 2]);

impl V4 {
    pub const ZERO: Self = Self([0; 2]);
    pub const BROADCAST: Self = Self([0xffff; 2]);

    #[inline(always)]
    pub fn octets(self) -> [u8; 4] {
        let [a, b] = self.0[0].to_ne_bytes();
        let [c, d] = self.0[1].to_ne_bytes();
        [a, b, c, d]
    }

    #[inline(always)]
    pub fn from_octets([a, b, c, d]: [u8; 4]) -> Self {
        Self([u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])])
    }

    #[inline(always)]
    pub fn key(self) -> Address {
        Address::v4(self.octets())
    }
}

#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct V6(pub [u16; 8]);

impl V6 {
    pub const ZERO: Self = Self([0; 8]);
    /// ff02::1
    pub const ALL_NODES: Self = Self([0xff02_u16.to_be(), 0, 0, 0, 0, 0, 0, 1_u16.to_be()]);

    #[inline(always)]
    pub fn octets(self) -> [u8; 16] {
        // SAFETY: sixteen bytes either way, all bit patterns valid.
        unsafe { core::mem::transmute::<[u16; 8], [u8; 16]>(self.0) }
    }

    #[inline(always)]
    pub fn from_octets(octets: [u8; 16]) -> Self {
        // SAFETY: sixteen bytes either way, all bit patterns valid.
        Self(unsafe { core::mem::transmute::<[u8; 16], [u16; 8]>(octets) })
    }

    #[inline(always)]
    pub fn key(self) -> Address {
        Address::v6(self.octets())
    }

    #[inline(always)]
    pub fn is_multicast(self) -> bool {
        self.0[0].to_ne_bytes()[0] == 0xff
    }

    #[inline(always)]
    pub fn is_link_local(self) -> bool {
        u16::from_be(self.0[0]) & 0xffc0 == 0xfe80
    }

    /// The solicited-node multicast address of this one (RFC 4291 section 2.7.1).
    #[inline(always)]
    pub fn solicited_node(self) -> Self {
        let [_, low] = self.0[6].to_ne_bytes();
        Self([0xff02_u16.to_be(), 0, 0, 0, 0, 1_u16.to_be(), u16::from_ne_bytes([0xff, low]), self.0[7]])
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ethernet {
    pub destination: Mac,
    pub source: Mac,
    pub ethertype: u16,
}

/// What follows an 802.1Q or 802.1ad ethertype.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tag {
    control: u16,
    pub ethertype: u16,
}

impl Tag {
    fn id(self) -> u16 {
        u16::from_be(self.control) & 0x0fff
    }
}

// SAFETY: repr(C), 16-bit words only.
unsafe impl Wire for Mac {}
// SAFETY: as above.
unsafe impl Wire for Ethernet {}
// SAFETY: as above.
unsafe impl Wire for Tag {}
// SAFETY: as above.
unsafe impl Wire for V4 {}
// SAFETY: as above.
unsafe impl Wire for V6 {}

/// VLAN ids in the frame itself, outer then inner; 0 for none (and for a mere priority tag, which
/// belongs to no VLAN: IEEE 802.1Q section 6.9).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Vlans {
    pub outer: u16,
    pub inner: u16,
}

impl Vlans {
    pub const NONE: Self = Self { outer: 0, inner: 0 };
}

/// Reads up to two tags and hands the frame on. What follows is compiled once per number of tags, so
/// that every offset is a constant to the verifier.
#[inline(always)]
pub fn dispatch(frame: Frame) -> Outcome {
    let ethertype = u16::from_be(frame.at::<Ethernet>(0)?.ethertype);
    if !is_tag(ethertype) {
        return network::<14>(frame, ethertype, Vlans::NONE);
    }
    let outer = *frame.at::<Tag>(14)?;
    let ethertype = u16::from_be(outer.ethertype);
    if !is_tag(ethertype) {
        return network::<18>(frame, ethertype, Vlans { outer: outer.id(), inner: 0 });
    }
    let inner = *frame.at::<Tag>(18)?;
    let vlans = Vlans { outer: outer.id(), inner: inner.id() };
    network::<22>(frame, u16::from_be(inner.ethertype), vlans)
}

#[inline(always)]
pub fn is_tag(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ
}

/// `L3` is where the network header begins.
#[inline(always)]
fn network<const L3: usize>(frame: Frame, ethertype: u16, vlans: Vlans) -> Outcome {
    match ethertype {
        ETHERTYPE_ARP => arp::handle::<L3>(frame, vlans),
        ETHERTYPE_IPV4 => ipv4::handle::<L3>(frame, vlans),
        ETHERTYPE_IPV6 => ipv6::handle::<L3>(frame, vlans),
        _ => Ok(Verdict::Passed),
    }
}
