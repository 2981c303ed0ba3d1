//! Whether one may, without doing it.

use aws_sdk_ec2::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    operation::{
        associate_address::AssociateAddressError, describe_addresses::DescribeAddressesError,
        describe_network_interfaces::DescribeNetworkInterfacesError,
        describe_route_tables::DescribeRouteTablesError, disassociate_address::DisassociateAddressError,
        replace_route::ReplaceRouteError,
    },
};

use super::{Sdk, attempts::Attempts, classify::is_dry_run, lanes::Lane};
use crate::{Call, CallError, DryRun};

type Result<T> = std::result::Result<T, CallError>;

/// Of the form that EC2 gives to associations, as it looks at the form first.
const INVENTED_ASSOCIATION: &str = "eipassoc-00000000000000000";

impl Sdk {
    pub(super) async fn try_out(&self, probe: &DryRun, call: &Call) -> Result<()> {
        // It changes nothing, so it is one of the reads.
        let (client, _place) = self.enter(call, Lane::of_read(call)).await?;
        let attempts = Attempts::new(probe.action(), "dry run", call, None);
        match probe {
            DryRun::DescribeRouteTables => {
                let request = client.describe_route_tables().dry_run(true).max_results(5).customize();
                let request = request.config_override(attempts.config::<DescribeRouteTablesError>());
                verdict(&attempts, request.send().await)
            }
            DryRun::DescribeAddresses => {
                let request = client.describe_addresses().dry_run(true).customize();
                let request = request.config_override(attempts.config::<DescribeAddressesError>());
                verdict(&attempts, request.send().await)
            }
            DryRun::DescribeNetworkInterfaces => {
                let request = client.describe_network_interfaces().dry_run(true).max_results(5).customize();
                let request = request.config_override(attempts.config::<DescribeNetworkInterfacesError>());
                verdict(&attempts, request.send().await)
            }
            DryRun::ReplaceRoute { table, destination, eni } => {
                let request = client
                    .replace_route()
                    .dry_run(true)
                    .route_table_id(table)
                    .destination_cidr_block(destination.to_string())
                    .network_interface_id(eni)
                    .customize();
                let request = request.config_override(attempts.config::<ReplaceRouteError>());
                verdict(&attempts, request.send().await)
            }
            DryRun::DisassociateAddress { association } => {
                let association = association.as_deref().unwrap_or(INVENTED_ASSOCIATION);
                let request =
                    client.disassociate_address().dry_run(true).association_id(association).customize();
                let request = request.config_override(attempts.config::<DisassociateAddressError>());
                verdict(&attempts, request.send().await)
            }
            DryRun::AssociateAddress { allocation, eni } => {
                let request = client
                    .associate_address()
                    .dry_run(true)
                    .allocation_id(allocation)
                    .network_interface_id(eni)
                    .allow_reassociation(false)
                    .customize();
                let request = request.config_override(attempts.config::<AssociateAddressError>());
                verdict(&attempts, request.send().await)
            }
        }
    }
}

/// EC2 asks who calls and whether he may before it looks at the objects: to those who may not, it does not even say
/// whether there are any. So what it has to say about their state is said to somebody who may. What it says about the
/// form of a request (`....Malformed`, most of `InvalidParameterValue`) may come before, so that proves nothing.
fn verdict<T, E>(attempts: &Attempts, answer: std::result::Result<T, SdkError<E, HttpResponse>>) -> Result<()>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let error = match answer {
        // Whoever does not know `DryRun` has done it, so it is permitted.
        Ok(_) => return Ok(()),
        Err(error) if is_dry_run(&error) => return Ok(()),
        Err(error) => attempts.failed(&error),
    };
    match &error {
        CallError::Missing { .. } => Ok(()),
        CallError::Refused { code, .. } if code == "Resource.AlreadyAssociated" => Ok(()),
        _ => Err(error),
    }
}
