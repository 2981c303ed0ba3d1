//! Raw file -> validated value.

mod load;
mod node;
mod timing;
mod tunables;
mod validate;

pub use load::{ConfigError, load};
pub use node::*;
pub use timing::*;
pub use tunables::{Complaint, TunablesFile, parse as parse_tunables};
