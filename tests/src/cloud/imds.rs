//! The metadata service of an instance (IMDSv2 alone), on 169.254.169.254 inside its host's namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use anyhow::Result;

use super::{
    http::{Handler, Reply, Request, Response, Server},
    sign::{Credentials, rfc3339},
};
use crate::netns::NetNs;

pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const LONGEST_TTL: u32 = 21_600;

/// What an instance is told of itself.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    pub instance: String,
    pub region: String,
    pub zone: String,
    /// By MAC, in lower case.
    pub interfaces: BTreeMap<String, Interface>,
    /// The role's name and what it may call with.
    pub role: Option<(String, Credentials)>,
}

#[derive(Clone, Debug)]
pub struct Interface {
    pub eni: String,
    pub vpc: String,
    pub vpc_cidrs: Vec<String>,
    pub addresses: Vec<Ipv4Addr>,
    pub subnet: String,
    pub device: u32,
}

#[derive(Default)]
struct State {
    identity: Identity,
    silent: bool,
    tokens: BTreeSet<String>,
    /// Paths that were asked for, in order.
    asked: Vec<String>,
}

/// A running metadata service; it ends when this is dropped.
pub struct Imds {
    state: Arc<Mutex<State>>,
    _server: Server,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Imds {
    /// Gives the namespace the address and listens there.
    ///
    /// # Errors
    /// When the namespace has the address already.
    pub fn start(ns: &NetNs, identity: Identity) -> Result<Self> {
        ns.ip(&format!("addr add {ADDRESS}/32 dev lo scope host"))?;
        let state = Arc::new(Mutex::new(State { identity, ..State::default() }));
        let service = Service(Arc::clone(&state));
        Ok(Self { state, _server: Server::start(ns, (ADDRESS, 80).into(), move || service)? })
    }

    /// Changes what is told from now on.
    pub fn change(&self, change: impl FnOnce(&mut Identity)) {
        change(&mut lock(&self.state).identity);
    }

    /// From now on it takes requests and does not answer, or does again. A request that was taken in silence is never
    /// answered.
    pub fn set_silent(&self, silent: bool) {
        lock(&self.state).silent = silent;
    }

    /// All tokens that were given become invalid, as when they expire.
    pub fn expire_tokens(&self) {
        lock(&self.state).tokens.clear();
    }

    /// Paths that were asked for so far.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.state).asked.clone()
    }
}

struct Service(Arc<Mutex<State>>);

impl Handler for Service {
    async fn answer(&self, request: Request, _: IpAddr) -> Reply {
        let answer = {
            let mut state = lock(&self.0);
            state.asked.push(request.target.clone());
            (!state.silent).then(|| state.answer(&request))
        };
        match answer {
            Some(answer) => Reply::Answer(answer),
            None => std::future::pending().await,
        }
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Response {
        let refused = |status| Response::new(status, "text/plain", "");
        let path = request.target.split('?').next().unwrap_or_default();
        if request.method == "PUT" {
            if path != "/latest/api/token" {
                return refused(405);
            }
            let ttl =
                request.header("x-aws-ec2-metadata-token-ttl-seconds").and_then(|t| t.parse::<u32>().ok());
            return match ttl {
                Some(ttl) if (1..=LONGEST_TTL).contains(&ttl) => {
                    let mut answer = Response::new(200, "text/plain", self.new_token());
                    let header = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds".to_owned();
                    answer.headers.push((header, ttl.to_string()));
                    answer
                }
                _ => refused(400),
            };
        }
        if request.method != "GET" {
            return refused(405);
        }
        // Version 1 has no tokens, and is not spoken here.
        let token = request.header("x-aws-ec2-metadata-token");
        if !token.is_some_and(|token| self.tokens.contains(token)) {
            return refused(401);
        }
        match self.identity.look_up(path) {
            Some(text) => Response::new(200, "text/plain", text),
            None => refused(404),
        }
    }

    fn new_token(&mut self) -> String {
        // Nobody has to guess it; it must only never be given twice.
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let token = format!("AQAEA{:051}==", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.tokens.insert(token.clone());
        token
    }
}

impl Identity {
    fn look_up(&self, path: &str) -> Option<String> {
        let path = path.strip_prefix("/latest/")?.trim_end_matches('/');
        if let Some(rest) = path.strip_prefix("meta-data/network/interfaces/macs") {
            return self.interface(rest.trim_start_matches('/'));
        }
        if let Some(rest) = path.strip_prefix("meta-data/iam/security-credentials") {
            let (role, credentials) = self.role.as_ref()?;
            return match rest.trim_start_matches('/') {
                "" => Some(role.clone()),
                name if name == role => Some(given(credentials)),
                _ => None,
            };
        }
        match path {
            "meta-data/instance-id" => Some(self.instance.clone()),
            "meta-data/placement/region" => Some(self.region.clone()),
            "meta-data/placement/availability-zone" => Some(self.zone.clone()),
            "dynamic/instance-identity/document" => Some(
                serde_json::json!({
                    "accountId": "123456789012",
                    "instanceId": self.instance,
                    "region": self.region,
                    "availabilityZone": self.zone,
                    "version": "2017-09-30",
                })
                .to_string(),
            ),
            _ => None,
        }
    }

    fn interface(&self, path: &str) -> Option<String> {
        if path.is_empty() {
            let macs = self.interfaces.keys().map(|mac| format!("{mac}/"));
            return Some(macs.collect::<Vec<_>>().join("\n"));
        }
        let (mac, field) = path.split_once('/').unwrap_or((path, ""));
        let interface = self.interfaces.get(mac)?;
        let lines = |lines: Vec<String>| lines.join("\n");
        Some(match field {
            "" => "device-number\ninterface-id\nlocal-ipv4s\nmac\nsubnet-id\nvpc-id\nvpc-ipv4-cidr-block\n\
                   vpc-ipv4-cidr-blocks"
                .to_owned(),
            "interface-id" => interface.eni.clone(),
            "mac" => mac.to_owned(),
            "vpc-id" => interface.vpc.clone(),
            "vpc-ipv4-cidr-block" => interface.vpc_cidrs.first()?.clone(),
            "vpc-ipv4-cidr-blocks" => lines(interface.vpc_cidrs.clone()),
            "local-ipv4s" => lines(interface.addresses.iter().map(ToString::to_string).collect()),
            "subnet-id" => interface.subnet.clone(),
            "device-number" => interface.device.to_string(),
            _ => return None,
        })
    }
}

fn given(credentials: &Credentials) -> String {
    let now = SystemTime::now();
    serde_json::json!({
        "Code": "Success",
        "LastUpdated": rfc3339(now),
        "Type": "AWS-HMAC",
        "AccessKeyId": credentials.access_key,
        "SecretAccessKey": credentials.secret,
        "Token": credentials.token.as_deref().unwrap_or_default(),
        "Expiration": rfc3339(now + Duration::from_secs(6 * 3_600)),
    })
    .to_string()
}
