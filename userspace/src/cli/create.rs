//! `vipctl create`.

use std::net::Ipv4Addr;

use clap::{Args, Subcommand, ValueEnum};

use super::{Session, given};
use crate::{
    api::{ApiError, CreateEc2Eip, CreateEc2Route, CreateIp, Request},
    model::{self, Range, Tag},
};

/// Create a protected resource and bring it in service here
#[derive(Debug, Args)]
pub struct Create {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    Ip(Box<Ip>),
    Ec2Route(Ec2Route),
    Ec2Eip(Ec2Eip),
}

/// Routes of a VPC of Amazon EC2 to the addresses of an IP resource (backend cluster)
///
/// Every route with one of the addresses as its destination (ADDRESS/32), in every route table of the VPC, leads to the
/// node that has the IP resource; no other route is touched, none is made, none is deleted. The IPv4 resource must be in
/// service; the routes get its nodes and priorities, and move with it. Every node checks first that it could do that,
/// and all that is missing is named at once, with its remedy (exit code 4). See docs/ec2.md.
///
/// A VPC has no broadcast, across zones least of all: give the subnet of the addresses a ping list on each node ('vipctl
/// ping-list add'), or write NOBCASTPING=1 in its tunables.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl create ec2-route --ip ip-172.16.0.9
  vipctl create ec2-route --ip db --region eu-central-1 --tag db-route")]
struct Ec2Route {
    /// The IP resource
    #[arg(long, value_name = "TAG")]
    ip: Tag,
    /// Region of AWS [default: the one that the nodes are in]
    #[arg(long, value_name = "R")]
    region: Option<String>,
    /// Name of the resource [default: ec2-TAG]
    #[arg(long, value_name = "T")]
    tag: Option<Tag>,
    #[command(flatten)]
    asking: Asking,
}

/// An Elastic IP of Amazon EC2 that moves from node to node (frontend cluster)
///
/// It is associated with the network interface of the node that has the resource; other Elastic IPs of that interface
/// are taken off it first. Every node checks first that it could do that, and all that is missing is named at once, with
/// its remedy (exit code 4). See docs/ec2.md.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl create ec2-eip --eip 203.0.113.9 --dev eth0 --extend-to all
  vipctl create ec2-eip --eip 203.0.113.9 --dev eth0 --extend-to node-b --switchback automatic --tag www")]
struct Ec2Eip {
    /// The Elastic IP
    #[arg(long, value_name = "ADDRESS")]
    eip: Ipv4Addr,
    /// Interface of this node, elsewhere the one of that name; of several the first has it and the others stand by
    #[arg(long = "dev", value_name = "IF", required = true)]
    devices: Vec<String>,
    /// Region of AWS [default: the one that the nodes are in]
    #[arg(long, value_name = "R")]
    region: Option<String>,
    /// Name of the resource [default: ec2-ADDRESS]
    #[arg(long, value_name = "T")]
    tag: Option<Tag>,
    #[command(flatten)]
    nodes: Nodes,
    #[command(flatten)]
    asking: Asking,
}

/// Virtual IP addresses, IPv4 or IPv6: one, or many as one
///
/// Several addresses make one resource: a set that is granted, opened and moved as one, up to a million of them. It
/// is refused (exit code 4) when an address belongs to another resource or is in use on the network; then nothing is
/// changed. Every node that it is extended to checks it on itself first. Without --no-wait the command ends when the addresses are in service.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl create ip 192.0.2.10 --extend-to all
  vipctl create ip 192.0.2.10/24 --dev eth0 --tag web --extend-to node-b --extend-to node-c
  vipctl create ip www.example.org --netmask 255.255.255.0 --switchback automatic
  vipctl create ip 2001:db8::10/64 --extend-to all
  vipctl create ip 192.0.2.10-192.0.2.99 --tag shop --extend-to all
  vipctl create ip 10.9.0.0/16 --each --except 10.9.0.1,10.9.7.0-10.9.7.9 --extend-to all
  vipctl create ip @addresses.txt --separate --extend-to all
  vipctl create ip 192.0.2.100 --group shop")]
