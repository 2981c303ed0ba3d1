//! What the resources in EC2 that are in service on this node have last learned, for whoever shows it.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    core::{cloud::CloudReport, time::BootTime},
    model::Tag,
};

/// Shared by its clones.
#[derive(Clone, Default)]
pub struct InCloud(Arc<RwLock<BTreeMap<Tag, CloudFacts>>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudFacts {
    /// The network interface of EC2 (`eni-...`), as far as it is known.
    pub interface: Option<String>,
    /// Where things led when EC2 last answered.
    pub targets: Vec<String>,
    /// When that was.
    pub answered: Option<BootTime>,
    /// What is wrong, or not known, and since when.
    pub trouble: Option<(String, BootTime)>,
}

/// What is new about the trouble of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    Same,
    /// It has begun, or is another one now.
    Begins(String),
    Ends,
}

impl InCloud {
    pub fn facts(&self, tag: &Tag) -> Option<CloudFacts> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(tag).cloned()
    }

    /// What a sequence has learned. What it did not learn stays as it was.
    pub fn learn(&self, tag: &Tag, report: &CloudReport, now: BootTime) -> Turn {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = all.get(tag).cloned();
        let had = before.as_ref().and_then(|b| b.trouble.clone());
        let (trouble, turn) = match (&report.trouble, had) {
            (None, None) => (None, Turn::Same),
            (None, Some(_)) => (None, Turn::Ends),
            (Some(new), Some((old, since))) if *new == old => (Some((old, since)), Turn::Same),
            (Some(new), Some((_, since))) => (Some((new.clone(), since)), Turn::Begins(new.clone())),
            (Some(new), None) => (Some((new.clone(), now)), Turn::Begins(new.clone())),
        };
        let fresh = report.answered;
        let before = before.as_ref();
        let facts = CloudFacts {
            interface: report.interface.clone().or_else(|| before?.interface.clone()),
            targets: if fresh {
                report.targets.clone()
            } else {
                before.map(|b| b.targets.clone()).unwrap_or_default()
            },
            answered: if fresh { Some(now) } else { before.and_then(|b| b.answered) },
            trouble,
        };
        all.insert(tag.clone(), facts);
        turn
    }

    /// It is not here any more.
    pub fn forget(&self, tag: &Tag) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(tag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_when_it_begins_and_when_it_ends_and_what_was_known_is_kept() {
        let (all, tag) = (InCloud::default(), "ec2-web".parse().unwrap());
        let seen = CloudReport {
            interface: Some("eni-1".into()),
            targets: vec!["rtb-1: 1 route leads here".into()],
            answered: true,
            ..CloudReport::default()
        };
        let silent = CloudReport { trouble: Some("silent".into()), ..CloudReport::default() };
        let at = BootTime;
        assert_eq!(all.learn(&tag, &seen, at(1)), Turn::Same);
        assert_eq!(all.learn(&tag, &silent, at(2)), Turn::Begins("silent".into()));
        assert_eq!(all.learn(&tag, &silent, at(3)), Turn::Same);
        let facts = all.facts(&tag).unwrap();
        assert_eq!((facts.answered, facts.trouble), (Some(at(1)), Some(("silent".into(), at(2)))));
        assert_eq!((facts.interface, facts.targets), (seen.interface.clone(), seen.targets.clone()));
        assert_eq!(all.learn(&tag, &seen, at(4)), Turn::Ends);
        assert_eq!(all.facts(&tag).unwrap().answered, Some(at(4)));
        // That there is nothing is an answer, too.
        let none = CloudReport { answered: true, trouble: Some("none".into()), ..CloudReport::default() };
        assert_eq!(all.learn(&tag, &none, at(5)), Turn::Begins("none".into()));
        let facts = all.facts(&tag).unwrap();
        assert_eq!((facts.answered, facts.targets), (Some(at(5)), vec![]));
        all.forget(&tag);
        assert_eq!(all.facts(&tag), None);
    }
}
