//! The fence: no gate whose lease epoch is below it opens here any more, whatever the daemon writes.
//!
//! It only rises. A peer that has the cluster's key raises it (`probe`), and the reflection that tells it is
//! the proof that this kernel is silent for all older grants: so it must never be lowered by a race. User
//! space clears it only after it has made the programs reflect for nobody, when the node belongs to no cluster.

use core::ptr::read_volatile;

use crate::maps::FENCE;

/// Tries before a raise is given up; each fails only when another CPU has changed the word meanwhile.
const TRIES: usize = 8;

#[inline(always)]
pub fn stands() -> u64 {
    // SAFETY: points into a map that outlives the program.
    FENCE.get_ptr(0).map_or(u64::MAX, |word| unsafe { read_volatile(word) })
}

/// To `below`, unless it is as high already.
#[inline(always)]
pub fn raise(below: u64) {
    let Some(word) = FENCE.get_ptr_mut(0) else { return };
    for _ in 0..TRIES {
        // SAFETY: as above.
        let now = unsafe { read_volatile(word) };
        if now >= below || exchanged(word, now, below) {
            return;
        }
    }
    // Given up: the reflection tells what stands, which proves nothing then, and the peer asks again.
}

/// Sets the word to `new` if it is `old`.
#[inline(always)]
fn exchanged(word: *mut u64, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: lock cmpxchg on a map's aligned word, as the instruction set has it since Linux 5.12. Spelt
    // out because the compiler emits it for a newer processor version only, which would change all programs.
    unsafe {
        core::arch::asm!(
            ".8byte 0x000000f1000021db", // r0 = cmpxchg_64(r1 + 0, r0, r2)
            in("r1") word,
            in("r2") new,
            inlateout("r0") old => found,
        );
    }
    found == old
}
