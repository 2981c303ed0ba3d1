//! Frames on disk: a length, two checksums, bytes.
//!
//! ```text
//! length u32 | crc32 of the body u32 | crc32 of the eight bytes before u32 | body
//! ```
//!
//! All numbers are little-endian. A frame is written in one piece and made durable before the next
//! is begun. So a crash can tear only the last frame of a file, and a bad frame with a good one
//! behind it is damage.

/// Bytes before the body.
pub(crate) const HEADER: usize = 12;

/// No frame is longer: a larger length is a broken one.
pub(crate) const LONGEST: usize = 256 << 20;

/// Appends a frame to `out`.
pub(crate) fn put(out: &mut Vec<u8>, body: &[u8]) {
    let length = u32::try_from(body.len()).expect("a frame is at most 256 MiB long");
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..8].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    let check = crc32fast::hash(&header[..8]);
    header[8..].copy_from_slice(&check.to_le_bytes());
    out.extend(header);
    out.extend(body);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken<'a> {
    Frame {
        body: &'a [u8],
        rest: &'a [u8],
    },
    End,
    /// Cut off, or written in part: nothing good follows.
    Torn(&'static str),
    /// Bad, with good data behind it.
    Damaged(&'static str),
}

/// Takes the first frame of `bytes`.
pub(crate) fn take(bytes: &[u8]) -> Taken<'_> {
    if bytes.is_empty() {
        return Taken::End;
    }
    match header(bytes) {
        None if followed(bytes) => Taken::Damaged("the length of a frame is wrong"),
        None => Taken::Torn("the frame's length is not whole"),
        Some((length, _)) if bytes.len() - HEADER < length => Taken::Torn("the frame is cut off"),
        Some((length, crc)) => {
            let (body, rest) = bytes[HEADER..].split_at(length);
            if crc32fast::hash(body) == crc {
                Taken::Frame { body, rest }
            } else if rest.is_empty() {
                Taken::Torn("the last frame's checksum is wrong")
            } else {
                Taken::Damaged("a frame's checksum is wrong")
            }
        }
    }
}

fn header(bytes: &[u8]) -> Option<(usize, u32)> {
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let (length, crc, check) = (word(0)?, word(4)?, word(8)?);
    let sound = crc32fast::hash(&bytes[..8]) == check && length > 0 && length as usize <= LONGEST;
    sound.then_some((length as usize, crc))
}

/// Whether a whole frame stands anywhere behind the first byte.
fn followed(bytes: &[u8]) -> bool {
    (1..bytes.len()).any(|at| {
        header(&bytes[at..]).is_some_and(|(length, crc)| {
            bytes.get(at + HEADER..at + HEADER + length).is_some_and(|body| crc32fast::hash(body) == crc)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(bodies: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        bodies.iter().for_each(|b| put(&mut out, b));
        out
    }

    fn bodies() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 1..6)
    }

    proptest! {
        #[test]
        fn frames_are_read_back(bodies in bodies()) {
            let bytes = file(&bodies);
            let mut left = &bytes[..];
            for wanted in &bodies {
                let Taken::Frame { body, rest } = take(left) else { panic!("a frame") };
                prop_assert_eq!(body, &wanted[..]);
                left = rest;
            }
            prop_assert_eq!(take(left), Taken::End);
        }

        #[test]
        fn a_cut_frame_is_torn(body in prop::collection::vec(any::<u8>(), 1..60), at in any::<prop::sample::Index>()) {
            let bytes = file(&[body]);
            let cut = 1 + at.index(bytes.len() - 1);
            prop_assert!(matches!(take(&bytes[..cut]), Taken::Torn(_)));
        }

        #[test]
        fn a_changed_bit_is_damage_in_the_middle_and_torn_at_the_end(
            bodies in bodies(), at in any::<prop::sample::Index>(), bit in 0..8,
        ) {
            let mut bytes = file(&bodies);
            let first = HEADER + bodies[0].len();
            bytes[at.index(first)] ^= 1_u8 << bit;
            if bodies.len() > 1 {
                prop_assert!(matches!(take(&bytes), Taken::Damaged(_)));
            } else {
                prop_assert!(matches!(take(&bytes), Taken::Torn(_)));
            }
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = take(&bytes);
        }
    }
}
