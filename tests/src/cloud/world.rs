//! What the account has: a VPC over two zones, instances with their interfaces, route tables, Elastic IPs. Made and
//! read back past the proxy.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use anyhow::{Context, Result};

use super::{
    imds::{Identity, Interface},
    moto::{Moto, REGION},
    snapshot::Snapshot,
    xml::Element,
};

/// What to make. All instances' source/destination checks are switched off.
#[derive(Clone, Debug)]
pub struct Plan {
    pub cidr: String,
    /// (availability zone, CIDR), at least one.
    pub subnets: Vec<(String, String)>,
    /// (number of the subnet, private address) of each instance.
    pub nodes: Vec<(usize, Ipv4Addr)>,
    /// Route tables beside the VPC's main one.
    pub tables: usize,
}

impl Default for Plan {
    /// Three nodes in two zones, three tables.
    fn default() -> Self {
        let zone = |letter: char, cidr: &str| (format!("{REGION}{letter}"), cidr.to_owned());
        let node = |subnet: usize, last| (subnet, Ipv4Addr::new(10, 77, subnet as u8, last));
        Self {
            cidr: "10.77.0.0/16".to_owned(),
            subnets: vec![zone('a', "10.77.0.0/24"), zone('b', "10.77.1.0/24")],
            nodes: vec![node(0, 1), node(1, 2), node(0, 3)],
            tables: 3,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    pub id: String,
    pub zone: String,
    pub cidr: String,
}

/// An instance and its first interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub instance: String,
    pub eni: String,
    pub address: Ipv4Addr,
    /// The number of its subnet.
    pub subnet: usize,
}

/// An Elastic IP as the server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eip {
    pub address: Ipv4Addr,
    pub allocation: String,
    pub association: Option<String>,
    pub eni: Option<String>,
}

pub struct World {
    moto: Arc<Moto>,
    pub vpc: String,
    pub cidr: String,
    pub subnets: Vec<Subnet>,
    pub nodes: Vec<Node>,
    /// An instance of somebody else in the same VPC.
    pub stranger: Node,
    /// Route tables of the VPC, without its main one.
    pub tables: Vec<String>,
    /// A table of another VPC.
    pub foreign_table: String,
}

impl World {
    /// Every table also has routes that are none of ours: to the Internet, to a network behind the stranger, and to
    /// an address of the stranger's.
    ///
    /// # Errors
    /// When the server refuses any of it.
    pub fn build(moto: &Arc<Moto>, plan: &Plan) -> Result<Self> {
        let made = moto.ec2("CreateVpc", &[("CidrBlock", &plan.cidr)])?;
        let vpc = made.at("vpc/vpcId")?.to_owned();
        let subnets = plan.subnets.iter().map(|(zone, cidr)| {
            let parameters = [("VpcId", vpc.as_str()), ("CidrBlock", cidr), ("AvailabilityZone", zone)];
            let made = moto.ec2("CreateSubnet", &parameters)?;
            Ok(Subnet { id: made.at("subnet/subnetId")?.to_owned(), zone: zone.clone(), cidr: cidr.clone() })
        });
        let subnets: Vec<Subnet> = subnets.collect::<Result<_>>()?;
        let gateway = moto.ec2("CreateInternetGateway", &[])?;
        let gateway = gateway.at("internetGateway/internetGatewayId")?.to_owned();
        moto.ec2("AttachInternetGateway", &[("VpcId", &vpc), ("InternetGatewayId", &gateway)])?;
        let foreign = moto.ec2("CreateVpc", &[("CidrBlock", "10.99.0.0/16")])?;
        let foreign = foreign.at("vpc/vpcId")?.to_owned();

        let nodes =
            plan.nodes.iter().map(|&(subnet, address)| instance(moto, &subnets[subnet].id, subnet, address));
        let mut world = Self {
            moto: Arc::clone(moto),
            nodes: nodes.collect::<Result<_>>()?,
            stranger: instance(moto, &subnets[0].id, 0, Ipv4Addr::new(10, 77, 0, 250))?,
            tables: (0..plan.tables).map(|_| table(moto, &vpc)).collect::<Result<_>>()?,
            foreign_table: table(moto, &foreign)?,
            cidr: plan.cidr.clone(),
            vpc,
            subnets,
        };
        for node in &world.nodes {
            world.set_source_dest_check(node, false)?;
        }
        let tables = std::mem::take(&mut world.tables);
        for table in tables.iter().chain([&world.foreign_table]) {
            world.create_route(table, "192.168.5.0/24", &world.stranger.eni)?;
            world.create_route(table, "172.16.9.9/32", &world.stranger.eni)?;
            let default = [("DestinationCidrBlock", "0.0.0.0/0"), ("GatewayId", gateway.as_str())];
            moto.ec2("CreateRoute", &[&[("RouteTableId", table.as_str())], &default[..]].concat())?;
        }
        world.tables = tables;
        Ok(world)
    }

