//! What helps: command lines of AWS, with all that is known filled in.

use super::{CloudArrival, CloudFacts, Whom};

/// What commands have to name.
pub(super) struct Places {
    region: String,
    instance: String,
}

impl Places {
    pub fn new(arrival: &CloudArrival, facts: &CloudFacts) -> Self {
        let identity = facts.identity.as_ref().ok();
        let own = identity.map(|i| i.region.clone());
        Self {
            region: arrival.region.clone().or(own).unwrap_or_else(|| "REGION".to_owned()),
            instance: identity.map_or_else(|| "INSTANCE".to_owned(), |i| i.instance.clone()),
        }
    }

    fn command(&self, text: &str) -> String {
        format!("aws ec2 {text} --region {}", self.region)
    }

    pub fn attach(&self, eni: &str) -> String {
        let instance = &self.instance;
        self.command(&format!(
            "attach-network-interface --network-interface-id {eni} --instance-id {instance} --device-index N"
        ))
    }

    pub fn no_source_dest_check(&self, eni: &str) -> String {
        self.command(&format!(
            "modify-network-interface-attribute --network-interface-id {eni} --no-source-dest-check"
        ))
    }

    pub fn create_route(&self, table: &str, destination: &str, eni: &str) -> String {
        self.command(&format!(
            "create-route --route-table-id {table} --destination-cidr-block {destination} --network-interface-id {eni}"
        ))
    }

    pub fn list_elastic_ips(&self) -> String {
        self.command("describe-addresses")
    }

    pub fn allocate(&self) -> String {
        self.command("allocate-address --domain vpc")
    }

    pub fn credentials(&self) -> String {
        format!(
            "give the instance a role with '{}' (docs/ec2.md), or name a profile in [ec2] of node.toml",
            self.command(&format!(
                "associate-iam-instance-profile --instance-id {} --iam-instance-profile Name=PROFILE",
                self.instance
            ))
        )
    }

    /// Of credentials that were found.
    pub fn accepted(&self, code: &str) -> String {
        match code {
            "OptInRequired" | "PendingVerification" | "Blocked" => {
                format!("see that the account is in order, and that the region {} is enabled for it", self.region)
            }
            // A signature holds for some minutes only.
            _ => "see that the clock of this node is right ('timedatectl'), and that the credentials which vipd takes \
                  (the instance's role, the profile in [ec2] of node.toml, or AWS_... in its environment) are still good; \
                  those in ~/.aws are read once: restart vipd when they change"
                .to_owned(),
        }
    }

    pub fn unreached(&self, whom: Whom) -> String {
        match whom {
            Whom::Metadata => format!(
                "see that this host is an instance of EC2, that nothing filters 169.254.169.254, and that the service is \
                 on with '{}'",
                self.command(&format!(
                    "modify-instance-metadata-options --instance-id {} --http-endpoint enabled --http-tokens required",
                    self.instance
                ))
            ),
            Whom::Api => format!(
                "see that the node reaches https://ec2.{}.amazonaws.com, or name a VPC's endpoint in [ec2] of node.toml",
                self.region
            ),
        }
    }

    /// `arn:aws:ec2:eu-central-1:*:route-table/rtb-1`
    pub fn arn(&self, object: &str) -> String {
        let partition = match &self.region {
            r if r.starts_with("cn-") => "aws-cn",
            r if r.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        };
        let region = if self.region == "REGION" { "*" } else { &self.region };
        format!("arn:{partition}:ec2:{region}:*:{object}")
    }
}
