//! The names under which the steps of a sequence are told.

use super::Verb;

pub(super) struct Kinds {
    pub disabled: &'static str,
    pub link: &'static str,
    pub interface: &'static str,
    pub look: &'static str,
    pub write: &'static str,
    pub again: &'static str,
    pub left: &'static str,
    pub trouble: &'static str,
    pub done: &'static str,
    pub failed: &'static str,
}

macro_rules! kinds {
    ($verb:literal) => {
        &Kinds {
            disabled: concat!($verb, ".disabled"),
            link: concat!($verb, ".link"),
            interface: concat!($verb, ".ec2-interface"),
            look: concat!($verb, ".ec2-look"),
            write: concat!($verb, ".ec2-write"),
            again: concat!($verb, ".ec2-again"),
            left: concat!($verb, ".ec2-left"),
            trouble: concat!($verb, ".ec2-trouble"),
            done: concat!($verb, ".done"),
            failed: concat!($verb, ".failed"),
        }
    };
}

impl Verb {
    pub(super) fn kinds(self) -> &'static Kinds {
        match self {
            Self::Restore => kinds!("restore"),
            Self::Remove => kinds!("remove"),
            Self::Quickcheck => kinds!("quickcheck"),
            Self::Recover => kinds!("recover"),
            Self::Switch => kinds!("switch"),
            Self::Amend => kinds!("amend"),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Restore => "restore",
            Self::Remove => "remove",
            Self::Quickcheck => "quickcheck",
            Self::Recover => "recover",
            Self::Switch => "switch",
            Self::Amend => "amend",
        }
    }
}
