//! moto's server: an EC2 API that keeps state, with real error codes, in a process of its own.
//!
//! What it does otherwise than EC2 is evened out by the proxy where that is possible ([`super::proxy`]).

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::{prctl::set_pdeathsig, signal::Signal};

use super::{
    form,
    http::{Request, Response},
    sign::{Credentials, sign},
    tools,
    xml::Element,
};
use crate::{
    lab::{PATIENCE, wait_until},
    netns::NetNs,
};

/// Where all worlds are.
pub const REGION: &str = "eu-central-1";
const PORT: u16 = 5000;
/// The version of its API.
const EC2: &str = "2016-11-15";
const ADMINISTRATOR: &str = r#"{"Version": "2012-10-17", "Statement":
    [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}"#;

/// A server that has nothing but what it is told; it is killed when this is dropped.
pub struct Moto {
    ns: Arc<NetNs>,
    process: Mutex<Child>,
    log: PathBuf,
    /// Signs all our own calls.
    administrator: Option<Credentials>,
    keys: Keyring,
}

/// Whether policies are enforced, and the secrets of those who may call.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    keys: Arc<Mutex<BTreeMap<String, Credentials>>>,
    enforced: Arc<AtomicBool>,
}

impl Keyring {
    fn add(&self, credentials: &Credentials) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.insert(credentials.access_key.clone(), credentials.clone());
    }

    pub fn find(&self, access_key: &str) -> Option<Credentials> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(access_key).cloned()
    }

    pub fn is_enforced(&self) -> bool {
        self.enforced.load(Ordering::Acquire)
    }
}

/// An answer other than success.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub status: u16,
    pub code: String,
    pub message: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.message)
    }
}

impl std::error::Error for Refusal {}

impl Moto {
    /// Starts it on the namespace's loopback and waits until it answers. Its log goes into `dir`.
    ///
    /// # Errors
    /// When it is not installed or does not come up.
    pub fn start(ns: Arc<NetNs>, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let log = dir.join("moto.log");
        let file = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let mut command = ns.command(tools::program("moto_server")?);
        command.args(["-H", "127.0.0.1", "-p", &PORT.to_string()]);
        for variable in ["PYTHONPATH", "PYTHONHOME", "MOTO_PORT", "INITIAL_NO_AUTH_ACTION_COUNT"] {
            command.env_remove(variable);
        }
        command.process_group(0).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let die_with_us = || Ok(set_pdeathsig(Signal::SIGKILL)?);
        // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
        unsafe { command.pre_exec(die_with_us) };
        let process = Mutex::new(command.spawn().context("cannot run moto_server")?);
        let mut moto = Self { ns, process, log, administrator: None, keys: Keyring::default() };
        wait_until(PATIENCE, "moto answers", || {
            if let Some(status) = moto.process.lock().unwrap_or_else(PoisonError::into_inner).try_wait()? {
                bail!("it ended by itself ({status}): {}", moto.log());
            }
            moto.connect().map(drop)
        })?;
        moto.administrator = Some(moto.user("administrator", ADMINISTRATOR)?);
        Ok(moto)
    }

