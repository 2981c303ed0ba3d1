//! `vipctl list`.

use clap::Args;

use super::{Session, output, session::unexpected};
use crate::{
    api::{AddressPage, Answer, ApiError, Request, thousands},
    model::Tag,
};

/// List every address of a resource, or of all with their tags
///
/// With --json one document: total, offset, addresses.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl list shop
  vipctl list --offset 1000 --limit 100")]
pub struct List {
    tag: Option<Tag>,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Leave so many out before
    #[arg(long, value_name = "N", default_value_t = 0)]
    offset: usize,
}

impl List {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        let with_tags = self.tag.is_none();
        let Self { tag, limit, offset } = self;
        match session.ask(&Request::Addresses { tag, limit, offset })? {
            Answer::Addresses(page) if session.json => output::json(&page),
            Answer::Addresses(page) => {
                output::print(&text(&page, with_tags));
                if let Some(rest) = rest(&page) {
                    output::note(&rest);
                }
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }
}

fn text(page: &AddressPage, with_tags: bool) -> String {
    let line = |listed: &crate::api::ListedAddress| match with_tags {
        true => format!("{}\t{}\n", listed.address, listed.tag),
        false => format!("{}\n", listed.address),
    };
    page.addresses.iter().map(line).collect()
}

/// What was left out; on stderr, so that the list can be read by programs.
fn rest(page: &AddressPage) -> Option<String> {
    let shown = page.addresses.len() as u64;
    (shown < page.total).then(|| {
        format!(
            "{} of {} addresses, after {}",
            thousands(shown),
            thousands(page.total),
            thousands(page.offset as u64)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_a_line_and_what_is_left_out() {
        let listed = |address: &str| crate::api::ListedAddress {
            tag: "shop".parse().unwrap(),
            address: address.parse().unwrap(),
        };
        let page = AddressPage {
            total: 2000,
            offset: 10,
            addresses: vec![listed("10.0.0.1/24"), listed("10.0.0.2/24")],
        };
        assert_eq!(text(&page, false), "10.0.0.1/24\n10.0.0.2/24\n");
        assert_eq!(text(&page, true), "10.0.0.1/24\tshop\n10.0.0.2/24\tshop\n");
        assert_eq!(rest(&page).unwrap(), "2 of 2,000 addresses, after 10");
        assert_eq!(rest(&AddressPage { total: 2, offset: 0, ..page }), None);
    }
}
