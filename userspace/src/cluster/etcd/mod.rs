//! The cluster's state in an etcd cluster (row CL-2): [`EtcdStore`].

mod cache;
mod client;
mod election;
#[cfg(test)]
mod fake;
mod follow;
mod keys;
mod kv;
mod log;
mod machine;
mod parts;
mod propose;
mod serve;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use store::EtcdStore;
