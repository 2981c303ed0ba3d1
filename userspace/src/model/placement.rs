//! Where a resource is, and where it should be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{LeaseEpoch, NodeId, Ranges};

/// The number of a grant of one resource; rises with each.
pub type Epoch = u64;

/// The cluster's decision about one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    pub desired: Desired,
    /// The owner may answer for the address; nobody else may, whatever the phase.
    pub grant: Option<Grant>,
    /// Epoch of the newest grant; before the first, that of the newest deleted resource.
    pub epoch: Epoch,
    /// Nodes on which the resource failed, with the reason.
    pub failed: BTreeMap<NodeId, String>,
    /// How often it failed on each node, also where local recovery mended it, since it was last forgiven.
    #[serde(default)]
    pub failures: BTreeMap<NodeId, Failures>,
    /// The present grant has been in service.
    #[serde(default)]
    pub started: bool,
    /// How many local recoveries of the present grant are among them.
    #[serde(default)]
    pub recoveries: u32,
    /// The operator's choice of a node ends by itself at this wall time, in milliseconds since 1970; None:
    /// it stays until it is cleared or cannot be followed.
    #[serde(default)]
    pub choice_ends: Option<u64>,
    /// Being deleted: taken out of service first.
    pub deleting: bool,
    /// Taken from the resource's addresses while it was owned: the owner may answer for them until it says
    /// that they are gone, or its grant ends. Nobody else gets them before.
    #[serde(default)]
    pub retired: Ranges,
    /// How often the addresses were changed: what an owner says of an earlier set does not count.
    #[serde(default)]
    pub alterations: u64,
    /// As of that many alterations the owner has done what it can; it has yet to do the rest. A bring-up takes
    /// all addresses, so what is changed while nobody is the owner counts as done.
    #[serde(default)]
    pub amended: u64,
    /// Why the owner is in service without all of the addresses.
    #[serde(default)]
    pub trouble: Option<String>,
}

impl Placement {
    /// Of a resource that nobody has had yet.
    pub fn new(desired: Desired, epoch: Epoch) -> Self {
        Self {
            desired,
            grant: None,
            epoch,
            failed: BTreeMap::new(),
            failures: BTreeMap::new(),
            started: false,
            recoveries: 0,
            choice_ends: None,
            deleting: false,
            retired: Ranges::default(),
            alterations: 0,
            amended: 0,
            trouble: None,
        }
    }

    /// Nobody answers any more, and whoever is the next owner brings up all addresses.
    pub fn end_grant(&mut self) {
        self.grant = None;
        self.started = false;
        self.recoveries = 0;
        self.retired = Ranges::default();
        self.forget_amendments();
    }

    /// All addresses are brought up anew.
    pub fn forget_amendments(&mut self) {
        self.amended = self.alterations;
        self.trouble = None;
    }

    /// It is to be in service somewhere.
    pub fn is_wanted(&self) -> bool {
        matches!(self.desired, Desired::InService { .. }) && !self.deleting
    }
}

/// What is remembered of failures on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    pub count: u32,
    /// Why, the last time.
    pub last: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub owner: NodeId,
    /// The owner's lease epoch when the grant was made.
    pub lease_epoch: LeaseEpoch,
    pub phase: Phase,
}

/// ```text
///            grant            report Started        release            report Released
///   (none) ---------> Starting ------------> InService -----> Stopping ------------> (none)
///                        |  report Failed        |  report Failed        owner deposed and
///                        +--------> (none) <-----+                       silent: (none)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    Starting,
    InService,
    Stopping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "desired")]
pub enum Desired {
    InService {
        /// Where an operator sent it; None lets priorities decide.
        on: Option<NodeId>,
    },
    OutOfService,
}
