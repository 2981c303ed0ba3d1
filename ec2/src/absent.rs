//! For a vipd that was built without the SDK.

use std::{net::Ipv4Addr, sync::Arc};

use async_trait::async_trait;
use ipnet::Ipv4Net;

use super::{
    call::{Call, CallError, DryRun, Ec2, Permit},
    types::{ElasticIp, Identity, InterfaceDetails, Nic, RouteTable},
};

/// Says of every call that it cannot be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Absent;

type Result<T> = std::result::Result<T, CallError>;

#[async_trait]
impl Ec2 for Absent {
    async fn identity(&self, _: &Call) -> Result<Identity> {
        Err(CallError::Absent)
    }

    async fn nic(&self, _: [u8; 6], _: &Call) -> Result<Nic> {
        Err(CallError::Absent)
    }

    async fn describe_interface(&self, _: &str, _: &Call) -> Result<InterfaceDetails> {
        Err(CallError::Absent)
    }

    async fn route_tables(&self, _: &str, _: &Call) -> Result<Vec<RouteTable>> {
        Err(CallError::Absent)
    }

    async fn replace_route(&self, _: &str, _: Ipv4Net, _: &str, _: &Call, _: Arc<dyn Permit>) -> Result<()> {
        Err(CallError::Absent)
    }

    async fn elastic_ip(&self, _: Ipv4Addr, _: &Call) -> Result<Option<ElasticIp>> {
        Err(CallError::Absent)
    }

    async fn elastic_ips_of(&self, _: &str, _: &Call) -> Result<Vec<ElasticIp>> {
        Err(CallError::Absent)
    }

    async fn disassociate(&self, _: &str, _: &Call, _: Arc<dyn Permit>) -> Result<()> {
        Err(CallError::Absent)
    }

    async fn associate(&self, _: &str, _: &str, _: &Call, _: Arc<dyn Permit>) -> Result<()> {
        Err(CallError::Absent)
    }

    async fn may(&self, _: &DryRun, _: &Call) -> Result<()> {
        Err(CallError::Absent)
    }
}
