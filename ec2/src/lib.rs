//! What vipd asks of Amazon EC2: route tables, Elastic IPs, and where this host is.
//!
//! The types and the trait [`Ec2`] are always there; the implementation with Amazon's SDK is behind the feature
//! `sdk`. Nothing is decided here, and nothing is remembered but connections and credentials.

mod absent;
mod call;
pub mod testing;
mod types;

pub use self::{
    absent::Absent,
    call::{Call, CallError, DryRun, Ec2, Permit},
    types::{Action, Association, ElasticIp, Identity, InterfaceDetails, Nic, Route, RouteTable},
};
