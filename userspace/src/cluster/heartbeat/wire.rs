//! Heartbeats on the wire: one small UDP datagram, big-endian, authenticated by SipHash-2-4 under a
//! key derived from the cluster's, replays refused by incarnation and sequence.
//!
//! ```text
//! magic "VIPH" | version 1 | kind | path | flags | cluster u64 | from u64 | to u64 | incarnation u64 |
//! sequence u64 | asked u64 | lease epoch u64 | then by kind:
//!   ask (1): membership u64 | duration u64 | count u16 | count x (node u64, silence ms u32)
//!   ack (2): incarnation of the asker u64
//! tag u64
//! ```

use std::{hash::Hasher, time::Duration};

use siphasher::sip::SipHasher24;

use crate::{
    core::{lease::Refused, time::BootTime},
    model::{LeaseEpoch, NodeId},
};

const MAGIC: [u8; 4] = *b"VIPH";
const VERSION: u8 = 1;
const TAG_LEN: usize = 8;
/// Room for 64 peers' silences within one Ethernet frame.
pub const MAX_LEN: usize = 1200;

/// Paths that `transmits` has room for.
pub const PATHS_TOLD: usize = 7;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub from: NodeId,
    pub to: NodeId,
    pub path: u8,
    /// The sender's: rises with each start of its daemon.
    pub incarnation: u64,
    pub sequence: u64,
    /// When the asker asked, on the asker's clock; echoed in the answer.
    pub asked: BootTime,
    pub lease_epoch: LeaseEpoch,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// I am here; renew my lease.
    Ask {
        membership: u64,
        duration: Duration,
        /// The sender's own lease is valid: what it holds, it answers for.
        lease_valid: bool,
        /// A bit for each of the first [`PATHS_TOLD`] paths on which the sender transmits: its interface
        /// has a carrier. Who hears nothing there although this is said elsewhere is deaf.
        transmits: u8,
        /// For how long the sender has not heard others.
        silences: Vec<(NodeId, Duration)>,
    },
    /// The answer to an ask.
    Ack { asker_incarnation: u64, refused: Option<Refused> },
}

/// Something that tells nothing of the secret from which it follows, another for other labels.
pub(crate) fn derive(secret: &[u8; 32], labels: [&[u8]; 2]) -> [u8; 16] {
    let mut derived = [0; 16];
    for ((half, label), out) in secret.chunks(16).zip(labels).zip(derived.chunks_mut(8)) {
        let mut key = [0; 16];
        key.copy_from_slice(half);
        let mut h = SipHasher24::new_with_key(&key);
        h.write(label);
        out.copy_from_slice(&h.finish().to_be_bytes());
    }
    derived
}

/// The key of one cluster's heartbeats.
#[derive(Clone)]
pub struct Key {
    cluster: u64,
    hash: SipHasher24,
    /// Those of probes are derived from these.
    probe: [SipHasher24; 2],
}

impl Key {
    /// Derived from the cluster's id and secret, so that the secret itself serves one purpose only.
    pub fn derive(cluster_id: &[u8; 16], secret: &[u8; 32]) -> Self {
        let key = derive(secret, [b"vipd heartbeat 1", b"vipd heartbeat 2"]);
        let mut cluster = [0; 8];
        cluster.copy_from_slice(&cluster_id[..8]);
        let probe = derive(secret, [b"vipd probe 1", b"vipd probe 2"]);
        let half = |label: &[u8]| {
            let mut h = SipHasher24::new_with_key(&probe);
            h.write(label);
            h
        };
        let probe = [half(b"first half"), half(b"other half")];
        Self { cluster: u64::from_be_bytes(cluster), hash: SipHasher24::new_with_key(&key), probe }
    }

    /// The first half of the cluster's id.
    pub fn cluster(&self) -> u64 {
        self.cluster
    }

    /// The key of probes and their reflections from one node to another. Each direction has its own, so that
    /// nothing can be sent back to its sender as the other's word.
    pub fn probe(&self, from: NodeId, to: NodeId) -> [u64; 2] {
        self.probe.map(|mut h| {
            h.write(&from.to_be_bytes());
            h.write(&to.to_be_bytes());
            h.finish()
        })
    }

