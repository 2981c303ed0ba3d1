//! Messages in pieces: what one Noise message cannot hold is spread over several.
//!
//! ```text
//! first piece:  kind u8 | id u64 | length of the body u32 | start of the body
//! other pieces: the body goes on
//! ```

/// The longest body.
pub(crate) const LONGEST: usize = 64 << 20;

/// A Noise message is at most 65,535 bytes long, 16 of them its tag.
pub(crate) const PIECE: usize = 65_535 - 16;

const HEADER: usize = 13;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Answer,
    /// Asks for a sign of life; what a busy peer process answers at once.
    Ping,
    Pong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    /// Of a request; its answer has the same.
    pub(crate) id: u64,
    pub(crate) body: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a message of {0} bytes is longer than {LONGEST}")]
    TooLong(usize),
    #[error("a message begins with a broken header")]
    Header,
    #[error("a message is longer than it said")]
    Overrun,
}

/// The pieces of a message, in order.
pub(crate) fn pieces(message: &Message) -> Result<Vec<Vec<u8>>, FrameError> {
    let length = message.body.len();
    if length > LONGEST {
        return Err(FrameError::TooLong(length));
    }
    let kind = match message.kind {
        Kind::Request => 0_u8,
        Kind::Answer => 1,
        Kind::Ping => 2,
        Kind::Pong => 3,
    };
    let (start, rest) = message.body.split_at(length.min(PIECE - HEADER));
    let mut first = Vec::with_capacity(HEADER + start.len());
    first.push(kind);
    first.extend(message.id.to_be_bytes());
    first.extend((length as u32).to_be_bytes());
    first.extend(start);
    Ok(std::iter::once(first).chain(rest.chunks(PIECE).map(<[u8]>::to_vec)).collect())
}

/// Puts pieces together again. Takes no more memory than has arrived, whatever a header claims.
#[derive(Default)]
pub(crate) struct Assembler {
    open: Option<(Message, usize)>,
}

impl Assembler {
    /// Takes the next piece; answers a message when it is whole.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<Option<Message>, FrameError> {
        let (mut message, length, data) = match self.open.take() {
            Some((message, length)) => (message, length, piece),
            None => {
                let (message, length) = header(piece)?;
                (message, length, &piece[HEADER..])
            }
        };
        // An empty piece would be a way to keep a peer busy for nothing.
        if data.len() > length - message.body.len() || (data.is_empty() && length > 0) {
            return Err(FrameError::Overrun);
        }
        message.body.extend(data);
        if message.body.len() == length {
            return Ok(Some(message));
        }
        self.open = Some((message, length));
        Ok(None)
    }
}

fn header(piece: &[u8]) -> Result<(Message, usize), FrameError> {
    let kind = match piece.first() {
        Some(0) => Kind::Request,
        Some(1) => Kind::Answer,
        Some(2) => Kind::Ping,
        Some(3) => Kind::Pong,
        _ => return Err(FrameError::Header),
    };
    let id = piece.get(1..9).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
    let length = piece.get(9..HEADER).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    let (Some(id), Some(length)) = (id, length) else { return Err(FrameError::Header) };
    let length = length as usize;
    if length > LONGEST {
        return Err(FrameError::TooLong(length));
    }
    Ok((Message { kind, id, body: Vec::new() }, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        prop::sample::select(vec![Kind::Request, Kind::Answer, Kind::Ping, Kind::Pong])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn messages_are_put_together_again(
            kind in kinds(), id in any::<u64>(),
            length in prop_oneof![0..100_usize, PIECE - 20..PIECE + 20, 0..200_000_usize], seed in any::<u8>(),
        ) {
            let body = (0..length).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect();
            let message = Message { kind, id, body };
            let mut assembler = Assembler::default();
            let pieces = pieces(&message).unwrap();
            for (i, piece) in pieces.iter().enumerate() {
                prop_assert!(piece.len() <= PIECE);
                let whole = assembler.push(piece).unwrap();
                if i + 1 < pieces.len() {
                    prop_assert_eq!(whole, None);
                } else {
                    prop_assert_eq!(whole.as_ref(), Some(&message));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_never_takes_more_than_was_sent(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..20),
        ) {
            let mut assembler = Assembler::default();
            let mut sent = 0;
            for piece in &pieces {
                sent += piece.len();
                match assembler.push(piece) {
                    Ok(Some(m)) => prop_assert!(m.body.len() <= sent),
                    Ok(None) => prop_assert!(assembler.open.as_ref().unwrap().0.body.capacity() <= 2 * sent + 64),
                    Err(_) => break,
                }
            }
        }

        #[test]
        fn a_claimed_length_is_bounded(length in LONGEST as u32 + 1..) {
            let mut piece = vec![0; HEADER];
            piece[9..].copy_from_slice(&length.to_be_bytes());
            prop_assert_eq!(Assembler::default().push(&piece), Err(FrameError::TooLong(length as usize)));
        }
    }

    #[test]
    fn too_long_a_message_is_not_sent() {
        let message = Message { kind: Kind::Request, id: 1, body: vec![0; LONGEST + 1] };
        assert_eq!(pieces(&message), Err(FrameError::TooLong(LONGEST + 1)));
    }
}
