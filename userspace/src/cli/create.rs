//! `vipctl create`.

use clap::{Args, Subcommand, ValueEnum};

use super::Session;
use crate::{
    api::{ApiError, CreateIp, Request},
    model::{self, Tag},
};

/// Create a protected resource and bring it in service here
#[derive(Debug, Args)]
pub struct Create {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    Ip(Ip),
}

/// A virtual IP address, IPv4 or IPv6
///
/// It is refused (exit code 4) when the address belongs to another resource or is in use on the network. Without
/// --no-wait the command ends when the address is in service.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl create ip 192.0.2.10 --extend-to all
  vipctl create ip 192.0.2.10/24 --dev eth0 --tag web --extend-to node-b --extend-to node-c
  vipctl create ip www.example.org --netmask 255.255.255.0 --switchback automatic
  vipctl create ip 2001:db8::10/64 --extend-to all")]
struct Ip {
    /// An address or a host name (/etc/hosts, DNS); LEN is a prefix length [default LEN: that of the subnet on the interface]
    #[arg(value_name = "ADDRESS[/LEN]")]
    address: String,
    /// Prefix length or dotted netmask, instead of /LEN
    #[arg(long, value_name = "M")]
    netmask: Option<String>,
    /// Interface; of several the first carries the address [default: the first of 'vipctl interfaces ADDRESS']
    #[arg(long = "dev", value_name = "IF")]
    devices: Vec<String>,
    /// Name of the resource [default: ip-ADDRESS]
    #[arg(long, value_name = "T")]
    tag: Option<Tag>,
    /// Priority of this node, 1 (best) to 999; the nodes of --extend-to get the next multiples of ten [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=999))]
    priority: Option<u16>,
    /// Whether it returns to a better node by itself
    #[arg(long, default_value = "intelligent")]
    switchback: Switchback,
    /// Node that may have it too; repeat it in falling preference, or say 'all'
    #[arg(long, value_name = "NODE")]
    extend_to: Vec<String>,
    /// Return as soon as it is created, not when it is in service
    #[arg(long)]
    no_wait: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Switchback {
    /// Stays where it is until an operator moves it
    Intelligent,
    /// Returns to a better node as soon as that one is fit
    Automatic,
}

impl Create {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        let Kind::Ip(ip) = self.kind;
        session.order(&Request::CreateIp(CreateIp {
            address: ip.address,
            netmask: ip.netmask,
            devices: ip.devices,
            tag: ip.tag,
            priority: ip.priority,
            switchback: match ip.switchback {
                Switchback::Intelligent => model::Switchback::Intelligent,
                Switchback::Automatic => model::Switchback::Automatic,
            },
            extend_to: ip.extend_to,
            wait: !ip.no_wait,
        }))
    }
}
