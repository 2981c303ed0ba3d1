//! The address of a `create`: text -> address and prefix length (row IP-2), and whether it can be a VIP.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::{Host, Result};
use crate::{
    api::ApiError,
    model::{Range, Ranges, with_length},
};

/// An address with the prefix length as far as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub address: IpAddr,
    pub prefix: Option<u8>,
}

/// Resolves `ADDRESS[/LEN]` or `NAME[/LEN]` and a netmask; LEN and the netmask are a prefix length or
/// a dotted mask.
pub async fn resolve(host: &dyn Host, text: &str, netmask: Option<&str>) -> Result<Wanted> {
    let (name, length) = match text.split_once('/') {
        Some((name, length)) => (name, Some(length)),
        None => (text, None),
    };
    let address = match name.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => by_name(host, name).await?,
    };
    Ok(Wanted { address, prefix: mask_of(address, text, length, netmask)? })
}

/// The prefix length that belongs to `text`: its own, or that of the netmask.
pub fn mask_of(
    address: IpAddr,
    text: &str,
    length: Option<&str>,
    netmask: Option<&str>,
) -> Result<Option<u8>> {
    let mask = match (length, netmask) {
        (Some(_), Some(_)) => {
            return Err(ApiError::usage(format!(
                "'{text}' has a prefix length and --netmask is given as well: give one of them"
            )));
        }
        (given, None) | (None, given) => given,
    };
    mask.map(|m| prefix_of(address, m)).transpose()
}

async fn by_name(host: &dyn Host, name: &str) -> Result<IpAddr> {
    if name.contains('%') {
        return Err(ApiError::usage(format!("'{name}' has a zone: give the address alone, and --dev IF")));
    }
    let fits = |c: char| c.is_alphanumeric() || "-._".contains(c);
    // Digits and dots alone are a mistyped address, which a resolver might still make something of.
    let numeric = name.chars().all(|c| c.is_ascii_digit() || c == '.');
    if name.is_empty() || name.len() > 253 || !name.chars().all(fits) || numeric {
        return Err(ApiError::usage(format!("'{name}' is neither an address nor a host name")));
    }
    let found = host.resolve(name).await.map_err(|e| {
        ApiError::failed(format!(
            "the name '{name}' cannot be resolved: {e}; add it to /etc/hosts or DNS, or give the address"
        ))
    })?;
    match found[..] {
        [address] => Ok(address),
        [] => Err(ApiError::failed(format!("the name '{name}' has no address: give the address"))),
        _ => {
            let all: Vec<String> = found.iter().map(IpAddr::to_string).collect();
            Err(ApiError::usage(format!(
                "the name '{name}' has several addresses ({}): give the one that is meant",
                all.join(", ")
            )))
        }
    }
}

/// A prefix length from `24` or `255.255.255.0`.
fn prefix_of(address: IpAddr, mask: &str) -> Result<u8> {
    let most = if address.is_ipv4() { 32 } else { 128 };
    if let Ok(dotted) = mask.parse::<Ipv4Addr>() {
        if address.is_ipv6() {
            return Err(ApiError::usage(format!(
                "netmask {mask} is for IPv4: give {address} a prefix length"
            )));
        }
        let bits = dotted.to_bits();
        let length = bits.leading_ones();
        if bits.checked_shl(length).unwrap_or(0) != 0 {
            return Err(ApiError::usage(format!(
                "netmask {mask} is not contiguous: its one bits must all come first, as in 255.255.255.0"
            )));
        }
        return in_range(length as u8, most, mask);
    }
    match mask.parse::<u8>() {
        Ok(length) if mask.bytes().all(|b| b.is_ascii_digit()) => in_range(length, most, mask),
        Ok(_) | Err(_) => Err(ApiError::usage(format!(
            "'{mask}' is no netmask: give a prefix length from 1 to {most}, or a mask as 255.255.255.0"
        ))),
    }
}

fn in_range(length: u8, most: u8, mask: &str) -> Result<u8> {
    if (1..=most).contains(&length) {
        Ok(length)
    } else {
        Err(ApiError::usage(format!("prefix length {mask} is out of range: give 1 to {most}")))
    }
}

