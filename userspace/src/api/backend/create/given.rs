//! What an operator gave as addresses: text -> sets of addresses with their subnets (row IP-2). All
//! mistakes are told at once, those in files with their lines.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::{Host, Result, address, devices::Subnets};
use crate::{
    api::{ApiError, Given, thousands},
    model::{Addresses, Range, Ranges, with_length},
};

/// Mistakes that one answer lists; the rest are counted.
const LISTED: usize = 50;

/// Addresses of one argument or line.
#[derive(Clone, Debug)]
pub struct Part {
    pub range: Range,
    pub prefix: Option<u8>,
    /// `FILE:LINE: ` or nothing.
    origin: String,
}

#[derive(Default)]
pub struct Mistakes(Vec<ApiError>);

impl Mistakes {
    fn add(&mut self, origin: &str, e: ApiError) {
        self.0.push(ApiError { message: format!("{origin}{}", e.message), ..e });
    }

    /// All of them as one error, of the first one's kind.
    pub fn refuse(self) -> Result<()> {
        let mut all = self.0;
        match all.len() {
            0 => Ok(()),
            1 => Err(all.remove(0)),
            n => {
                let kind = all[0].kind;
                let mut lines: Vec<String> = all.into_iter().take(LISTED).map(|e| e.message).collect();
                if n > LISTED {
                    lines.push(format!("and {} more", thousands((n - LISTED) as u64)));
                }
                let count = thousands(n as u64);
                Err(ApiError::new(
                    kind,
                    format!("{count} mistakes, nothing was changed:\n{}", lines.join("\n")),
                ))
            }
        }
    }
}

/// How text is to be read.
pub struct Reading<'a> {
    pub netmask: Option<&'a str>,
    /// Prefixes stand for each of their hosts.
    pub each: bool,
}

impl Reading<'_> {
    pub async fn read(&self, host: &dyn Host, given: &[Given], mistakes: &mut Mistakes) -> Vec<Part> {
        let mut parts = Vec::new();
        for given in given {
            match given {
                Given::Argument(text) => {
                    self.add(host, text, String::new(), &mut parts, mistakes).await;
                }
                Given::File { name, text } => {
                    let lines = text.lines().enumerate();
                    let before = parts.len();
                    let known = mistakes.0.len();
                    for (index, line) in lines {
                        let line = line.split('#').next().unwrap_or_default().trim();
                        if !line.is_empty() {
                            self.add(host, line, format!("{name}:{}: ", index + 1), &mut parts, mistakes)
                                .await;
                        }
                    }
                    if parts.len() == before && mistakes.0.len() == known {
                        mistakes.add(
                            "",
                            ApiError::usage(format!("the file {name} has no address: write one a line")),
                        );
                    }
                }
            }
        }
        parts
    }

    async fn add(
        &self,
        host: &dyn Host,
        text: &str,
        origin: String,
        parts: &mut Vec<Part>,
        mistakes: &mut Mistakes,
    ) {
        match self.part(host, text).await {
            Ok((range, prefix)) => parts.push(Part { range, prefix, origin }),
            Err(e) => mistakes.add(&origin, e),
        }
    }

    async fn part(&self, host: &dyn Host, text: &str) -> Result<(Range, Option<u8>)> {
        if let Some(range) = self.range(text)? {
            return Ok(range);
        }
        let wanted = address::resolve(host, text, self.netmask).await?;
        let net = wanted.prefix.and_then(|p| with_length(wanted.address, p));
        match net {
            Some(net) if self.each && net.prefix_len() < net.max_prefix_len() => {
                if net.addr() != net.trunc().addr() {
                    return Err(ApiError::usage(format!(
                        "{net} has host bits: with --each give the prefix {}, or leave --each out for the address",
                        net.trunc()
                    )));
                }
                Ok((hosts(net), wanted.prefix))
            }
            Some(_) | None => Ok((wanted.address.into(), wanted.prefix)),
        }
    }

    /// `FIRST-LAST[/LEN]`; None for what is no range (names have dashes too).
    fn range(&self, text: &str) -> Result<Option<(Range, Option<u8>)>> {
        let (ends, length) = match text.split_once('/') {
            Some((ends, length)) => (ends, Some(length)),
            None => (text, None),
        };
        let is_range = ends.split_once('-').is_some_and(|(first, _)| first.parse::<IpAddr>().is_ok());
        if !is_range {
            return Ok(None);
        }
        let range: Range = ends.parse().map_err(|e| ApiError::usage(format!("{e}")))?;
        let prefix = address::mask_of(range.first(), text, length, self.netmask)?;
        Ok(Some((range, prefix)))
    }
}

/// Every address of a prefix that a host can have: without network and broadcast address, and for IPv6
/// without the subnet-router anycast address (RFC 4291 section 2.6.1).
fn hosts(net: IpNet) -> Range {
    let all = Range::from(net);
    if net.max_prefix_len() - net.prefix_len() < 2 {
        return all;
    }
    let ends = match net {
        IpNet::V4(_) => [all.first(), all.last()],
        IpNet::V6(_) => [all.first(), all.first()],
    };
    let whole: Ranges = [all].into_iter().collect();
    whole.difference(&ends.into_iter().collect()).ranges().first().copied().unwrap_or(all)
}

/// Gives each part its subnet, leaves out what is excepted, and checks that the rest can be virtual.
pub fn settle(parts: &[Part], except: &[Range], subnets: &Subnets, mistakes: &mut Mistakes) -> Addresses {
    let left_out: Ranges = except.iter().copied().collect();
    let given: Ranges = parts.iter().map(|p| p.range).collect();
    for unused in except.iter().filter(|e| given.intersection(&[**e].into_iter().collect()).is_empty()) {
        let message = format!("--except {unused} is none of the addresses: look for a slip");
        mistakes.add("", ApiError::usage(message));
    }
    let mut settled: Vec<(IpNet, Range)> = Vec::with_capacity(parts.len());
    for part in parts {
        let subnet = match subnets.of(part.range, part.prefix) {
            Ok(subnet) => subnet,
            Err(e) => {
                mistakes.add(&part.origin, e);
                continue;
            }
        };
        let kept = if left_out.is_empty() {
            [part.range].into_iter().collect()
        } else {
            Ranges::from_iter([part.range]).difference(&left_out)
        };
        for range in kept.ranges() {
            match address::check_range(*range, subnet) {
                Ok(()) => settled.push((subnet, *range)),
                Err(e) => mistakes.add(&part.origin, e),
            }
        }
    }
    settled.into_iter().collect()
}

#[cfg(test)]
mod tests;
