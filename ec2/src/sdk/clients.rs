//! One client per region, all with the same connections and credentials.

use std::{
    collections::BTreeMap,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use aws_config::{
    BehaviorVersion, Region, SdkConfig, default_provider::credentials::DefaultCredentialsChain,
    environment::EnvironmentVariableRegionProvider, imds::credentials::ImdsCredentialsProvider,
    meta::region::RegionProviderChain, profile::ProfileFileRegionProvider, provider_config::ProviderConfig,
};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ec2::{
    Client,
    config::{
        self, SharedHttpClient, StalledStreamProtectionConfig,
        retry::{RetryPartition, TokenBucket},
    },
};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use tokio::sync::OnceCell;

use super::{Parts, lanes::CONNECTIONS, metadata::Metadata};
use crate::{Call, CallError, Options};

/// Longer than the interval of the checks, so that these find their connection open; shorter than what EC2 and the
/// gateways on the way keep.
const IDLE: Duration = Duration::from_secs(60);

/// Connections without a proxy: the metadata service must never be asked through one. What certificates are trusted
/// is read with the first client.
pub fn http() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(CONNECTIONS)
        .tls_provider(tls::Provider::Rustls(CryptoMode::Ring))
        .build_https()
}

pub struct Clients {
    options: Options,
    parts: Parts,
    pub metadata: Metadata,
    /// What holds for all regions; read with the first call.
    common: OnceCell<SdkConfig>,
    home: OnceLock<String>,
    by_region: Mutex<BTreeMap<String, Client>>,
}

impl Clients {
    pub fn new(options: Options, parts: Parts) -> Self {
        let metadata = Metadata::new(options.metadata_endpoint.clone(), provider_config(&parts));
        Self {
            options,
            parts,
            metadata,
            common: OnceCell::new(),
            home: OnceLock::new(),
            by_region: Mutex::default(),
        }
    }

    /// The client for the region that the call names, else for that of the environment or the profile, else for the
    /// one in which this host is.
    pub async fn of(&self, call: &Call) -> Result<Client, CallError> {
        let region = match &call.region {
            Some(region) => region.clone(),
            None => self.home(call).await?,
        };
        if let Some(client) = self.by_region.lock().unwrap_or_else(PoisonError::into_inner).get(&region) {
            return Ok(client.clone());
        }
        let common = self.common.get_or_try_init(|| self.load(Region::new(region.clone()))).await?;
        let mut config = config::Builder::from(common)
            .region(Region::new(region.clone()))
            // Hundreds of routes that are throttled at once must each have their retries. The SDK's bucket of tokens,
            // made for clients without any other bound, has enough for a hundred and lets the rest fail. Here the
            // bounds are the lanes, the attempts of each call, and the callers' pauses between calls.
            .retry_partition(RetryPartition::custom("vipd").token_bucket(TokenBucket::unlimited()).build())
            // Answers are small, and the time-out of an attempt bounds them.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = &self.options.endpoint {
            config = config.endpoint_url(url(endpoint)?);
        }
        let client = Client::from_conf(config.build());
        let mut by_region = self.by_region.lock().unwrap_or_else(PoisonError::into_inner);
        // Of two that came at the same time, one is dropped: that costs nothing, the connections are shared.
        Ok(by_region.entry(region).or_insert(client).clone())
    }

    async fn home(&self, call: &Call) -> Result<String, CallError> {
        if let Some(home) = self.home.get() {
            return Ok(home.clone());
        }
        let profile = ProfileFileRegionProvider::builder().configure(&provider_config(&self.parts));
        let profile = match &self.options.profile {
            Some(name) => profile.profile_name(name),
            None => profile,
        };
        let configured = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(profile.build())
            .region()
            .await;
        let home = match configured {
            Some(region) => region.as_ref().to_owned(),
            None => self.metadata.identity(call).await?.region,
        };
        Ok(self.home.get_or_init(|| home).clone())
    }

    /// Reads the environment and `~/.aws`; asks nobody. `region` is where roles are assumed, if any are.
    async fn load(&self, region: Region) -> Result<SdkConfig, CallError> {
        let credentials = match &self.parts.credentials {
            Some(credentials) => credentials.clone(),
            None => self.credentials(region.clone()).await?,
        };
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(region)
            .http_client(self.parts.http.clone())
            .credentials_provider(credentials);
        if let Some(sleep) = &self.parts.sleep {
            loader = loader.sleep_impl(sleep.clone());
        }
        if let Some(profile) = &self.options.profile {
            loader = loader.profile_name(profile);
        }
        Ok(loader.load().await)
    }

    pub fn of_instance(&self) -> Result<ImdsCredentialsProvider, CallError> {
        let imds = self.metadata.for_credentials()?;
        Ok(ImdsCredentialsProvider::builder()
            .configure(&provider_config(&self.parts))
            .imds_client(imds)
            .build())
    }

    /// The SDK's default chain, but for the endpoint of the metadata service.
    async fn credentials(&self, region: Region) -> Result<SharedCredentialsProvider, CallError> {
        let config = provider_config(&self.parts);
        let mut chain = DefaultCredentialsChain::builder()
            .configure(config)
            .region(region)
            .imds_client(self.metadata.for_credentials()?)
            // Of a profile that assumes a role.
            .with_custom_credential_source("Ec2InstanceMetadata", self.of_instance()?);
        if let Some(profile) = &self.options.profile {
            chain = chain.profile_name(profile);
        }
        Ok(SharedCredentialsProvider::new(chain.build().await))
    }
}

/// The SDK would call it a connection that failed, which passes.
fn url(endpoint: &str) -> Result<&str, CallError> {
    let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    let is_url = host.is_some_and(|host| !host.is_empty() && endpoint.chars().all(|c| c.is_ascii_graphic()));
    if is_url { Ok(endpoint) } else { Err(not_a_url("the EC2 API", endpoint)) }
}

pub fn not_a_url(what: &str, endpoint: &str) -> CallError {
    CallError::Refused {
        what: format!("{what} at '{endpoint}'"),
        code: "not a URL".to_owned(),
        message: "say http://... or https://... in node.toml".to_owned(),
    }
}

fn provider_config(parts: &Parts) -> ProviderConfig {
    let config = ProviderConfig::without_region()
        .with_behavior_version(Some(BehaviorVersion::latest()))
        .with_http_client(parts.http.clone());
    match &parts.sleep {
        Some(sleep) => config.with_sleep_impl(sleep.clone()),
        None => config,
    }
}
