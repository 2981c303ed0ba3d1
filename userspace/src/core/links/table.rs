//! The verdicts of all interfaces, to be passed around.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::LinkHealth;
use crate::core::time::BootTime;

/// What is known of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkReport {
    pub health: LinkHealth,
    /// It came back a short while ago: good enough where nothing better is left, and no reason yet to move
    /// anything to it.
    pub recovering: bool,
    /// Since when it has had this health.
    pub since: BootTime,
    /// Why it is not `Up`; empty when it is.
    pub why: String,
    /// This node's own addresses there, which are never moved.
    pub stationary: Vec<IpNet>,
}

/// All interfaces by name, without the loopback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkTable {
    /// None until they were first looked at.
    links: Option<BTreeMap<String, LinkReport>>,
}

impl LinkTable {
    pub fn new(links: BTreeMap<String, LinkReport>) -> Self {
        Self { links: Some(links) }
    }

    /// They were looked at. Until then nothing speaks against any interface.
    pub fn is_known(&self) -> bool {
        self.links.is_some()
    }

    pub fn get(&self, name: &str) -> Option<&LinkReport> {
        self.links.as_ref()?.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &LinkReport)> {
        self.links.iter().flatten().map(|(name, report)| (name.as_str(), report))
    }

    /// What an interface is good for; None while nothing is known.
    pub fn health(&self, name: &str) -> Option<LinkHealth> {
        let links = self.links.as_ref()?;
        Some(links.get(name).map_or(LinkHealth::Missing, |r| r.health))
    }

    /// Why nothing should be on that interface now, for an operator to read.
    pub fn failure(&self, name: &str) -> Option<String> {
        let links = self.links.as_ref()?;
        match links.get(name) {
            None => Some(format!("{name}: there is no such interface")),
            Some(report) if report.health != LinkHealth::Up => Some(format!("{name}: {}", report.why)),
            Some(_) => None,
        }
    }

    /// The interface of a list, best first, that should carry an address which is on `now`: that one while
    /// it is up; else the first that is up and not recovering, else the first that is up. None when there
    /// is no better one than `now`.
    pub fn choose<'a>(&self, devices: &'a [String], now: Option<&str>) -> Option<&'a str> {
        let up = |name: &&String| self.links.is_none() || self.health(name) == Some(LinkHealth::Up);
        let steady = |name: &&String| up(name) && self.get(name).is_none_or(|r| !r.recovering);
        let present = devices.iter().find(|d| Some(d.as_str()) == now).filter(up);
        let chosen = present.or_else(|| devices.iter().find(steady)).or_else(|| devices.iter().find(up));
        chosen.map(String::as_str)
    }
}
