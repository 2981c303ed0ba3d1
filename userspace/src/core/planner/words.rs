//! Hurdles and departures in words. Whoever reads them knows the node they are about.

use super::{
    Planner,
    eligibility::Hurdle,
    placement::{Seat, Why},
    rules::Order,
};
use crate::model::{NodeId, Standing, Tag};

impl<'a> Planner<'a> {
    /// What keeps a unit from a node.
    pub(super) fn hurdle(&self, hurdle: &Hurdle<'a>) -> String {
        match hurdle {
            Hurdle::UnknownNode => "no such node".to_owned(),
            Hurdle::Witness => "a witness holds no addresses".to_owned(),
            Hurdle::GaveUp(reason) => format!("gave up everything: {reason}"),
            Hurdle::Standby => "on standby".to_owned(),
            Hurdle::Maintenance => "in maintenance".to_owned(),
            Hurdle::NotFit => "not heard, or without a lease".to_owned(),
            Hurdle::Standing(Standing::Joining) => "still joining".to_owned(),
            Hurdle::Standing(Standing::Deposed | Standing::Member) => {
                "deposed, and has not rejoined".to_owned()
            }
            Hurdle::NotExtended { tag } => format!("'{tag}' is not extended to it"),
            Hurdle::Failed { tag, reason } => format!("'{tag}' failed there: {reason}"),
            Hurdle::Subnet { subnet, down } => format!("subnet {subnet} is down there: {}", down.reason),
            Hurdle::Location { id } => format!("constraint '{id}' forbids it"),
            Hurdle::Together { id, with, place: Some(place) } => {
                format!(
                    "constraint '{id}' wants it to be with '{with}', whose place is '{}'",
                    self.name(*place)
                )
            }
            Hurdle::Together { id, with, place: None } => {
                format!("constraint '{id}' wants it to be with '{with}', which is nowhere")
            }
            Hurdle::Apart { id, with } => format!("constraint '{id}' keeps it apart from '{with}'"),
            Hurdle::Occupied { id, by } => {
                format!("constraint '{id}' keeps '{by}' apart from it, which is there in maintenance")
            }
            Hurdle::Clone { id, there } => format!("clone '{id}' has {there} instances there already"),
        }
    }

    /// Why a unit leaves the node that it is on.
    pub(super) fn why(&self, why: &Why<'a>, owner: NodeId, place: Option<NodeId>) -> String {
        match why {
            Why::Expelled(hurdle) | Why::Driven(hurdle) => self.hurdle(hurdle),
            Why::Connectivity { here, there } => format!(
                "node '{}' reaches {here} of the connectivity hosts and '{}' {there}",
                self.name(owner),
                place.map_or_else(String::new, |id| self.name(id))
            ),
            Why::Choice => "an operator wants it there".to_owned(),
            Why::Better => "automatic switchback".to_owned(),
            Why::Unwanted => "it is to be out of service".to_owned(),
            Why::Without(order) => not_up(order),
        }
    }

    pub(super) fn departure(&self, tag: &Tag, owner: NodeId, seat: &Seat<'a>, why: &Why<'a>) -> String {
        let (here, why) = (self.name(owner), self.why(why, owner, seat.place));
        match seat.place {
            Some(to) => format!("'{tag}' moves from node '{here}' to '{}': {why}", self.name(to)),
            None => format!("'{tag}' leaves node '{here}': {why}"),
        }
    }
}

pub(super) fn not_up(order: &Order<'_>) -> String {
    format!("constraint '{}': '{}' is not, or not to be, in service", order.id, order.first_tag)
}
