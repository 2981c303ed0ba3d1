//! What makes this host a member of its cluster: `<state_dir>/cluster.json` and two counters.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::durable::{self, DiskError};
use crate::{config::StoreKind, core::change::NewNode, model::NodeId};

/// The number by which nodes tell clusters apart. Not secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterId(pub [u8; 16]);

/// The secret that all nodes of a cluster share. Whoever has it is a member.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterKey(pub [u8; 32]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for ClusterKey {
    // Never in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(secret)")
    }
}

impl From<ClusterId> for String {
    fn from(id: ClusterId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for ClusterId {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        const REASON: &str = "a cluster id is 32 hexadecimal digits";
        let digits = text.as_bytes();
        if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(REASON);
        }
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| REASON)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| REASON)?;
        }
        Ok(Self(id))
    }
}

impl From<ClusterKey> for String {
    fn from(key: ClusterKey) -> Self {
        BASE64_STANDARD.encode(key.0)
    }
}

impl TryFrom<String> for ClusterKey {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| "a cluster key is base64")?;
        bytes.try_into().map(Self).map_err(|_| "a cluster key has 32 bytes")
    }
}

/// How far this node has come on its way into the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// `init` has begun: this node makes the first entries.
    Founding {
        node: NewNode,
    },
    /// A number is reserved; the cluster has yet to admit this node. Asked at `via`.
    Joining {
        via: SocketAddr,
    },
    Member,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster's name.
    pub cluster: String,
    pub id: ClusterId,
    pub key: ClusterKey,
    /// This node.
    pub node: NodeId,
    pub name: String,
    pub stage: Stage,
    /// Where the cluster keeps its state: a node that looked elsewhere would find nothing.
    #[serde(default, skip_serializing_if = "StoreKind::is_raft")]
    pub store: StoreKind,
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("cluster.json")
}

impl Identity {
    /// None: this node is in no cluster.
    pub fn load(state_dir: &Path) -> Result<Option<Self>, DiskError> {
        let path = file(state_dir);
        let Some(bytes) = durable::read(&path)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| DiskError::damaged(&path, 0, format!("not a node's identity ({e})")))
    }

    pub fn save(&self, state_dir: &Path) -> Result<(), DiskError> {
        durable::make_dir(state_dir)?;
        let path = file(state_dir);
        let text = serde_json::to_vec_pretty(self)
            .map_err(|e| DiskError::io("encode", &path)(std::io::Error::other(e)))?;
        durable::replace(&path, &text)
    }

    /// This node is in no cluster from then on.
    pub(super) fn remove(state_dir: &Path) -> Result<(), DiskError> {
        let path = file(state_dir);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(DiskError::io("remove", &path)(e)),
            Ok(()) => durable::sync_dir(state_dir),
        }
    }
}

/// Random bytes from the kernel.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], DiskError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| {
        DiskError::io("read random bytes of", Path::new("the kernel"))(std::io::Error::other(e.to_string()))
    })?;
    Ok(bytes)
}

/// A number that rises with every start of the daemon, and is durable before it is used. Heartbeats
/// carry it, so that those of an earlier life are recognised as old.
pub fn next_incarnation(state_dir: &Path) -> Result<u64, DiskError> {
    let path = state_dir.join("incarnation");
    let last = read_number(&path)?.unwrap_or(0);
    let next = last
        .checked_add(1)
        .ok_or_else(|| DiskError::damaged(&path, 0, "the number cannot rise any further"))?;
    durable::make_dir(state_dir)?;
    durable::replace(&path, format!("{next}\n").as_bytes())?;
    Ok(next)
}

/// The longest lease this voter has ever promised. After a restart it has forgotten its promises and
/// must take it that such a one is out. Zero: it has never promised anything.
pub fn read_longest_promise(state_dir: &Path) -> Result<Duration, DiskError> {
    Ok(Duration::from_nanos(read_number(&promise_file(state_dir))?.unwrap_or(0)))
}

/// Must return before the first promise of that length is given.
pub fn write_longest_promise(state_dir: &Path, longest: Duration) -> Result<(), DiskError> {
    durable::make_dir(state_dir)?;
    let ns = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    durable::replace(&promise_file(state_dir), format!("{ns}\n").as_bytes())
}

fn promise_file(state_dir: &Path) -> PathBuf {
    state_dir.join("longest-promise-ns")
}

fn read_number(path: &Path) -> Result<Option<u64>, DiskError> {
    let Some(bytes) = durable::read(path)? else { return Ok(None) };
    let number = std::str::from_utf8(&bytes).ok().and_then(|t| t.strip_suffix('\n')?.parse().ok());
    number.map(Some).ok_or_else(|| DiskError::damaged(path, 0, "not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(stage: Stage) -> Identity {
        Identity {
            cluster: "lab".into(),
            id: ClusterId(random().unwrap()),
            key: ClusterKey(random().unwrap()),
            node: 3,
            name: "c".into(),
            stage,
            store: StoreKind::Etcd,
        }
    }

    #[test]
    fn identity_is_read_back_at_every_stage() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("state");
        assert_eq!(Identity::load(&dir).unwrap(), None);
        let rpc = "127.0.0.1:7300".parse().unwrap();
        let node = NewNode { name: "c".into(), rpc, paths: vec![rpc], witness: false };
        for stage in [Stage::Founding { node }, Stage::Joining { via: rpc }, Stage::Member] {
            let wanted = identity(stage);
            wanted.save(&dir).unwrap();
            assert_eq!(Identity::load(&dir).unwrap(), Some(wanted));
        }
    }

    #[test]
    fn a_damaged_identity_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        identity(Stage::Member).save(dir.path()).unwrap();
        let whole = std::fs::read(file(dir.path())).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(file(dir.path()), &whole[..cut]).unwrap();
            let e = Identity::load(dir.path()).unwrap_err().to_string();
            assert!(e.contains("cluster.json") && e.contains("join the cluster again"), "{e}");
        }
    }

    #[test]
    fn the_key_is_never_printed() {
        let identity = identity(Stage::Member);
        let key = String::from(identity.key.clone());
        assert!(!format!("{identity:?}").contains(&key));
    }

    #[test]
    fn incarnations_rise() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(next_incarnation(dir.path()).unwrap(), 1);
        assert_eq!(next_incarnation(dir.path()).unwrap(), 2);
        std::fs::write(dir.path().join("incarnation"), "x").unwrap();
        assert!(next_incarnation(dir.path()).is_err(), "never starts again from 1");
    }

    #[test]
    fn the_longest_promise_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_longest_promise(dir.path()).unwrap(), Duration::ZERO);
        write_longest_promise(dir.path(), Duration::from_millis(2000)).unwrap();
        assert_eq!(read_longest_promise(dir.path()).unwrap(), Duration::from_millis(2000));
    }
}
