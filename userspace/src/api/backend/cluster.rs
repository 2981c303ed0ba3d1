//! `cluster init`, `join`, `token`: done by the daemon.

use std::net::SocketAddr;

use async_trait::async_trait;

use super::{Context, Out, Result, progress};
use crate::api::{Answer, ApiError};

/// What only the daemon can do: it has no store before there is a cluster.
#[async_trait]
pub trait ClusterControl: Send + Sync {
    /// Founds a cluster of this node alone; answers what to tell the operator.
    async fn init(&self, name: &str) -> Result<String>;

    /// Joins the cluster of which the node at `address` is a member.
    async fn join(&self, address: SocketAddr, token: &str) -> Result<String>;

    /// Has the cluster reach this node where its configuration now says; answers what to tell the operator.
    async fn readdress(&self) -> Result<String>;

    /// Ends this node's membership without telling anybody.
    async fn forget(&self) -> Result<()>;

    /// What another node needs to join.
    fn token(&self) -> Result<String>;

    /// Replaces the secret that the nodes share; answers what to tell the operator.
    async fn rotate_key(&self) -> Result<String>;
}

impl Context {
    pub(super) async fn cluster_init(&self, name: &str) -> Result<Answer> {
        self.refuse_second()?;
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
            return Err(ApiError::usage(format!(
                "'{name}' is not a valid cluster name: use 1 to 64 of letters, digits, '.', '_' and '-'"
            )));
        }
        if self.config.witness {
            return Err(ApiError::refused(
                "this node is a witness, which holds no addresses: found the cluster on another node and join it \
                 from here",
            ));
        }
        Ok(Answer::done(self.control.init(name).await?))
    }

    pub(super) async fn cluster_join(&self, address: SocketAddr, token: &str, out: &Out) -> Result<Answer> {
        self.refuse_second()?;
        if address == self.config.rpc {
            return Err(ApiError::refused(format!(
                "{address} is this node itself: give the rpc address of a member of the cluster"
            )));
        }
        progress(out, format!("asking {address} to take in '{}'", self.config.name)).await;
        Ok(Answer::done(self.control.join(address, token.trim()).await?))
    }

    pub(super) fn cluster_token(&self) -> Result<Answer> {
        self.member()?;
        Ok(Answer::Token(self.control.token()?))
    }

    fn refuse_second(&self) -> Result<()> {
        match &*self.member.borrow() {
            None => Ok(()),
            Some(member) => Err(ApiError::refused(format!(
                "this node is part of the cluster '{}' already: a node is in one cluster",
                member.state().name
            ))),
        }
    }
}
