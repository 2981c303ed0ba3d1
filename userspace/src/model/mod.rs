//! Plain data: nodes, resources, placements. Serde, no logic beyond accessors.

mod addresses;
mod map;
mod node;
mod placement;
mod ranges;
mod resource;
mod state;
mod subnet;
mod tunables;

pub use addresses::*;
pub use map::Map;
pub use node::*;
pub use placement::*;
pub use ranges::*;
pub use resource::*;
pub use state::*;
pub use subnet::*;
pub use tunables::*;
