//! What is too long for one value of etcd (1.5 MiB for a whole request) is spread over several keys.
//!
//! Parts are written first, each by itself; what refers to them is committed only while the first of them is
//! there, and they are only ever deleted all at once. So whoever tidies up can never break what is read.

use serde::{Deserialize, Serialize};

use super::{
    keys::Keys,
    kv::{Compare, Kv, KvError, Op, Span},
};

/// Bytes of one part, and of the longest value that is not spread.
pub(crate) const PART: usize = 512 << 10;

/// The longest text that is stored at all.
pub(crate) const LONGEST: usize = 64 << 20;

/// Parts read in one request: gRPC allows 4 MiB an answer.
const AT_A_TIME: i64 = 6;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parts {
    pub(crate) id: String,
    count: usize,
    crc: u32,
}

impl Parts {
    /// Present while the parts are.
    pub(crate) fn present(&self, keys: &Keys) -> Compare {
        Compare::Present(keys.part(&self.id, 0))
    }
}

pub(crate) async fn write(kv: &dyn Kv, keys: &Keys, id: String, text: &[u8]) -> Result<Parts, KvError> {
    if text.len() > LONGEST {
        let (size, most) = (text.len() >> 20, LONGEST >> 20);
        return Err(KvError::Refused(format!(
            "{size} MiB are too long for etcd, at most {most} MiB are kept there"
        )));
    }
    let parts = Parts { id, count: text.chunks(PART).len(), crc: crc32fast::hash(text) };
    // The first comes last: it vouches for all.
    for (number, part) in text.chunks(PART).enumerate().rev() {
        kv.commit(vec![], vec![Op::Put(keys.part(&parts.id, number), part.to_vec(), None)]).await?;
    }
    Ok(parts)
}

/// None: they were deleted, for something newer.
pub(crate) async fn read(kv: &dyn Kv, keys: &Keys, parts: &Parts) -> Result<Option<Vec<u8>>, KvError> {
    let mut text = Vec::new();
    let (mut from, to) = keys.parts_of(&parts.id);
    let mut count = 0;
    while count < parts.count {
        let look = kv.read(vec![Span::range((from, to.clone()), AT_A_TIME)]).await?;
        let pairs = look.spans.into_iter().next().unwrap_or_default();
        if pairs.is_empty() {
            return Ok(None);
        }
        count += pairs.len();
        pairs.iter().for_each(|p| text.extend(&p.value));
        from = keys.part(&parts.id, count);
    }
    let whole = count == parts.count && crc32fast::hash(&text) == parts.crc;
    Ok(whole.then_some(text))
}
