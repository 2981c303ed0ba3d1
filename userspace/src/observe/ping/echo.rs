//! Echo requests and how their answers are recognised.

use std::{
    io,
    sync::atomic::{AtomicU16, Ordering},
};

use pnet::packet::{Packet, icmp::IcmpTypes, icmpv6::Icmpv6Types, ipv4::Ipv4Packet};

const HEADER: usize = 8;
const COOKIE: usize = 16;
/// Of payload, as `ping` sends.
const PAYLOAD: usize = 56;

/// What distinguishes the answers to one ping from those to all others, also of other programs.
pub(super) struct Identity {
    id: u16,
    cookie: [u8; COOKIE],
}

impl Identity {
    /// Unlike any other of this process, and most probably of this host.
    pub(super) fn new() -> io::Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let mut cookie = [0; COOKIE];
        getrandom::fill(&mut cookie).map_err(io::Error::other)?;
        let start = std::process::id() as u16;
        Ok(Self { id: start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)), cookie })
    }

    /// An ICMP echo request with its checksum.
    pub(super) fn request4(&self, sequence: u16) -> Vec<u8> {
        let mut message = self.message(IcmpTypes::EchoRequest.0, sequence);
        let sum = pnet::util::checksum(&message, 1);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        message
    }

    /// An ICMPv6 echo request; the kernel computes the checksum (RFC 3542 section 3.1).
    pub(super) fn request6(&self, sequence: u16) -> Vec<u8> {
        self.message(Icmpv6Types::EchoRequest.0, sequence)
    }

    fn message(&self, kind: u8, sequence: u16) -> Vec<u8> {
        let mut message = vec![0; HEADER + PAYLOAD];
        message[0] = kind;
        message[4..6].copy_from_slice(&self.id.to_be_bytes());
        message[6..8].copy_from_slice(&sequence.to_be_bytes());
        message[HEADER..HEADER + COOKIE].copy_from_slice(&self.cookie);
        message
    }

    /// The sequence number of an answer to us in an IPv4 packet.
    pub(super) fn answer4(&self, packet: &[u8]) -> Option<u16> {
        let ip = Ipv4Packet::new(packet)?;
        let message = ip.payload();
        // A raw socket gets ICMP before the kernel has verified it.
        if message.len() < HEADER || !is_intact(message) {
            return None;
        }
        self.answer(IcmpTypes::EchoReply.0, message)
    }

    /// The sequence number of an answer to us in an ICMPv6 message.
    pub(super) fn answer6(&self, message: &[u8]) -> Option<u16> {
        self.answer(Icmpv6Types::EchoReply.0, message)
    }

    fn answer(&self, kind: u8, message: &[u8]) -> Option<u16> {
        let (header, payload) = message.split_at_checked(HEADER)?;
        let ours = header[0] == kind
            && header[1] == 0
            && header[4..6] == self.id.to_be_bytes()
            && payload.starts_with(&self.cookie)
            && payload.len() == PAYLOAD;
        ours.then(|| u16::from_be_bytes([header[6], header[7]]))
    }
}

/// The sum over everything, checksum included (RFC 1071), so that both forms of zero will do.
fn is_intact(message: &[u8]) -> bool {
    let nothing_skipped = message.len();
    pnet::util::checksum(message, nothing_skipped) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer_to(request: &[u8], kind: u8) -> Vec<u8> {
        let mut answer = request.to_vec();
        answer[0] = kind;
        let sum = pnet::util::checksum(&answer, 1);
        answer[2..4].copy_from_slice(&sum.to_be_bytes());
        answer
    }

    fn in_ipv4(message: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(20 + message.len() as u16).to_be_bytes());
        packet.extend(message);
        packet
    }

    #[test]
    fn own_answers_are_recognised_and_no_others() {
        let (ours, other) = (Identity::new().unwrap(), Identity::new().unwrap());
        let answer = in_ipv4(&answer_to(&ours.request4(7), 0));
        assert_eq!(ours.answer4(&answer), Some(7));
        assert_eq!(other.answer4(&answer), None);
        // A request is no answer.
        assert_eq!(ours.answer4(&in_ipv4(&ours.request4(7))), None);
        let answer = answer_to(&ours.request6(9), 129);
        assert_eq!(ours.answer6(&answer), Some(9));
        assert_eq!(other.answer6(&answer), None);
        // Same identifier, somebody else's ping.
        let namesake = Identity { id: ours.id, cookie: other.cookie };
        assert_eq!(ours.answer6(&answer_to(&namesake.request6(9), 129)), None);
    }

    #[test]
    fn a_damaged_answer_does_not_count() {
        let ours = Identity::new().unwrap();
        let answer = in_ipv4(&answer_to(&ours.request4(1), 0));
        for i in 20..answer.len() {
            let mut damaged = answer.clone();
            damaged[i] ^= 0x10;
            assert_eq!(ours.answer4(&damaged), None, "byte {i}");
            assert_eq!(ours.answer4(&answer[..i]), None, "cut at {i}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_are_no_answer(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let ours = Identity::new().unwrap();
            prop_assert_eq!(ours.answer4(&bytes), None);
            prop_assert_eq!(ours.answer6(&bytes), None);
        }
    }
}
