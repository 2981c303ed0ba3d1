//! Raw file -> validated value.

mod node;
mod timing;

pub use node::*;
pub use timing::*;
