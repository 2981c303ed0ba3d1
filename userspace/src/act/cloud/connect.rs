//! The one place in which it is decided who answers for EC2.

use std::sync::Arc;

use vipd_ec2::{Absent, Ec2};

use crate::config::Ec2Config;

/// As the node's file has it. Nobody is asked before the first call.
pub fn connect(_: &Ec2Config) -> Arc<dyn Ec2> {
    Arc::new(Absent)
}