    pub fn moto(&self) -> &Arc<Moto> {
        &self.moto
    }

    /// # Errors
    /// When there is one to this destination already.
    pub fn create_route(&self, table: &str, destination: &str, eni: &str) -> Result<()> {
        self.route("CreateRoute", table, destination, eni)
    }

    /// Points a route elsewhere, behind everybody's back.
    ///
    /// # Errors
    /// When there is none to this destination.
    pub fn replace_route(&self, table: &str, destination: &str, eni: &str) -> Result<()> {
        self.route("ReplaceRoute", table, destination, eni)
    }

    fn route(&self, action: &str, table: &str, destination: &str, eni: &str) -> Result<()> {
        let parameters =
            [("RouteTableId", table), ("DestinationCidrBlock", destination), ("NetworkInterfaceId", eni)];
        self.moto.ec2(action, &parameters).map(drop)
    }

    /// # Errors
    /// When there is no such route.
    pub fn delete_route(&self, table: &str, destination: &str) -> Result<()> {
        let parameters = [("RouteTableId", table), ("DestinationCidrBlock", destination)];
        self.moto.ec2("DeleteRoute", &parameters).map(drop)
    }

    /// A route to `ADDRESS/32` in all of the VPC's tables but its main one.
    ///
    /// # Errors
    /// When there is one already.
    pub fn add_vip(&self, address: Ipv4Addr, eni: &str) -> Result<()> {
        let destination = format!("{address}/32");
        self.tables.iter().try_for_each(|table| self.create_route(table, &destination, eni))
    }

