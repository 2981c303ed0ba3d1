//! The one place in which it is decided who answers for EC2.

use std::sync::Arc;

use vipd_ec2::{Ec2, Options};

use crate::config::Ec2Config;

/// As the node's file has it. Nobody is asked before the first call.
pub fn connect(config: &Ec2Config) -> Arc<dyn Ec2> {
    let Ec2Config { endpoint, metadata_endpoint, profile } = config.clone();
    vipd_ec2::open(Options { endpoint, metadata_endpoint, profile })
}
