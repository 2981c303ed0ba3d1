//! Plain data: nodes, resources, placements. Serde, no logic beyond accessors.

mod addresses;
mod cloud;
mod connectivity;
mod constraint;
mod declared;
mod hierarchy;
mod key;
mod map;
mod node;
mod placement;
mod policy;
mod ranges;
mod resource;
mod score;
mod state;
mod subnet;
mod tunables;

pub use addresses::*;
pub use cloud::*;
pub use connectivity::*;
pub use constraint::*;
pub use declared::*;
pub use key::*;
pub use map::Map;
pub use node::*;
pub use placement::*;
pub use policy::*;
pub use ranges::*;
pub use resource::*;
pub use score::*;
pub use state::*;
pub use subnet::*;
pub use tunables::*;
