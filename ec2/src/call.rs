//! How the API is asked, and how it can fail.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use async_trait::async_trait;
use ipnet::Ipv4Net;

use super::types::{Action, ElasticIp, Identity, InterfaceDetails, Nic, RouteTable};

/// How one call is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `eu-central-1`. When None, the one that the environment (`AWS_REGION`) or the profile names, else the one in
    /// which this host is.
    pub region: Option<String>,
    /// An attempt that was not answered for so long is given up.
    pub attempt_timeout: Duration,
    /// Attempts after the first one, with jittered back-off, when the API was silent, throttled or failed.
    pub retries: u32,
    pub purpose: Purpose,
}

/// What a call is for. Calls wait only for others of the same purpose (and of the same sort, read or write).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To bring a resource in service, to keep it there or to take it away.
    Service,
    /// To answer what an operator asks, before something is created or of what is there.
    Inquiry,
}

/// Whether this node may still write. Asked immediately before each attempt is sent.
pub trait Permit: Send + Sync {
    /// # Errors
    /// Why not: nothing is sent then.
    fn still(&self) -> std::result::Result<(), String>;
}

/// Why a call brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nobody answered: whether it was done is not known.
    #[error("{what} was not answered within {within:?}")]
    Silent { what: String, within: Duration },
    /// It could not be asked, or the answer broke off: whether it was done is not known.
    #[error("{what} did not get through: {reason}")]
    Unreachable { what: String, reason: String },
    /// Too many calls (RequestLimitExceeded and the like).
    #[error("{what} was throttled ({code})")]
    Throttled { what: String, code: String },
    /// The API itself failed (5xx).
    #[error("{what} failed within EC2 ({code})")]
    Unavailable { what: String, code: String },
    /// No policy allows it.
    #[error("{action} is not permitted ({code}): {message}")]
    Denied { action: Action, code: String, message: String },
    /// Whatever is asked: the credentials have ended or are wrong, this host's clock is, or the account may not use EC2.
    #[error("AWS does not accept this node's credentials ({code}): {message}")]
    Unaccepted { code: String, message: String },
    /// The SDK's chain found none, or could not read them.
    #[error("no credentials for AWS: {0}")]
    NoCredentials(String),
    /// What it is about does not exist.
    #[error("{what}: {message} ({code})")]
    Missing { what: String, code: String, message: String },
    /// Anything else that the API objects to.
    #[error("{what} was refused ({code}): {message}")]
    Refused { what: String, code: String, message: String },
    /// The [`Permit`] did not hold: nothing was sent, or nothing more after an attempt of which it is not known
    /// whether it was done.
    #[error("not sent: {0}")]
    Overtaken(String),
    /// vipd was built without it.
    #[error("this vipd was built without EC2: build it with the feature 'ec2'")]
    Absent,
}

impl CallError {
    /// It says nothing about what it asked for, and may go better the next time.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Silent { .. }
            | Self::Unreachable { .. }
            | Self::Throttled { .. }
            | Self::Unavailable { .. } => true,
            Self::Denied { .. }
            | Self::Unaccepted { .. }
            | Self::NoCredentials(_)
            | Self::Missing { .. }
            | Self::Refused { .. }
            | Self::Overtaken(_)
            | Self::Absent => false,
        }
    }
}

type Result<T> = std::result::Result<T, CallError>;

/// The API and the metadata service. Every call ends: an attempt after [`Call::attempt_timeout`], the whole after
/// that many attempts with their pauses (of at most 5 s), once it has its place among the calls that are in flight.
#[async_trait]
pub trait Ec2: Send + Sync {
    /// Which host this is. From the metadata service (IMDSv2), like [`Ec2::nic`]; kept for as long as the process
    /// lives, as a host stays the same.
    async fn identity(&self, call: &Call) -> Result<Identity>;

    /// The interface with that link-layer address; asked anew each time. [`CallError::Missing`] when the host has no
    /// such one (any more).
    async fn nic(&self, mac: [u8; 6], call: &Call) -> Result<Nic>;

    /// [`CallError::Missing`] when there is none.
    async fn describe_interface(&self, eni: &str, call: &Call) -> Result<InterfaceDetails>;

    /// All route tables of the VPC, page by page, with those routes whose destination is a single address
    /// (prefix length 32).
    async fn route_tables(&self, vpc: &str, call: &Call) -> Result<Vec<RouteTable>>;

    /// An answer is no proof: read it back.
    async fn replace_route(
        &self,
        table: &str,
        destination: Ipv4Net,
        eni: &str,
        call: &Call,
        permit: Arc<dyn Permit>,
    ) -> Result<()>;

    /// None when this account has no such Elastic IP in the region.
    async fn elastic_ip(&self, address: Ipv4Addr, call: &Call) -> Result<Option<ElasticIp>>;

    /// Those that are associated with the interface.
    async fn elastic_ips_of(&self, eni: &str, call: &Call) -> Result<Vec<ElasticIp>>;

    /// Done, or not there any more.
    async fn disassociate(&self, association: &str, call: &Call, permit: Arc<dyn Permit>) -> Result<()>;

    /// With the primary private address of the interface. Refused while the Elastic IP is associated elsewhere.
    async fn associate(
        &self,
        allocation: &str,
        eni: &str,
        call: &Call,
        permit: Arc<dyn Permit>,
    ) -> Result<()>;

    /// Asks with `DryRun` whether the action would be permitted on these objects; nothing is changed.
    /// [`CallError::Denied`] when not.
    async fn may(&self, probe: &DryRun, call: &Call) -> Result<()>;
}

/// A call that is tried out with `DryRun`, with the objects that it would be about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DryRun {
    DescribeRouteTables,
    ReplaceRoute {
        table: String,
        destination: Ipv4Net,
        eni: String,
    },
    DescribeAddresses,
    /// Of the association that there is, or of an invented one.
    DisassociateAddress {
        association: Option<String>,
    },
    AssociateAddress {
        allocation: String,
        eni: String,
    },
    DescribeNetworkInterfaces,
}

impl DryRun {
    pub fn action(&self) -> Action {
        match self {
            Self::DescribeRouteTables => Action::DescribeRouteTables,
            Self::ReplaceRoute { .. } => Action::ReplaceRoute,
            Self::DescribeAddresses => Action::DescribeAddresses,
            Self::DisassociateAddress { .. } => Action::DisassociateAddress,
            Self::AssociateAddress { .. } => Action::AssociateAddress,
            Self::DescribeNetworkInterfaces => Action::DescribeNetworkInterfaces,
        }
    }
}
