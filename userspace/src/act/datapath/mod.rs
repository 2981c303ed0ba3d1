//! The BPF programs and maps: load or adopt, attach, program, read.

mod interface;

pub use interface::*;
