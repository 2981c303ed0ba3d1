//! The calls.

use std::{net::Ipv4Addr, sync::Arc};

use async_trait::async_trait;
use aws_sdk_ec2::{
    Client,
    operation::{
        associate_address::AssociateAddressError, describe_addresses::DescribeAddressesError,
        describe_network_interfaces::DescribeNetworkInterfacesError,
        describe_route_tables::DescribeRouteTablesError, disassociate_address::DisassociateAddressError,
        replace_route::ReplaceRouteError,
    },
    types::Filter,
};
use ipnet::Ipv4Net;
use tokio::sync::SemaphorePermit;

use super::{Sdk, attempts::Attempts, convert, lanes::Lane};
use crate::{
    Action, Call, CallError, DryRun, Ec2, ElasticIp, Identity, InterfaceDetails, Nic, Permit, RouteTable,
};

type Result<T> = std::result::Result<T, CallError>;

/// The most that EC2 gives at once.
const PAGE: i32 = 100;

/// EC2 allows 200 route tables in a VPC, more on request. An endpoint that never comes to an end must not keep us for
/// ever.
const MOST_PAGES: usize = 50;

#[async_trait]
impl Ec2 for Sdk {
    async fn identity(&self, call: &Call) -> Result<Identity> {
        self.clients.metadata.identity(call).await
    }

    async fn nic(&self, mac: [u8; 6], call: &Call) -> Result<Nic> {
        self.clients.metadata.nic(mac, call).await
    }

    async fn describe_interface(&self, eni: &str, call: &Call) -> Result<InterfaceDetails> {
        let (client, _place) = self.enter(call, Lane::of_read(call)).await?;
        let attempts = Attempts::new(Action::DescribeNetworkInterfaces, eni, call, None);
        let answer = client
            .describe_network_interfaces()
            .network_interface_ids(eni)
            .customize()
            .config_override(attempts.config::<DescribeNetworkInterfacesError>())
            .send()
            .await
            .map_err(|error| attempts.failed(&error))?;
        let described = answer.network_interfaces().iter().find_map(convert::interface);
        described.ok_or_else(|| CallError::Missing {
            what: attempts.what.clone(),
            code: "empty answer".to_owned(),
            message: "EC2 describes no such interface".to_owned(),
        })
    }

    async fn route_tables(&self, vpc: &str, call: &Call) -> Result<Vec<RouteTable>> {
        let (client, _place) = self.enter(call, Lane::of_read(call)).await?;
        let mut tables = Vec::new();
        let mut next = None;
        for _ in 0..MOST_PAGES {
            let attempts = Attempts::new(Action::DescribeRouteTables, vpc, call, None);
            let page = client
                .describe_route_tables()
                .filters(filter("vpc-id", vpc))
                .max_results(PAGE)
                .set_next_token(next)
                .customize()
                .config_override(attempts.config::<DescribeRouteTablesError>())
                .send()
                .await
                .map_err(|error| attempts.failed(&error))?;
            tables.extend(page.route_tables().iter().filter_map(convert::table));
            next = page.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
            if next.is_none() {
                return Ok(tables);
            }
        }
        Err(CallError::Unreachable {
            what: format!("{} ({vpc})", Action::DescribeRouteTables),
            reason: format!("the answer has no end: more than {MOST_PAGES} pages of {PAGE} route tables"),
        })
    }

    async fn replace_route(
        &self,
        table: &str,
        destination: Ipv4Net,
        eni: &str,
        call: &Call,
        permit: Arc<dyn Permit>,
    ) -> Result<()> {
        let (client, _place) = self.enter(call, Lane::Writes).await?;
        let objects = format!("{destination} in {table} to {eni}");
        let attempts = Attempts::new(Action::ReplaceRoute, &objects, call, Some(permit));
        let answer = client
            .replace_route()
            .route_table_id(table)
            .destination_cidr_block(destination.to_string())
            .network_interface_id(eni)
            .customize()
            .config_override(attempts.config::<ReplaceRouteError>())
            .send()
            .await;
        answer.map(drop).map_err(|error| attempts.failed(&error))
    }

    async fn elastic_ip(&self, address: Ipv4Addr, call: &Call) -> Result<Option<ElasticIp>> {
        // By filter: asked for as such, an address that is not there is an error.
        let found = self.addresses("public-ip", &address.to_string(), call).await?;
        Ok(found.into_iter().find(|found| found.address == address))
    }

    async fn elastic_ips_of(&self, eni: &str, call: &Call) -> Result<Vec<ElasticIp>> {
        self.addresses("network-interface-id", eni, call).await
    }

    async fn disassociate(&self, association: &str, call: &Call, permit: Arc<dyn Permit>) -> Result<()> {
        let (client, _place) = self.enter(call, Lane::Writes).await?;
        let attempts = Attempts::new(Action::DisassociateAddress, association, call, Some(permit));
        let answer = client
            .disassociate_address()
            .association_id(association)
            .customize()
            .config_override(attempts.config::<DisassociateAddressError>())
            .send()
            .await;
        match answer.map_err(|error| attempts.failed(&error)) {
            Ok(_) => Ok(()),
            // It is gone, by us in an attempt whose answer was lost or by another.
            Err(CallError::Missing { code, .. }) if code == "InvalidAssociationID.NotFound" => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn associate(
        &self,
        allocation: &str,
        eni: &str,
        call: &Call,
        permit: Arc<dyn Permit>,
    ) -> Result<()> {
        let (client, _place) = self.enter(call, Lane::Writes).await?;
        let objects = format!("{allocation} with {eni}");
        let attempts = Attempts::new(Action::AssociateAddress, &objects, call, Some(permit));
        let answer = client
            .associate_address()
            .allocation_id(allocation)
            .network_interface_id(eni)
            // Never away from another: it may be the next owner. Without it EC2 allows it.
            .allow_reassociation(false)
            .customize()
            .config_override(attempts.config::<AssociateAddressError>())
            .send()
            .await;
        answer.map(drop).map_err(|error| attempts.failed(&error))
    }

    async fn may(&self, probe: &DryRun, call: &Call) -> Result<()> {
        self.try_out(probe, call).await
    }
}

impl Sdk {
    /// The client and a place among the calls that are made.
    pub(super) async fn enter(&self, call: &Call, lane: Lane) -> Result<(Client, SemaphorePermit<'_>)> {
        let client = self.clients.of(call).await?;
        Ok((client, self.lanes.enter(lane).await?))
    }

    /// EC2 gives the addresses that match in one answer: there are no pages.
    async fn addresses(&self, name: &str, value: &str, call: &Call) -> Result<Vec<ElasticIp>> {
        let (client, _place) = self.enter(call, Lane::of_read(call)).await?;
        let attempts = Attempts::new(Action::DescribeAddresses, value, call, None);
        let answer = client
            .describe_addresses()
            .filters(filter(name, value))
            .customize()
            .config_override(attempts.config::<DescribeAddressesError>())
            .send()
            .await
            .map_err(|error| attempts.failed(&error))?;
        Ok(answer.addresses().iter().filter_map(convert::elastic_ip).collect())
    }
}

fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}
