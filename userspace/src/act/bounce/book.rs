//! What is stopped, on disk, for the next life of a daemon that dies before it started it again. The
//! directory goes with a reboot, as everything does that is kept in it.

use base64::{Engine, prelude::BASE64_STANDARD};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use serde::{Deserialize, Serialize};

use super::Owed;
use crate::{
    act::{link::Forgotten, network_manager::Profile, pages::Pages},
    observe::network::Link,
};

/// One page for each interface that is stopped.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    /// None: nothing is written.
    pub(super) pages: Option<Pages>,
}

/// What a start has to bring back, and of which interface.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Page {
    device: String,
    index: u32,
    profile: Option<Profile>,
    /// Netlink messages in base64.
    forgotten: Option<Vec<String>>,
}

impl Book {
    /// Writes down what is owed. A failure costs only what a crash would lose.
    pub(super) fn write(&self, link: &Link, owed: &Owed) {
        let Some(pages) = &self.pages else { return };
        let page = Page {
            device: link.name.clone(),
            index: link.index,
            profile: owed.profile.clone(),
            forgotten: owed.forgotten.as_ref().map(encode),
        };
        if let Err(error) = pages.write(&link.index.to_string(), &page) {
            let dir = pages.dir().display();
            tracing::warn!(device = link.name, %error, "cannot note in {dir} that it is stopped");
        }
    }

    /// The interface is as it was.
    pub(super) fn strike(&self, index: u32) {
        self.strike_out(&index.to_string());
    }

    fn strike_out(&self, name: &str) {
        let Some(pages) = &self.pages else { return };
        if let Err(error) = pages.strike(name) {
            let dir = pages.dir().display();
            tracing::warn!(%error, "cannot forget in {dir} that interface {name} was stopped");
        }
    }

    /// What an earlier life left, of those of these interfaces that are the same still. All else is
    /// struck out: there is nothing to bring back to an interface that is gone.
    pub(super) fn read(&self, links: Vec<Link>) -> Vec<(Link, Owed)> {
        let Some(pages) = &self.pages else { return Vec::new() };
        let all = pages.read::<Page>().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read in {} what was stopped", pages.dir().display());
            Vec::new()
        });
        let mut found = Vec::new();
        for (name, page) in all {
            let same = page.ok().and_then(|page| {
                let same = |link: &&Link| link.index == page.index && link.name == page.device;
                Some((links.iter().find(same)?.clone(), page))
            });
            match same {
                Some((link, page)) => {
                    let forgotten = page.forgotten.as_deref().map(decode);
                    found.push((link, Owed { forgotten, profile: page.profile }));
                }
                // Damaged, or of an interface that is gone: of no use.
                None => self.strike_out(&name),
            }
        }
        found
    }
}

fn encode(forgotten: &Forgotten) -> Vec<String> {
    let text = |message: RouteNetlinkMessage| {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        BASE64_STANDARD.encode(bytes)
    };
    forgotten.clone().messages().map(text).collect()
}

fn decode(texts: &[String]) -> Forgotten {
    texts
        .iter()
        .filter_map(|text| BASE64_STANDARD.decode(text).ok())
        .filter_map(|bytes| NetlinkMessage::deserialize(&bytes).ok())
        .filter_map(|message| match message.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        net::{IpAddr, Ipv4Addr},
    };

    use netlink_packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage},
    };

    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            mac: [2, 0, 0, 0, 0, 1],
            admin_up: false,
            carrier: false,
            loopback: false,
            kind: None,
            mtu: 1500,
        }
    }

    fn owed() -> Owed {
        let mut address = AddressMessage::default();
        address.header.family = AddressFamily::Inet;
        address.header.index = 3;
        address.attributes.push(AddressAttribute::Address(IpAddr::from([192, 0, 2, 1])));
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet;
        route.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::new(192, 0, 2, 254))));
        route.attributes.push(RouteAttribute::Oif(3));
        let messages = [RouteNetlinkMessage::NewAddress(address), RouteNetlinkMessage::NewRoute(route)];
        let profile = Profile { uuid: "2d9a1b62".to_owned(), id: "wired".to_owned() };
        Owed { forgotten: Some(messages.into_iter().collect()), profile: Some(profile) }
    }

    #[test]
    fn the_next_life_reads_what_this_one_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book { pages: Some(Pages::new(dir.path().join("stopped"))) };
        assert!(book.read(vec![link(3, "eth0")]).is_empty());
        book.write(&link(3, "eth0"), &owed());
        assert_eq!(book.read(vec![link(2, "eth1"), link(3, "eth0")]), [(link(3, "eth0"), owed())]);
        book.strike(3);
        book.strike(3);
        assert!(book.read(vec![link(3, "eth0")]).is_empty());
    }

    #[test]
    fn what_is_of_no_use_is_struck_out() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book { pages: Some(Pages::new(dir.path().to_owned())) };
        book.write(&link(3, "eth0"), &owed());
        fs::write(dir.path().join("4.json"), "{\"device\"").unwrap();
        // Another interface has its number.
        assert!(book.read(vec![link(3, "eth7"), link(4, "eth1")]).is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
