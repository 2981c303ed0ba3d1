//! SipHash-2-4 over whole 64-bit words: the same code signs in user space and in the kernel.

/// Keeps to shifts that the BPF target has, and to no memory but its arguments.
macro_rules! round {
    ($v:ident) => {
        $v[0] = $v[0].wrapping_add($v[1]);
        $v[2] = $v[2].wrapping_add($v[3]);
        $v[1] = $v[1].rotate_left(13) ^ $v[0];
        $v[3] = $v[3].rotate_left(16) ^ $v[2];
        $v[0] = $v[0].rotate_left(32);
        $v[2] = $v[2].wrapping_add($v[1]);
        $v[0] = $v[0].wrapping_add($v[3]);
        $v[1] = $v[1].rotate_left(17) ^ $v[2];
        $v[3] = $v[3].rotate_left(21) ^ $v[0];
        $v[2] = $v[2].rotate_left(32);
    };
}

/// The hash of the words' bytes, each word least significant byte first.
#[inline(always)]
pub fn siphash24<const N: usize>(key: &[u64; 2], words: &[u64; N]) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let mut i = 0;
    while i < N {
        let word = words[i];
        v[3] ^= word;
        round!(v);
        round!(v);
        v[0] ^= word;
        i += 1;
    }
    // Only whole words: the last block is the length alone.
    let last = ((N * 8) as u64 & 0xff) << 56;
    v[3] ^= last;
    round!(v);
    round!(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    round!(v);
    round!(v);
    round!(v);
    round!(v);
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher as _;

    use siphasher::sip::SipHasher24;

    use super::siphash24;

    fn compare<const N: usize>(seed: u64) {
        let mut x = seed;
        let mut next = || {
            x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            x ^ x >> 29
        };
        let key = [next(), next()];
        let words: [u64; N] = std::array::from_fn(|_| next());
        let mut other = SipHasher24::new_with_keys(key[0], key[1]);
        for word in words {
            other.write(&word.to_le_bytes());
        }
        assert_eq!(siphash24(&key, &words), other.finish());
    }

    #[test]
    fn it_is_what_the_crate_computes() {
        for seed in 0..1000 {
            compare::<0>(seed);
            compare::<1>(seed);
            compare::<14>(seed);
            compare::<40>(seed);
        }
    }
}