    /// Of its namespace's loopback.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, PORT).into()
    }

    pub fn keys(&self) -> Keyring {
        self.keys.clone()
    }

    /// What it logged so far: a line for each call, and its own failures.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|l| String::from_utf8_lossy(&l).into_owned()).unwrap_or_default()
    }

    /// Calls an action of EC2, past the proxy, as somebody who may do anything.
    ///
    /// # Errors
    /// A [`Refusal`] where the server answers with one.
    pub fn ec2(&self, action: &str, parameters: &[(&str, &str)]) -> Result<Element> {
        self.call("ec2", EC2, action, parameters)
    }

    /// As [`Moto::ec2`], of IAM.
    ///
    /// # Errors
    /// As there.
    pub fn iam(&self, action: &str, parameters: &[(&str, &str)]) -> Result<Element> {
        self.call("iam", "2010-05-08", action, parameters)
    }

    fn call(
        &self,
        service: &str,
        version: &str,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Element> {
        let mut all = vec![("Action", action), ("Version", version)];
        all.extend(parameters);
        let host = self.address().to_string();
        let request = query(&host, service, &form::encode(&all), self.administrator.as_ref());
        let answer = self.send(&request).with_context(|| format!("{service} {action}"))?;
        read(&answer).with_context(|| format!("{service} {action} {parameters:?}"))
    }

    fn send(&self, request: &Request) -> Result<Response> {
        request.exchange(self.connect()?, PATIENCE).with_context(|| self.tail())
    }

    fn connect(&self) -> Result<TcpStream> {
        let address = self.address();
        self.ns
            .enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(5)))
            .context("cannot reach moto")
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// A user with this policy and an access key.
    ///
    /// # Errors
    /// When IAM refuses it.
    pub fn user(&self, name: &str, policy: &str) -> Result<Credentials> {
        self.iam("CreateUser", &[("UserName", name)])?;
        self.set_user_policy(name, policy)?;
        let answer = self.iam("CreateAccessKey", &[("UserName", name)])?;
        let key = answer.child("CreateAccessKeyResult").and_then(|r| r.child("AccessKey"));
        let key = key.context("no access key")?;
        let (access_key, secret) = (key.at("AccessKeyId")?.to_owned(), key.at("SecretAccessKey")?.to_owned());
        let credentials = Credentials { access_key, secret, token: None };
        self.keys.add(&credentials);
        Ok(credentials)
    }

    /// Replaces the policy of a user.
    ///
    /// # Errors
    /// When IAM refuses it.
    pub fn set_user_policy(&self, name: &str, policy: &str) -> Result<()> {
        let parameters = [("UserName", name), ("PolicyName", "all"), ("PolicyDocument", policy)];
        self.iam("PutUserPolicy", &parameters).map(drop)
    }

    /// A role with this policy, assumed: what the metadata service of an instance with that role gives.
    ///
    /// # Errors
    /// When IAM or STS refuse it.
    pub fn role(&self, name: &str, policy: &str) -> Result<Credentials> {
        let trust = r#"{"Version": "2012-10-17", "Statement":
            [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}"#;
        let role = self.iam("CreateRole", &[("RoleName", name), ("AssumeRolePolicyDocument", trust)])?;
        let arn = role.at("CreateRoleResult/Role/Arn")?.to_owned();
        self.set_role_policy(name, policy)?;
        let parameters = [("RoleArn", arn.as_str()), ("RoleSessionName", "instance")];
        let answer = self.call("sts", "2011-06-15", "AssumeRole", &parameters)?;
        let given =
            |field: &str| anyhow::Ok(answer.at(&format!("AssumeRoleResult/Credentials/{field}"))?.to_owned());
        let credentials = Credentials {
            access_key: given("AccessKeyId")?,
            secret: given("SecretAccessKey")?,
            token: Some(given("SessionToken")?),
        };
        self.keys.add(&credentials);
        Ok(credentials)
    }

    /// Replaces the policy of a role.
    ///
    /// # Errors
    /// When IAM refuses it.
    pub fn set_role_policy(&self, name: &str, policy: &str) -> Result<()> {
        let parameters = [("RoleName", name), ("PolicyName", "all"), ("PolicyDocument", policy)];
        self.iam("PutRolePolicy", &parameters).map(drop)
    }

    /// From now on signatures and policies are checked, or not any more.
    ///
    /// # Errors
    /// When the server does not do it.
    pub fn enforce_policies(&self, enforce: bool) -> Result<()> {
        // So many calls are still let through.
        let calls = if enforce { "0" } else { "inf" };
        let request = Request::new("POST", "/moto-api/reset-auth", calls);
        let answer = self.send(&request.with("Host", &self.address().to_string()))?;
        ensure!(answer.status == 200, "moto cannot switch: {} {}", answer.status, answer.text());
        self.keys.enforced.store(enforce, Ordering::Release);
        Ok(())
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have ended by itself.
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// A call of EC2's by nobody in particular.
pub fn call(host: &str, action: &str, parameters: &[(&str, &str)]) -> Request {
    query(host, "ec2", &ec2_form(action, parameters), None)
}

/// As [`call`], by somebody.
pub fn signed_call(host: &str, action: &str, parameters: &[(&str, &str)], by: &Credentials) -> Request {
    query(host, "ec2", &ec2_form(action, parameters), Some(by))
}

fn ec2_form(action: &str, parameters: &[(&str, &str)]) -> String {
    form::encode(&[&[("Action", action), ("Version", EC2)], parameters].concat())
}

/// A call as the Query protocol has it. Unsigned, it still names the service and region for moto.
pub(super) fn query(host: &str, service: &str, form: &str, credentials: Option<&Credentials>) -> Request {
    let content = "application/x-www-form-urlencoded; charset=utf-8";
    let request = Request::new("POST", "/", form).with("Host", host).with("Content-Type", content);
    match credentials {
        Some(credentials) => sign(request, service, REGION, credentials),
        None => request.with(
            "Authorization",
            &format!(
                "AWS4-HMAC-SHA256 Credential=nobody/20260101/{REGION}/{service}/aws4_request, \
                 SignedHeaders=host, Signature=none"
            ),
        ),
    }
}

/// # Errors
/// A [`Refusal`], or what is wrong with an answer that is neither.
pub fn read(answer: &Response) -> Result<Element> {
    let text = answer.text();
    let root = Element::parse(&text).with_context(|| format!("answer {}: {text}", answer.status))?;
    if answer.status == 200 {
        return Ok(root);
    }
    // EC2 and the older services have their errors at different places.
    let error = root.child("Errors").unwrap_or(&root).child("Error");
    let error = error.with_context(|| format!("answer {}: {text}", answer.status))?;
    let field = |name: &str| error.at(name).unwrap_or_default().to_owned();
    bail!(Refusal { status: answer.status, code: field("Code"), message: field("Message") })
}