struct Ip {
    /// Address, host name (/etc/hosts, DNS), range FIRST-LAST, prefix with --each, or @FILE with one of these a line
    /// and # for comments (@- reads stdin); LEN is a prefix length [default LEN: that of the subnet on the interface]
    #[arg(value_name = "ADDRESS[/LEN]", required = true)]
    addresses: Vec<String>,
    /// Every host of the prefixes, without network, broadcast and (IPv6) subnet-router anycast address
    #[arg(long)]
    each: bool,
    /// Leave these out
    #[arg(long, value_name = "ADDR|RANGE,...", value_delimiter = ',')]
    except: Vec<Range>,
    /// Add the addresses to the set with this tag, in service too; it is created if it is not there
    #[arg(long, value_name = "G")]
    group: Option<Tag>,
    /// One resource for each address instead of a set
    #[arg(long)]
    separate: bool,
    /// How the kernel takes packets [default: assign up to 64 addresses and while few are on a node, else anyip for
    /// sets and route for single ones]
    #[arg(long)]
    accept: Option<Accept>,
    /// Prefix length or dotted netmask, instead of /LEN
    #[arg(long, value_name = "M")]
    netmask: Option<String>,
    /// Interface; of several the first carries the address and the others stand by, in this order [default: the first of 'vipctl interfaces ADDRESS']
    #[arg(long = "dev", value_name = "IF")]
    devices: Vec<String>,
    /// Name of the resource [default: ip-ADDRESS, of a set the first]
    #[arg(long, value_name = "T")]
    tag: Option<Tag>,
    #[command(flatten)]
    nodes: Nodes,
    /// Go on although a node that has to check it is down or does not answer
    #[arg(long)]
    force: bool,
    /// Return as soon as it is created, not when it is in service
    #[arg(long)]
    no_wait: bool,
}

// Plain comments: those of flattened arguments would take the place of what the commands say of themselves.
// Which nodes may have the resource.
#[derive(Debug, Args)]
struct Nodes {
    /// Priority of this node, 1 (best) to 999; the nodes of --extend-to get the next multiples of ten [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=999))]
    priority: Option<u16>,
    /// Whether it returns to a better node by itself
    #[arg(long, default_value = "intelligent")]
    switchback: Switchback,
    /// Node that may have it too; repeat it in falling preference, or say 'all'
    #[arg(long, value_name = "NODE")]
    extend_to: Vec<String>,
}

// What EC2 and the nodes are asked before, and how long after the resource is waited for.
#[derive(Debug, Args)]
struct Asking {
    /// Go on although a node, or EC2, does not answer and so cannot be asked
    #[arg(long)]
    force: bool,
    /// Return as soon as it is created, not when it is in service
    #[arg(long)]
    no_wait: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Accept {
    /// A kernel address each: what other tools see and expect; quadratic in their number
    Assign,
    /// A local route each
    Route,
    /// A local route for each prefix that the set is made of
    Anyip,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Switchback {
    /// Stays where it is until an operator moves it
    Intelligent,
    /// Returns to a better node as soon as that one is fit
    Automatic,
}

impl From<Switchback> for model::Switchback {
    fn from(s: Switchback) -> Self {
        match s {
            Switchback::Intelligent => Self::Intelligent,
            Switchback::Automatic => Self::Automatic,
        }
    }
}

impl Create {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        let ip = match self.kind {
            Kind::Ip(ip) => ip,
            Kind::Ec2Route(Ec2Route { ip, region, tag, asking: Asking { force, no_wait } }) => {
                let wanted = CreateEc2Route { ip, region, tag, force, wait: !no_wait };
                return session.order(&Request::CreateEc2Route(wanted));
            }
            Kind::Ec2Eip(eip) => {
                return session.order(&Request::CreateEc2Eip(CreateEc2Eip {
                    address: eip.eip,
                    devices: eip.devices,
                    region: eip.region,
                    tag: eip.tag,
                    priority: eip.nodes.priority,
                    switchback: eip.nodes.switchback.into(),
                    extend_to: eip.nodes.extend_to,
                    force: eip.asking.force,
                    wait: !eip.asking.no_wait,
                }));
            }
        };
        session.order(&Request::CreateIp(CreateIp {
            addresses: given::read(&ip.addresses)?,
            netmask: ip.netmask,
            devices: ip.devices,
            tag: ip.tag,
            each: ip.each,
            except: ip.except,
            group: ip.group,
            separate: ip.separate,
            accept: ip.accept.map(|accept| match accept {
                Accept::Assign => model::Accept::Assign,
                Accept::Route => model::Accept::Route,
                Accept::Anyip => model::Accept::Anyip,
            }),
            priority: ip.nodes.priority,
            switchback: ip.nodes.switchback.into(),
            extend_to: ip.nodes.extend_to,
            force: ip.force,
            wait: !ip.no_wait,
        }))
    }
}
