//! What vipd asks of Amazon EC2: route tables, Elastic IPs, and where this host is.
//!
//! The types and the trait [`Ec2`] are always there; the implementation with Amazon's SDK is behind the feature
//! `sdk`. Nothing is decided here, and nothing is remembered but connections, credentials and which host this is.

use std::sync::Arc;

mod absent;
mod call;
mod options;
#[cfg(feature = "sdk")]
mod sdk;
pub mod testing;
mod types;

pub use self::{
    absent::Absent,
    call::{Call, CallError, DryRun, Ec2, Permit, Purpose},
    options::Options,
    types::{Action, Association, ElasticIp, Identity, InterfaceDetails, Nic, Route, RouteTable},
};

/// The API and the metadata service. Nothing is asked, read or looked up before the first call, so this costs nothing
/// where there is no EC2. Without the feature `sdk` it is [`Absent`]. To be called, it needs a tokio runtime.
pub fn open(options: Options) -> Arc<dyn Ec2> {
    #[cfg(feature = "sdk")]
    {
        Arc::new(sdk::Sdk::new(options))
    }
    #[cfg(not(feature = "sdk"))]
    {
        let _ = options;
        Arc::new(Absent)
    }
}
