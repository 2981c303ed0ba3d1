//! An Elastic IP.

use std::net::Ipv4Addr;

use super::{Judge, Whom};

impl Judge<'_> {
    pub(super) fn eip(&mut self, address: Ipv4Addr) {
        let facts = self.facts;
        for device in facts.devices.iter().filter(|d| d.up == Some(false)) {
            self.object(format!(
                "{0} has no link, so that nothing sent to {address} would arrive: 'ip link set {0} up', and see that it \
                 has a carrier",
                device.name
            ));
        }
        match &facts.elastic_ip {
            Some(Ok(None)) => self.object(format!(
                "this account has no Elastic IP {address} in the region: '{}' lists those it has, '{}' gets another",
                self.places.list_elastic_ips(),
                self.places.allocate()
            )),
            Some(Err(e)) => self.failed(Whom::Api, e),
            Some(Ok(Some(_))) | None => {}
        }
        for device in &facts.devices {
            let on = match &device.elastic_ips {
                Some(Ok(on)) => on,
                Some(Err(e)) => {
                    self.failed(Whom::Api, e);
                    continue;
                }
                None => continue,
            };
            let others: Vec<String> =
                on.iter().map(|e| e.address).filter(|a| *a != address).map(|a| a.to_string()).collect();
            if !others.is_empty() {
                self.verdict.warnings.push(format!(
                    "{} has {} now, which will be taken off it when {address} comes: use another interface if that is \
                     needed there",
                    device.name,
                    others.join(", ")
                ));
            }
        }
    }
}