    fn tag(&self, bytes: &[u8]) -> [u8; TAG_LEN] {
        let mut h = self.hash;
        h.write(bytes);
        h.finish().to_be_bytes()
    }
}

const ASK: u8 = 1;
const ACK: u8 = 2;

impl Message {
    pub fn encode(&self, key: &Key) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        let (kind, flags) = match &self.body {
            Body::Ask { lease_valid, transmits, .. } => (ASK, u8::from(*lease_valid) | transmits << 1),
            Body::Ack { refused, .. } => (
                ACK,
                match refused {
                    None => 0,
                    Some(Refused::OldEpoch) => 1,
                    Some(Refused::OldMembership) => 2,
                    Some(Refused::NotReady) => 3,
                },
            ),
        };
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, kind, self.path, flags]);
        for word in
            [key.cluster, self.from, self.to, self.incarnation, self.sequence, self.asked.0, self.lease_epoch]
        {
            out.extend_from_slice(&word.to_be_bytes());
        }
        match &self.body {
            Body::Ask { membership, duration, silences, .. } => {
                let room = (MAX_LEN - out.len() - 18 - TAG_LEN) / 12;
                let told = &silences[..silences.len().min(room)];
                out.extend_from_slice(&membership.to_be_bytes());
                out.extend_from_slice(&(duration.as_nanos() as u64).to_be_bytes());
                out.extend_from_slice(&(told.len() as u16).to_be_bytes());
                for (node, silence) in told {
                    let ms = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
                    out.extend_from_slice(&node.to_be_bytes());
                    out.extend_from_slice(&ms.to_be_bytes());
                }
            }
            Body::Ack { asker_incarnation, .. } => out.extend_from_slice(&asker_incarnation.to_be_bytes()),
        }
        let tag = key.tag(&out);
        out.extend_from_slice(&tag);
        out
    }

    /// None for anything that is not a whole, authentic message of this cluster.
    pub fn decode(bytes: &[u8], key: &Key) -> Option<Self> {
        if bytes.len() < TAG_LEN || bytes.len() > MAX_LEN {
            return None;
        }
        let (signed, tag) = bytes.split_at(bytes.len() - TAG_LEN);
        if key.tag(signed) != tag {
            return None;
        }
        let mut r = Reader(signed);
        if r.take::<4>()? != MAGIC {
            return None;
        }
        let [version, kind, path, flags] = r.take::<4>()?;
        if version != VERSION || r.word()? != key.cluster {
            return None;
        }
        let (from, to, incarnation, sequence) = (r.word()?, r.word()?, r.word()?, r.word()?);
        let (asked, lease_epoch) = (BootTime(r.word()?), r.word()?);
        let body = match kind {
            ASK => {
                let membership = r.word()?;
                let duration = Duration::from_nanos(r.word()?);
                let count = u16::from_be_bytes(r.take()?);
                let mut silences = Vec::new();
                for _ in 0..count {
                    let node = r.word()?;
                    let ms = u32::from_be_bytes(r.take()?);
                    silences.push((node, Duration::from_millis(u64::from(ms))));
                }
                let (lease_valid, transmits) = (flags & 1 == 1, flags >> 1);
                Body::Ask { membership, duration, lease_valid, transmits, silences }
            }
            ACK => {
                let refused = match flags {
                    0 => None,
                    1 => Some(Refused::OldEpoch),
                    2 => Some(Refused::OldMembership),
                    3 => Some(Refused::NotReady),
                    _ => return None,
                };
                Body::Ack { asker_incarnation: r.word()?, refused }
            }
            _ => return None,
        };
        r.0.is_empty().then_some(Self { from, to, path, incarnation, sequence, asked, lease_epoch, body })
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn word(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
}

/// Refuses what was already received: per sender and path, incarnation and sequence only rise.
#[derive(Debug, Default)]
pub struct ReplayWindow(std::collections::BTreeMap<(NodeId, u8), (u64, u64)>);

impl ReplayWindow {
    pub fn is_fresh(&mut self, m: &Message) -> bool {
        let newest = self.0.entry((m.from, m.path)).or_default();
        let this = (m.incarnation, m.sequence);
        let fresh = this > *newest;
        if fresh {
            *newest = this;
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> Key {
        Key::derive(&[7; 16], &[9; 32])
    }

    fn message() -> impl Strategy<Value = Message> {
        let refused = prop_oneof![
            Just(None),
            Just(Some(Refused::OldEpoch)),
            Just(Some(Refused::OldMembership)),
            Just(Some(Refused::NotReady)),
        ];
        let silences = prop::collection::vec((any::<u64>(), any::<u32>()), 0..60);
        let ask = (any::<u64>(), any::<u64>(), any::<bool>(), 0..1u8 << PATHS_TOLD, silences).prop_map(
            |(m, d, v, transmits, s)| Body::Ask {
                membership: m,
                duration: Duration::from_nanos(d),
                lease_valid: v,
                transmits,
                silences: s.into_iter().map(|(n, ms)| (n, Duration::from_millis(ms.into()))).collect(),
            },
        );
        let ack = (any::<u64>(), refused)
            .prop_map(|(asker_incarnation, refused)| Body::Ack { asker_incarnation, refused });
        (any::<[u64; 6]>(), any::<u8>(), prop_oneof![ask, ack]).prop_map(|(w, path, body)| Message {
            from: w[0],
            to: w[1],
            path,
            incarnation: w[2],
            sequence: w[3],
            asked: BootTime(w[4]),
            lease_epoch: w[5],
            body,
        })
    }

    proptest! {
        #[test]
        fn round_trip(m in message()) {
            let bytes = m.encode(&key());
            prop_assert!(bytes.len() <= MAX_LEN);
            prop_assert_eq!(Message::decode(&bytes, &key()), Some(m));
        }

        #[test]
        fn nothing_altered_is_believed(m in message(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = m.encode(&key());
            let i = at.index(bytes.len());
            bytes[i] ^= 1 << bit;
            prop_assert_eq!(Message::decode(&bytes, &key()), None);
        }

        #[test]
        fn garbage_is_never_believed(bytes in prop::collection::vec(any::<u8>(), 0..1400)) {
            prop_assert_eq!(Message::decode(&bytes, &key()), None);
        }

        /// Also what carries a right tag must be whole.
        #[test]
        fn authentic_nonsense_is_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let k = key();
            let mut bytes = bytes;
            let tag = k.tag(&bytes);
            bytes.extend_from_slice(&tag);
            prop_assert_eq!(Message::decode(&bytes, &k), None);
        }
    }

    #[test]
    fn each_direction_of_each_pair_has_a_key_of_its_own() {
        let k = key();
        let mut keys: Vec<[u64; 2]> =
            (1..6).flat_map(|a| (1..6).map(move |b| (a, b))).map(|(a, b)| k.probe(a, b)).collect();
        keys.push(Key::derive(&[7; 16], &[8; 32]).probe(1, 2));
        assert!(keys.iter().all(|[a, b]| a != b));
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }

    #[test]
    fn another_clusters_message_is_refused() {
        let m = Message {
            from: 1,
            to: 2,
            path: 0,
            incarnation: 1,
            sequence: 1,
            asked: BootTime(5),
            lease_epoch: 1,
            body: Body::Ack { asker_incarnation: 3, refused: None },
        };
        assert_eq!(Message::decode(&m.encode(&Key::derive(&[8; 16], &[9; 32])), &key()), None);
        assert_eq!(Message::decode(&m.encode(&Key::derive(&[7; 16], &[1; 32])), &key()), None);
    }

    #[test]
    fn replays_are_refused_and_restarts_accepted() {
        let mut w = ReplayWindow::default();
        let m = |incarnation, sequence, path| Message {
            from: 1,
            to: 2,
            path,
            incarnation,
            sequence,
            asked: BootTime(5),
            lease_epoch: 1,
            body: Body::Ack { asker_incarnation: 3, refused: None },
        };
        assert!(w.is_fresh(&m(1, 5, 0)));
        assert!(!w.is_fresh(&m(1, 5, 0)));
        assert!(!w.is_fresh(&m(1, 4, 0)));
        assert!(w.is_fresh(&m(1, 4, 1)), "each path by itself");
        assert!(w.is_fresh(&m(2, 1, 0)), "a new life begins at one");
        assert!(!w.is_fresh(&m(1, 9, 0)), "the old life is over");
    }
}
