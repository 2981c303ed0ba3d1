//! Is the address in use on the network already? (row IP-4)

use std::{net::IpAddr, time::Duration};

use super::{Context, Result};
use crate::{api::ApiError, observe::network::Link};

impl Context {
    /// Refuses an address that somebody else claims or that answers a ping.
    pub(super) async fn refuse_duplicate(&self, link: &Link, address: IpAddr, wait: Duration) -> Result<()> {
        let (claims, ping) = tokio::join!(
            self.host.claims(link, address, wait),
            // A network that cannot be reached yet (an address of a new subnet) is no answer.
            self.host.answers_ping(link, address, wait),
        );
        let way_out = format!(
            "choose another address, or take it off that host (NOIPUNIQUE=1 in {} skips this check)",
            self.tunables.path().display()
        );
        let claims = claims.map_err(|e| {
            ApiError::failed(format!(
                "cannot find out whether {address} is in use on {}: {e} (NOIPUNIQUE=1 in {} skips this check)",
                link.name,
                self.tunables.path().display()
            ))
        })?;
        if !claims.is_empty() {
            let macs: Vec<String> = claims.iter().map(mac).collect();
            return Err(ApiError::refused(format!(
                "{address} is in use on the network: {} claims it on {}; {way_out}",
                macs.join(", "),
                link.name
            )));
        }
        if ping.is_ok_and(|answered| answered) {
            return Err(ApiError::refused(format!(
                "{address} is in use on the network: it answers a ping through {}; {way_out}",
                link.name
            )));
        }
        Ok(())
    }
}

fn mac(octets: &[u8; 6]) -> String {
    octets.map(|o| format!("{o:02x}")).join(":")
}
