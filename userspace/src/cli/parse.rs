//! Arguments that clap does not know by itself.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

/// `ADDRESS/LEN`; an address alone is itself with its full length.
pub fn net(text: &str) -> Result<IpNet, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.into()),
        Err(_) => {
            text.parse().map_err(|_| "give ADDRESS/LEN, as 192.0.2.10/24 or 2001:db8::10/64".to_owned())
        }
    }
}

/// `ADDRESS/LEN` with the length.
pub fn subnet(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| "give SUBNET/LEN, as 192.0.2.0/24 or 2001:db8::/64".to_owned())
}

pub fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("give key=value, as priority=10".to_owned()),
    }
}

/// Decimal seconds, more than nothing and at most a day.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "give seconds, as 5 or 0.5".to_owned();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return Err(wrong());
    }
    let nanos = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    let duration = Duration::new(whole.parse().map_err(|_| wrong())?, nanos);
    if duration.is_zero() || duration > Duration::from_secs(86_400) { Err(wrong()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms() {
        assert_eq!(net("10.0.0.9").unwrap().to_string(), "10.0.0.9/32");
        assert_eq!(net("10.0.0.9/24").unwrap().to_string(), "10.0.0.9/24");
        assert!(net("www").is_err() && subnet("10.0.0.0").is_err());
        assert_eq!(setting("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        assert!(setting("a").is_err() && setting("=a").is_err());
        assert_eq!(seconds("1.5").unwrap(), Duration::from_millis(1500));
        for bad in ["0", "0.0", "-1", "1e3", ".5", "1.", "", "86401", "99999999999999999999"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[0-9a-f:./=%+ -]{0,24}") {
            let _ = (net(&text), subnet(&text), setting(&text), seconds(&text));
        }

        #[test]
        fn addresses_survive(bits: u32, len in 0u8..=32) {
            let text = format!("{}/{len}", std::net::Ipv4Addr::from_bits(bits));
            prop_assert_eq!(net(&text).unwrap().to_string(), text);
        }
    }
}
