//! The one string that lets a node into the cluster.

use std::{fmt, net::SocketAddr, str::FromStr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::{
    identity::{ClusterId, ClusterKey},
    keyring::NumberedKey,
};

/// Secret: whoever has it can join.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub cluster: String,
    pub id: ClusterId,
    pub key: NumberedKey,
    /// Where a member listens.
    pub rpc: SocketAddr,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    #[error("the token is cut off or mistyped: copy the whole line that 'vipctl cluster token' prints")]
    Garbled,
    #[error("the token has version {0}, this vipd knows {VERSION}: use the same release on all nodes")]
    Version(u8),
}

const VERSION: u8 = 2;

impl fmt::Debug for Token {
    // The key stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} {} {})", self.cluster, self.id, self.rpc)
    }
}

/// `version, id (16), key (32), its generation (8), length of the address, address, name, crc32`, as base64url.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rpc = self.rpc.to_string();
        let mut bytes = vec![VERSION];
        bytes.extend(self.id.0);
        bytes.extend(self.key.key.0);
        bytes.extend(self.key.generation.to_be_bytes());
        bytes.push(u8::try_from(rpc.len()).map_err(|_| fmt::Error)?);
        bytes.extend(rpc.as_bytes());
        bytes.extend(self.cluster.as_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Token {
    type Err = BadToken;
    fn from_str(text: &str) -> Result<Self, BadToken> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.trim()).map_err(|_| BadToken::Garbled)?;
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(BadToken::Garbled)?;
        if crc32fast::hash(body) != u32::from_be_bytes(*crc) {
            return Err(BadToken::Garbled);
        }
        let (&version, body) = body.split_first().ok_or(BadToken::Garbled)?;
        if version != VERSION {
            return Err(BadToken::Version(version));
        }
        let (id, body) = body.split_first_chunk::<16>().ok_or(BadToken::Garbled)?;
        let (key, body) = body.split_first_chunk::<32>().ok_or(BadToken::Garbled)?;
        let (generation, body) = body.split_first_chunk::<8>().ok_or(BadToken::Garbled)?;
        let (&length, body) = body.split_first().ok_or(BadToken::Garbled)?;
        let (rpc, name) = body.split_at_checked(length.into()).ok_or(BadToken::Garbled)?;
        let text = |b: &[u8]| std::str::from_utf8(b).map(str::to_owned).map_err(|_| BadToken::Garbled);
        Ok(Self {
            cluster: text(name)?,
            id: ClusterId(*id),
            key: NumberedKey { generation: u64::from_be_bytes(*generation), key: ClusterKey(*key) },
            rpc: text(rpc)?.parse().map_err(|_| BadToken::Garbled)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens() -> impl Strategy<Value = Token> {
        let keys = (any::<u64>(), any::<[u8; 32]>())
            .prop_map(|(generation, key)| NumberedKey { generation, key: ClusterKey(key) });
        (".{0,64}", any::<[u8; 16]>(), keys, any::<(std::net::IpAddr, u16)>()).prop_map(
            |(cluster, id, key, (ip, port))| Token {
                cluster,
                id: ClusterId(id),
                key,
                rpc: SocketAddr::new(ip, port),
            },
        )
    }

    proptest! {
        #[test]
        fn a_token_is_read_back(token in tokens()) {
            prop_assert_eq!(token.to_string().parse::<Token>(), Ok(token.clone()));
            prop_assert_eq!(format!(" {token}\n").parse::<Token>(), Ok(token));
        }

        #[test]
        fn a_changed_token_is_refused(token in tokens(), at in any::<prop::sample::Index>(), c in "[A-Za-z0-9_-]") {
            let text = token.to_string();
            let at = at.index(text.len());
            let mut changed = text.clone();
            changed.replace_range(at..=at, &c);
            prop_assume!(changed != text);
            prop_assert_eq!(changed.parse::<Token>(), Err(BadToken::Garbled));
            prop_assert_eq!(text[..at].parse::<Token>(), Err(BadToken::Garbled));
        }

        #[test]
        fn garbage_never_panics(text in ".{0,200}") {
            let _ = text.parse::<Token>();
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = vec![9, 0, 0];
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        let text = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        assert_eq!(text.parse::<Token>(), Err(BadToken::Version(9)));
    }
}
