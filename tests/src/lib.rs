//! Clusters in network namespaces, with real peers and real packets.

pub mod bpf;
pub mod capture;
pub mod cloud;
pub mod frames;
pub mod interrupt;
pub mod keepalived;
pub mod lab;
pub mod machine;
pub mod measure;
pub mod netns;
pub mod packets;
pub mod prober;
pub mod stage;
pub mod table;
pub mod timeline;
