//! The Internet checksum (RFC 1071), on words as they lie in memory: its sum does not depend on the
//! byte order.

/// Folds a sum of 16-bit words into one.
#[inline(always)]
pub fn fold(mut sum: u32) -> u16 {
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Folds a sum of 32-bit halves of 64-bit words into one of 16 bits.
#[inline(always)]
pub fn fold_long(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    fold(sum as u32)
}

/// The checksum after one word was replaced (RFC 1624, equation 3). A wrong checksum stays wrong by
/// the same amount: nobody is told that a damaged packet was sound.
#[inline(always)]
pub fn replaced(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u32::from(!checksum) + u32::from(!old) + u32::from(new))
}

/// The sum of the words, not yet folded. At most 32,768 of them.
#[inline(always)]
pub fn sum<const N: usize>(words: &[u16; N]) -> u32 {
    let mut sum = 0;
    let mut i = 0;
    while i < N {
        sum += u32::from(words[i]);
        i += 1;
    }
    sum
}
