//! Signature version 4, for our own calls while moto enforces IAM's policies.

use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::http::Request;

/// Of an IAM user or, with a token, of a role that was assumed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub access_key: String,
    pub secret: String,
    pub token: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.access_key)
    }
}

/// Signs a POST to `/` that has its `Host` already.
pub fn sign(request: Request, service: &str, region: &str, credentials: &Credentials) -> Request {
    let time = timestamp(SystemTime::now());
    sign_at(request, service, region, credentials, &time)
}

fn sign_at(
    mut request: Request,
    service: &str,
    region: &str,
    credentials: &Credentials,
    time: &str,
) -> Request {
    request = request.with("X-Amz-Date", time);
    if let Some(token) = &credentials.token {
        request = request.with("X-Amz-Security-Token", token);
    }
    let mut headers: Vec<(String, &str)> =
        request.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str())).collect();
    headers.sort();
    let signed = headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let canonical =
        format!("{}\n/\n\n{lines}\n{signed}\n{}", request.method, hex(&Sha256::digest(&request.body)));
    let date = &time[..8];
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(&canonical)));
    let key = [date, region, service, "aws4_request"]
        .iter()
        .fold(format!("AWS4{}", credentials.secret).into_bytes(), |key, part| hmac(&key, part.as_bytes()));
    let signature = hex(&hmac(&key, text.as_bytes()));
    let value = format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed}, Signature={signature}",
        credentials.access_key
    );
    request.with("Authorization", &value)
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut block = [0; 64];
    let short = if key.len() > block.len() { Sha256::digest(key).to_vec() } else { key.to_vec() };
    block[..short.len()].copy_from_slice(&short);
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `20261128T140501Z`
pub fn timestamp(at: SystemTime) -> String {
    let (year, month, day, [hour, minute, second]) = civil(at);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// `2026-11-28T14:05:01Z`
pub fn rfc3339(at: SystemTime) -> String {
    let (year, month, day, [hour, minute, second]) = civil(at);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Days since 1970 in the calendar, by eras of 400 years that begin in March.
fn civil(at: SystemTime) -> (u64, u64, u64, [u64; 3]) {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let time = [seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60];
    (year, month, day - (153 * shifted + 2) / 5 + 1, time)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_calendar_is_right() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_795_874_701), "2026-11-28T14:05:01Z");
    }

    /// RFC 4231, test cases 2 and 6.
    #[test]
    fn hmac_is_as_specified() {
        let short = hmac(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hex(&short), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let long = hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(hex(&long), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }

    /// `post-vanilla` of AWS's own test suite for signatures.
    #[test]
    fn signs_as_aws_does() {
        let credentials = Credentials {
            access_key: "AKIDEXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            token: None,
        };
        let request = Request::new("POST", "/", "").with("Host", "example.amazonaws.com");
        let signed = sign_at(request, "service", "us-east-1", &credentials, "20150830T123600Z");
        let value = signed.header("authorization").unwrap();
        assert!(
            value.ends_with("5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            "{value}"
        );
    }
}
