//! All routes of all tables at one moment.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::xml::Element;

/// (table, destination) and the whole route as the server wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<(String, String), String>);

impl Snapshot {
    /// Of an answer to `DescribeRouteTables`.
    pub(super) fn of(answer: &Element) -> Result<Self> {
        let mut all = BTreeMap::new();
        for table in answer.items("routeTableSet") {
            let id = table.at("routeTableId")?;
            for route in table.items("routeSet") {
                let kinds = ["destinationCidrBlock", "destinationIpv6CidrBlock", "destinationPrefixListId"];
                let destination = kinds.iter().find_map(|kind| route.at(kind).ok());
                let destination = destination.context("a route without a destination")?;
                all.insert((id.to_owned(), destination.to_owned()), route.to_xml());
            }
        }
        Ok(Self(all))
    }

    /// Without the routes to these destinations in these tables: what nobody should have touched.
    pub fn except(&self, tables: &[String], destinations: &[String]) -> Self {
        let stays = |(table, to): &&(String, String)| !(tables.contains(table) && destinations.contains(to));
        let all = self.0.iter().filter(|(key, _)| stays(key));
        Self(all.map(|(key, route)| (key.clone(), route.clone())).collect())
    }

    /// The interface that a route leads to.
    pub fn target(&self, table: &str, destination: &str) -> Option<String> {
        let route = self.0.get(&(table.to_owned(), destination.to_owned()))?;
        Element::parse(route).ok()?.at("networkInterfaceId").ok().map(str::to_owned)
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
