//! Where the services are, when they are not where Amazon's SDK looks for them.

/// Of `[ec2]` in node.toml. What is None is looked up where every tool of Amazon's looks: the environment
/// (`AWS_ENDPOINT_URL_EC2`, `AWS_EC2_METADATA_SERVICE_ENDPOINT`, `AWS_PROFILE`, `AWS_REGION`, ...) and `~/.aws`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// URL of the EC2 API, of all regions.
    pub endpoint: Option<String>,
    /// URL of the instance metadata service.
    pub metadata_endpoint: Option<String>,
    /// Profile in `~/.aws/config` and `~/.aws/credentials`.
    pub profile: Option<String>,
}
