//! Plain data: nodes, resources, placements. Serde, no logic beyond accessors.

mod node;
mod placement;
mod resource;
mod state;
mod subnet;
mod tunables;

pub use node::*;
pub use placement::*;
pub use resource::*;
pub use state::*;
pub use subnet::*;
pub use tunables::*;
