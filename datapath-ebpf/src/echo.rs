//! ICMP (RFC 792) and ICMPv6 (RFC 4443) echo: the request becomes the reply where it lies. Identifier,
//! sequence number and payload are not even looked at; the checksum follows the change of type.

use datapath_common::Verdict;

use crate::{
    checksum,
    frame::{Frame, Wire},
};

pub const REQUEST_V4: u8 = 8;
pub const REPLY_V4: u8 = 0;
pub const REQUEST_V6: u8 = 128;
pub const REPLY_V6: u8 = 129;

/// Type, code, checksum, identifier, sequence number.
pub const HEADER: usize = 8;

#[repr(C)]
#[derive(Clone, Copy)]
struct Echo {
    kind: u8,
    code: u8,
    checksum: u16,
    id: u16,
    sequence: u16,
}

// SAFETY: repr(C), bytes and 16-bit words only.
unsafe impl Wire for Echo {}

/// Neither request nor reply of either family.
pub const NO_ECHO: u8 = 0xff;

/// The type of an echo message with code 0 behind a network header of `N` bytes; [`NO_ECHO`] when it
/// is something else or not all there. (Not an `Option`: the compiler copies the value of a `None`
/// too, and the verifier refuses a read of what was never written.)
#[inline(always)]
pub fn kind<const L3: usize, const N: usize>(frame: &Frame) -> u8 {
    match frame.at::<Echo>(L3 + N) {
        Ok(echo) if echo.code == 0 => echo.kind,
        _ => NO_ECHO,
    }
}

#[inline(always)]
pub fn turn_v4<const L3: usize>(frame: &Frame) -> Result<(), Verdict> {
    let echo = frame.at::<Echo>(L3 + crate::ipv4::HEADER)?;
    let sum = turned(echo, REPLY_V4);
    // A message of zeros throughout sums up to zero, whose checksum is 0xffff; the update cannot see
    // that and says 0. For any other message both values are right.
    echo.checksum = if sum == 0 { 0xffff } else { sum };
    Ok(())
}

/// The pseudo-header holds both addresses, whose exchange changes no sum, and not the hop limit.
#[inline(always)]
pub fn turn_v6<const L3: usize>(frame: &Frame, adjust: impl FnOnce(u16) -> u16) -> Result<(), Verdict> {
    let echo = frame.at::<Echo>(L3 + crate::ipv6::HEADER)?;
    echo.checksum = adjust(turned(echo, REPLY_V6));
    Ok(())
}

#[inline(always)]
fn turned(echo: &mut Echo, kind: u8) -> u16 {
    let old = u16::from_ne_bytes([echo.kind, echo.code]);
    echo.kind = kind;
    checksum::replaced(echo.checksum, old, u16::from_ne_bytes([kind, echo.code]))
}
