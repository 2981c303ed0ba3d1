//! What follows from what was seen.

use super::Ask;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// As it should be; what is missing all the same.
    Right { lacking: Option<String> },
    /// What is wrong, and the writes that mend it, in their order.
    Wrong { what: String, writes: Vec<Ask> },
    /// There is nothing that could lead here, and no node could change that.
    Nothing { what: String },
}

/// Where things lead, for people; and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub targets: Vec<String>,
    pub judgement: Judgement,
}
