//! Raw file -> validated value.

mod declared;
mod load;
mod node;
mod timing;
mod tunables;
mod validate;

pub use declared::{DeclaredFile, PendingAddress, parse as parse_declared, write as write_declared};
pub use load::{ConfigError, Fault, load};
pub use node::*;
pub use timing::*;
pub use tunables::{Complaint, TunablesFile, parse as parse_tunables};
