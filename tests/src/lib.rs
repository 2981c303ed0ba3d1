//! Clusters in network namespaces, with real peers and real packets.

pub mod netns;