/// Whether an address can be a virtual one in its subnet.
pub fn check(net: IpNet) -> Result<()> {
    let address = net.addr();
    let no = |what: &str| Err(ApiError::refused(format!("{address} {what}: choose a host's address")));
    match address {
        _ if address.is_unspecified() => no("is the unspecified address"),
        _ if address.is_loopback() => no("is a loopback address"),
        _ if address.is_multicast() => no("is a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => no("is the broadcast address"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => no("is in 0.0.0.0/8, which names no host"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => no("is an IPv4-mapped address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            no("is link-local, so clients would need a zone with it")
        }
        // On a /31 or /127 both addresses are hosts' (RFC 3021, RFC 6164).
        _ if net.max_prefix_len() - net.prefix_len() < 2 => Ok(()),
        IpAddr::V4(_) if address == net.network() => {
            no(&format!("is the network address of {}", net.trunc()))
        }
        IpAddr::V4(_) if address == net.broadcast() => {
            no(&format!("is the broadcast address of {}", net.trunc()))
        }
        IpAddr::V6(_) if address == net.network() => {
            no(&format!("is the subnet-router anycast address of {} (RFC 4291)", net.trunc()))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(()),
    }
}

/// Whether all addresses of a range can be virtual ones in their subnet.
pub fn check_range(range: Range, subnet: IpNet) -> Result<()> {
    let length = subnet.prefix_len();
    let bad = |address| with_length(address, length).map_or(Ok(()), check);
    if range.count() == 1 {
        return bad(range.first());
    }
    if !subnet.contains(&range.first()) || !subnet.contains(&range.last()) {
        return Err(ApiError::refused(format!(
            "{range} goes beyond its subnet {}: give each subnet a range of its own, or a shorter prefix length",
            subnet.trunc()
        )));
    }
    let kinds =
        ["0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/127", "::ffff:0:0/96", "fe80::/10", "ff00::/8"];
    let kinds = kinds.iter().filter_map(|net| net.parse::<IpNet>().ok()).map(Range::from);
    let ends = [Range::from(subnet).first(), Range::from(subnet).last()].map(Range::from);
    let suspects: Ranges = kinds.chain(ends).collect();
    let mine: Ranges = [range].into_iter().collect();
    mine.intersection(&suspects)
        .ranges()
        .iter()
        .flat_map(|r| [r.first(), r.last()])
        .try_for_each(bad)
        .map_err(|e| ApiError {
            message: format!("{range}: {}, or leave it out with --except", e.message),
            ..e
        })
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use proptest::prelude::*;

    use super::{super::fake::FakeHost, *};
    use crate::api::ErrorKind;

    fn wanted(text: &str, netmask: Option<&str>) -> Result<(String, Option<u8>)> {
        let host = FakeHost {
            names: vec![("www", vec!["10.0.0.9"]), ("two", vec!["10.0.0.1", "fd00::1"])],
            ..FakeHost::default()
        };
        block_on(resolve(&host, text, netmask)).map(|w| (w.address.to_string(), w.prefix))
    }

    #[test]
    fn addresses_names_lengths_and_masks() {
        let good = [
            ("10.0.0.9", None, "10.0.0.9", None),
            ("10.0.0.9/24", None, "10.0.0.9", Some(24)),
            ("10.0.0.9/255.255.0.0", None, "10.0.0.9", Some(16)),
            ("10.0.0.9", Some("255.255.255.255"), "10.0.0.9", Some(32)),
            ("10.0.0.9", Some("30"), "10.0.0.9", Some(30)),
            ("fd00::9/64", None, "fd00::9", Some(64)),
            ("www", None, "10.0.0.9", None),
            ("www/24", None, "10.0.0.9", Some(24)),
        ];
        for (text, netmask, address, prefix) in good {
            assert_eq!(wanted(text, netmask).unwrap(), (address.to_owned(), prefix), "{text}");
        }
    }

    #[test]
    fn wrong_ones_say_why() {
        let bad = [
            ("10.0.0.9", Some("255.0.255.0"), "not contiguous"),
            ("10.0.0.9", Some("0.0.0.0"), "out of range"),
            ("10.0.0.9", Some("33"), "out of range"),
            ("10.0.0.9/+4", None, "no netmask"),
            ("10.0.0.9/24", Some("24"), "give one of them"),
            ("fd00::9", Some("255.0.0.0"), "for IPv4"),
            ("10.0.0.256", None, "neither an address nor a host name"),
            ("10.0.9", None, "neither an address nor a host name"),
            ("", None, "neither"),
            ("a b", None, "neither"),
            ("fe80::1%eth0", None, "zone"),
            ("nobody", None, "cannot be resolved"),
            ("two", None, "10.0.0.1, fd00::1"),
        ];
        for (text, netmask, reason) in bad {
            let e = wanted(text, netmask).unwrap_err();
            assert!(e.message.contains(reason), "{text}: {}", e.message);
        }
    }

    #[test]
    fn what_is_no_hosts_address_is_refused() {
        let bad = [
            "0.0.0.0/8",
            "0.1.2.3/8",
            "127.0.0.1/8",
            "224.0.0.1/24",
            "255.255.255.255/32",
            "10.0.0.0/24",
            "10.0.0.255/24",
            "10.0.0.3/30",
            "::/64",
            "::1/64",
            "ff02::1/64",
            "fe80::1/64",
            "fd00::/64",
            "::ffff:10.0.0.1/128",
        ];
        for net in bad {
            let e = check(net.parse().unwrap()).unwrap_err();
            assert_eq!(e.kind, ErrorKind::Refused, "{net}");
        }
        for net in
            ["10.0.0.1/24", "10.0.0.0/31", "10.0.0.255/32", "10.0.0.255/16", "fd00::1/64", "fd00::/127"]
        {
            assert_eq!(check(net.parse().unwrap()), Ok(()), "{net}");
        }
    }

    #[test]
    fn a_range_is_as_good_as_its_worst_address() {
        let judge = |range: &str, subnet: &str| check_range(range.parse().unwrap(), subnet.parse().unwrap());
        for (range, subnet) in [
            ("10.0.0.1-10.0.0.254", "10.0.0.0/24"),
            ("10.0.0.0-10.0.0.1", "10.0.0.0/31"),
            ("10.0.0.255-10.0.1.0", "10.0.0.0/16"),
            ("fd00::1-fd00::ffff", "fd00::/64"),
            ("fd00::1-fd00::ffff:ffff:ffff:ffff", "fd00::/64"),
        ] {
            assert_eq!(judge(range, subnet), Ok(()), "{range}");
        }
        for (range, subnet, reason) in [
            ("10.0.0.0-10.0.0.9", "10.0.0.0/24", "10.0.0.0 is the network address"),
            ("10.0.0.9-10.0.0.255", "10.0.0.0/24", "10.0.0.255 is the broadcast address"),
            ("10.0.0.9-10.0.1.9", "10.0.0.0/24", "beyond its subnet 10.0.0.0/24"),
            ("223.255.255.250-224.0.0.5", "192.0.0.0/2", "224.0.0.0 is a multicast address"),
            ("126.0.0.1-128.0.0.1", "0.0.0.0/1", "beyond"),
            ("fd00::-fd00::9", "fd00::/64", "subnet-router anycast"),
        ] {
            let e = judge(range, subnet).unwrap_err();
            assert!(e.message.contains(reason), "{range}: {}", e.message);
        }
    }

    proptest! {
        #[test]
        fn exactly_contiguous_masks_are_masks(bits: u32, length in 1u32..=32) {
            let contiguous = u32::MAX << (32 - length);
            let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let text = |b: u32| Ipv4Addr::from_bits(b).to_string();
            prop_assert_eq!(prefix_of(address, &text(contiguous)), Ok(length as u8));
            let is_mask = bits != 0 && bits.count_ones() == bits.leading_ones();
            prop_assert_eq!(prefix_of(address, &text(bits)).is_ok(), is_mask);
        }

        #[test]
        fn any_text_is_answered(text in ".{0,40}", netmask in proptest::option::of(".{0,20}")) {
            if let Ok((_, Some(prefix))) = wanted(&text, netmask.as_deref()) {
                prop_assert!((1..=128).contains(&prefix));
            }
        }
    }
}