    /// All routes of all tables of all VPCs.
    ///
    /// # Errors
    /// When the server does not say.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::of(&self.moto.ec2("DescribeRouteTables", &[])?)
    }

    /// The instance's own check and that of its interface, which are one in EC2 and two in moto.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn set_source_dest_check(&self, node: &Node, check: bool) -> Result<()> {
        let value = ("SourceDestCheck.Value", if check { "true" } else { "false" });
        self.moto.ec2("ModifyInstanceAttribute", &[("InstanceId", &node.instance), value])?;
        self.moto
            .ec2("ModifyNetworkInterfaceAttribute", &[("NetworkInterfaceId", &node.eni), value])
            .map(drop)
    }

    /// As the interface has it.
    ///
    /// # Errors
    /// When the server does not say.
    pub fn source_dest_check(&self, eni: &str) -> Result<bool> {
        Ok(self.interface(eni)?.at("sourceDestCheck")? == "true")
    }

    /// All that the server says of an interface.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn interface(&self, eni: &str) -> Result<Element> {
        let answer = self.moto.ec2("DescribeNetworkInterfaces", &[("NetworkInterfaceId.1", eni)])?;
        answer.items("networkInterfaceSet").next().cloned().context("no such interface")
    }

    /// Attaches a second interface to a node: the first one cannot be detached.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn add_interface(&self, node: &Node, address: Ipv4Addr) -> Result<String> {
        let eni = interface(&self.moto, &self.subnets[node.subnet].id, address)?;
        let to = [("NetworkInterfaceId", eni.as_str()), ("InstanceId", &node.instance), ("DeviceIndex", "1")];
        self.moto.ec2("AttachNetworkInterface", &to)?;
        let parameters = [("NetworkInterfaceId", eni.as_str()), ("SourceDestCheck.Value", "false")];
        self.moto.ec2("ModifyNetworkInterfaceAttribute", &parameters)?;
        Ok(eni)
    }

    /// # Errors
    /// When it is not attached, or is an instance's only one.
    pub fn detach_interface(&self, eni: &str) -> Result<()> {
        let interface = self.interface(eni)?;
        let attachment = interface.at("attachment/attachmentId")?;
        self.moto.ec2("DetachNetworkInterface", &[("AttachmentId", attachment)]).map(drop)
    }

    /// A new Elastic IP, associated with nothing: 203.0.113.1 and so on. By itself moto would take one of 127.0.0.0/8.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn allocate_address(&self) -> Result<Ipv4Addr> {
        let address = Ipv4Addr::new(203, 0, 113, self.eips()?.len() as u8 + 1);
        self.moto.ec2("AllocateAddress", &[("Domain", "vpc"), ("Address", &address.to_string())])?;
        Ok(address)
    }

    /// # Errors
    /// When it is associated with another interface.
    pub fn associate_address(&self, address: Ipv4Addr, eni: &str) -> Result<()> {
        let eip = self.eip(address)?;
        let parameters = [("AllocationId", eip.allocation.as_str()), ("NetworkInterfaceId", eni)];
        self.moto.ec2("AssociateAddress", &parameters).map(drop)
    }

    /// # Errors
    /// When there is no such Elastic IP.
    pub fn eip(&self, address: Ipv4Addr) -> Result<Eip> {
        self.eips()?.remove(&address).with_context(|| format!("no Elastic IP {address}"))
    }

    /// All Elastic IPs of the account.
    ///
    /// # Errors
    /// When the server does not say.
    pub fn eips(&self) -> Result<BTreeMap<Ipv4Addr, Eip>> {
        let answer = self.moto.ec2("DescribeAddresses", &[])?;
        let eip = |item: &Element| {
            let optional = |name: &str| item.at(name).ok().filter(|t| !t.is_empty()).map(str::to_owned);
            let address: Ipv4Addr = item.at("publicIp")?.parse()?;
            let allocation = item.at("allocationId")?.to_owned();
            let (association, eni) = (optional("associationId"), optional("networkInterfaceId"));
            Ok((address, Eip { address, allocation, association, eni }))
        };
        answer.items("addressesSet").map(eip).collect()
    }

    /// What the metadata service tells this node, whose first interface has this MAC.
    pub fn identity(&self, node: &Node, mac: &str) -> Identity {
        let subnet = &self.subnets[node.subnet];
        let interface = Interface {
            eni: node.eni.clone(),
            vpc: self.vpc.clone(),
            vpc_cidrs: vec![self.cidr.clone()],
            addresses: vec![node.address],
            subnet: subnet.id.clone(),
            device: 0,
        };
        Identity {
            instance: node.instance.clone(),
            region: REGION.to_owned(),
            zone: subnet.zone.clone(),
            interfaces: BTreeMap::from([(mac.to_ascii_lowercase(), interface)]),
            role: None,
        }
    }
}

fn interface(moto: &Moto, subnet: &str, address: Ipv4Addr) -> Result<String> {
    let parameters = [("SubnetId", subnet), ("PrivateIpAddress", &address.to_string())];
    let made = moto.ec2("CreateNetworkInterface", &parameters)?;
    Ok(made.at("networkInterface/networkInterfaceId")?.to_owned())
}

fn instance(moto: &Moto, subnet_id: &str, subnet: usize, address: Ipv4Addr) -> Result<Node> {
    let eni = interface(moto, subnet_id, address)?;
    let parameters = [
        ("ImageId", "ami-12345678"),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("NetworkInterface.1.NetworkInterfaceId", eni.as_str()),
        ("NetworkInterface.1.DeviceIndex", "0"),
    ];
    let made = moto.ec2("RunInstances", &parameters)?;
    let instance = made.items("instancesSet").next().context("no instance")?.at("instanceId")?.to_owned();
    Ok(Node { instance, eni, address, subnet })
}

fn table(moto: &Moto, vpc: &str) -> Result<String> {
    let made = moto.ec2("CreateRouteTable", &[("VpcId", vpc)])?;
    Ok(made.at("routeTable/routeTableId")?.to_owned())
}
