//! The status as text.

use crate::{
    api::{
        LinkHealth, NodeStatus, ResourceStatus, Status, StoreStatus, accept_name, counted_span, thousands,
    },
    cli::{
        subnet,
        table::{Table, plural},
    },
    model::{Accept, Standing},
};

pub fn status(s: &Status) -> String {
    let mut parts = vec![head(s)];
    parts.extend(warnings(s));
    if s.cluster.is_some() {
        parts.push(nodes(s));
        parts.push(resources(s, false));
        parts.extend(hierarchies(s));
    }
    if !s.subnets.is_empty() {
        parts.push(subnet::by_node(&s.subnets));
    }
    parts.push(interfaces(s));
    parts.join("\n")
}

/// Only what concerns the cluster: `vipctl cluster status`.
pub fn cluster_text(s: &Status) -> String {
    let mut parts = vec![head(s) + &key(s)];
    parts.extend(warnings(s));
    if s.cluster.is_some() {
        parts.push(nodes(s));
        parts.push(paths(s));
        parts.extend(s.cluster.as_ref().filter(|c| c.store.kind == "etcd").map(|c| store_members(&c.store)));
    }
    parts.join("\n")
}

fn head(s: &Status) -> String {
    let mut table = Table::bare();
    let mut line = |name: &str, value: String| table.row([name.to_owned(), value]);
    line("node", format!("{}, vipd {}, profile {}", s.node, s.version, s.profile));
    match &s.cluster {
        None => line("cluster", "none".to_owned()),
        Some(c) => {
            let quorum = match (c.quorum, &c.leader) {
                (false, _) => "NO QUORUM",
                (true, None) => "NO LEADER",
                (true, Some(_)) => "quorum",
            };
            let leader = c.leader.as_deref().unwrap_or("none");
            let voters = plural(c.voters, "voter");
            line(
                "cluster",
                format!(
                    "{}, {quorum}, leader {leader}, {voters}, term {}, {} changes",
                    c.name, c.term, c.applied
                ),
            );
            if c.store.kind == "etcd" {
                line("store", store(&c.store));
            }
            let l = &s.lease;
            let (left, of) = (seconds(l.remaining_ms), seconds(l.duration_ms));
            let lease = if l.valid { format!("valid, {left} of {of} left") } else { "NOT VALID".to_owned() };
            line("lease", format!("{lease}, epoch {}", l.epoch));
        }
    }
    let reason = s.datapath.reason.as_ref().map_or_else(String::new, |r| format!(" ({r})"));
    line("guard", format!("{}{reason}", s.datapath.guard));
    let verdicts: Vec<String> = s.datapath.verdicts.iter().map(|(v, n)| format!("{v} {n}")).collect();
    if !verdicts.is_empty() {
        line("frames", verdicts.join(", "));
    }
    table.render()
}

/// `key      generation 2, not confirmed by c`
fn key(s: &Status) -> String {
    let Some(cluster) = &s.cluster else { return String::new() };
    let without = match &cluster.key_unconfirmed[..] {
        [] => String::new(),
        names => format!(", not confirmed by {}", names.join(", ")),
    };
    format!("key      generation {}{without}\n", cluster.key_generation)
}

/// `etcd, 3 of 3 members well, keys /vipd/lab/`
fn store(store: &StoreStatus) -> String {
    let keys = store.place.as_deref().unwrap_or_default();
    match store.unreachable_ms {
        Some(ms) => format!("{}, UNREACHABLE since {}, keys {keys}", store.kind, seconds(ms)),
        None => {
            let well = store.members.iter().filter(|m| m.healthy).count();
            format!("{}, {well} of {} members well, keys {keys}", store.kind, store.members.len())
        }
    }
}

fn store_members(store: &StoreStatus) -> String {
    let mut table = Table::new(["STORE", "STATE", "VERSION", "DATABASE", "TROUBLE"]).right([3]);
    for m in &store.members {
        let bytes = if m.bytes == 0 { String::new() } else { format!("{} kB", m.bytes.div_ceil(1000)) };
        table.row([m.endpoint.clone(), m.state.clone(), m.version.clone(), bytes, m.trouble.clone()]);
    }
    table.render()
}

/// `1.7 s`
fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

fn ago(ms: Option<u64>) -> String {
    match ms {
        None => "never".to_owned(),
        Some(ms) if ms < 1000 => format!("{ms} ms ago"),
        Some(ms) => format!("{} ago", seconds(ms)),
    }
}

fn warnings(s: &Status) -> Option<String> {
    let lines: String = s.warnings.iter().map(|w| format!("warning: {w}\n")).collect();
    (!lines.is_empty()).then_some(lines)
}

fn nodes(s: &Status) -> String {
    let mut table = Table::new(["NODE", "STATE", "LEASE", "IN SERVICE", "PATHS", "RPC"]).right([3]);
    for n in &s.nodes {
        let here = if n.name == s.node { " (here)" } else { "" };
        let lease = match n.lease_valid {
            _ if n.witness => "",
            _ if !n.alive => "unknown",
            true => "valid",
            false => "not valid",
        };
        let up = n.paths.iter().filter(|p| p.up).count();
        table.row([
            format!("{}{here}", n.name),
            state_of(n),
            lease.to_owned(),
            if n.witness { String::new() } else { n.resources_in_service.to_string() },
            format!("{up} of {} up", n.paths.len()),
            n.rpc.to_string(),
        ]);
    }
    table.render()
}

fn state_of(n: &NodeStatus) -> String {
    let standing = match n.standing {
        Standing::Joining => "joining",
        Standing::Member if n.witness => "witness",
        Standing::Member => "member",
        Standing::Deposed => "deposed",
    };
    let duty = match n.duty() {
        duty if duty == "online" || n.witness => String::new(),
        duty => format!(", {duty}"),
    };
    if n.alive { format!("{standing}{duty}") } else { format!("{standing}, SILENT{duty}") }
}

fn paths(s: &Status) -> String {
    let mut table = Table::new(["NODE", "PATH", "STATE", "LAST HEARD", "KERNEL", "ROUND TRIP"]);
    for n in s.nodes.iter().filter(|n| n.name != s.node) {
        for path in &n.paths {
            let state = if path.up { "up" } else { "DOWN" };
            let kernel = match path.kernel.as_deref() {
                Some("silent") => "SILENT",
                Some(other) => other,
                None => "",
            };
            let trip = match (path.rtt_us, path.rtt_min_us) {
                (Some(last), Some(least)) => format!("{last} us (min {least})"),
                _ => String::new(),
            };
            table.row([
                n.name.clone(),
                path.address.to_string(),
                state.to_owned(),
                ago(path.last_heard_ms),
                kernel.to_owned(),
                trip,
            ]);
        }
    }
    table.render()
}

/// The resources alone; `chosen` when they are not all.
pub fn resources(s: &Status, chosen: bool) -> String {
    let total: usize = s.states.values().sum();
    let counts: Vec<String> =
        s.states.iter().map(|(state, n)| format!("{} {state}", thousands(*n as u64))).collect();
    if total == 0 {
        return if chosen {
            "no resource is like that: 'vipctl status --resources' shows all\n".to_owned()
        } else {
            "no resource yet: 'vipctl create ip ADDRESS --extend-to all' makes one\n".to_owned()
        };
    }
    let mut table =
        Table::new(["RESOURCE", "ADDRESS", "STATE", "OWNER", "DEVICE", "PACKETS", "NODES"]).right([5]);
    let mut listed = 0;
    for r in &s.resources {
        listed += r.run.as_ref().map_or(1, |run| run.count);
        table.row([
            tags(r),
            addresses(r),
            r.state.clone(),
            owner(r),
            r.device.clone().unwrap_or_default(),
            r.packets.map(|p| p.to_string()).unwrap_or_default(),
            on_nodes(r),
        ]);
    }
    let rest = match total.saturating_sub(listed) {
        0 => String::new(),
        n => format!(
            "{} of them are not shown: --limit N and --offset N show others, --all shows all, --resources PATTERN, \
             --owner and --state choose\n",
            thousands(n as u64)
        ),
    };
    // Sentences, too wide for a column; assigning is what everybody expects.
    let unusual = s.resources.iter().filter(|r| r.accept != Accept::Assign && !r.accept_reason.is_empty());
    let ways: std::collections::BTreeSet<String> =
        unusual.map(|r| format!("{}: {}\n", accept_name(r.accept), r.accept_reason)).collect();
    let ways: String = ways.into_iter().collect();
    let noun = if total == 1 { "resource" } else { "resources" };
    format!("{} {noun}: {}\n{}{rest}", thousands(total as u64), counts.join(", "), table.render() + &ways)
}

/// Trees that are shown.
const HIERARCHIES: usize = 20;

/// What depends on what: children are set in under their parents.
fn hierarchies(s: &Status) -> Option<String> {
    let mut table = Table::new(["HIERARCHY", "STATE", "OWNER"]);
    for member in s.hierarchies.iter().take(HIERARCHIES).flat_map(|h| &h.members) {
        table.row([
            format!("{}{}", "  ".repeat(member.depth), member.tag),
            member.state.clone(),
            member.owner.clone().unwrap_or_default(),
        ]);
    }
    let rest = match s.hierarchies.len().saturating_sub(HIERARCHIES) {
        0 => String::new(),
        n => format!("{n} more hierarchies are not shown: --json has all\n"),
    };
    (!s.hierarchies.is_empty()).then(|| table.render() + &rest)
}

/// `b`, `b (chosen)` where an operator sent it there, or `a (chosen: b)` where it is not, or not yet
fn owner(r: &ResourceStatus) -> String {
    let owner = r.owner.clone().unwrap_or_default();
    let Some(choice) = &r.choice else { return owner };
    let chosen =
        if choice.node == owner { "(chosen)".to_owned() } else { format!("(chosen: {})", choice.node) };
    if owner.is_empty() { chosen } else { format!("{owner} {chosen}") }
}

/// `ip-10.0.0.1`, or `ip-10.0.0.1 .. ip-10.0.0.9 (9)`
fn tags(r: &ResourceStatus) -> String {
    match &r.run {
        None => r.tag.to_string(),
        Some(run) => format!("{} .. {} ({})", r.tag, run.last_tag, thousands(run.count as u64)),
    }
}

/// `10.0.0.1/24`, `10.0.0.1 .. 10.0.0.9/24` of a run, or `254 addresses 10.0.0.1-10.0.0.254/24 (anyip)` of a set
fn addresses(r: &ResourceStatus) -> String {
    let way = match r.accept {
        Accept::Assign => String::new(),
        Accept::Route | Accept::Anyip => format!(" ({})", accept_name(r.accept)),
    };
    match r.kind.as_str() {
        "ec2-route" if r.addresses == 1 => return format!("routes to {}", r.address.addr()),
        "ec2-route" => return format!("routes to {}", counted_span(r.addresses, &r.span)),
        "ec2-eip" => return format!("Elastic IP {}", r.address.addr()),
        _ => {}
    }
    match &r.run {
        Some(run) => format!("{} .. {}{way}", r.address.addr(), run.last_address),
        None if r.addresses == 1 => format!("{}{way}", r.address),
        None => format!("{}{way}", counted_span(r.addresses, &r.span)),
    }
}

/// `a:1 b:10 c:20 OSF`
fn on_nodes(r: &ResourceStatus) -> String {
    let each: Vec<String> = r
        .nodes
        .iter()
        .map(|n| {
            let failed = if n.state == "OSF" { " OSF" } else { "" };
            let failures = match n.failures {
                0 => String::new(),
                n => format!(" ({})", plural(n as usize, "failure")),
            };
            format!("{}:{}{failed}{failures}", n.node, n.priority)
        })
        .collect();
    each.join(" ")
}

/// Addresses of an interface that are shown: the stationary ones, and of very many VIPs only how many.
const ADDRESSES_SHOWN: usize = 4;

fn interfaces(s: &Status) -> String {
    let mut table = Table::new([
        "INTERFACE",
        "LINK",
        "XDP",
        "FRAMES",
        "ARP",
        "ND",
        "ECHO REQUESTS",
        "HEARD",
        "ADDRESSES",
    ])
    .right([3, 4, 5, 6]);
    for i in &s.interfaces {
        let link = match i.health {
            LinkHealth::Up if i.recovering => "recovering",
            LinkHealth::Up => "up",
            LinkHealth::NoCarrier => "NO CARRIER",
            LinkHealth::AdminDown => "down",
            LinkHealth::Missing => "MISSING",
            LinkHealth::Deaf => "DEAF",
            LinkHealth::Unreachable => "UNREACHABLE",
        };
        let mut shown: Vec<String> = i.stationary.iter().map(ToString::to_string).collect();
        let more = shown.len().saturating_sub(ADDRESSES_SHOWN);
        shown.truncate(ADDRESSES_SHOWN);
        if more > 0 {
            shown.push(format!("and {more} more"));
        }
        let vips = i.addresses.len().saturating_sub(i.stationary.len());
        if vips > 0 {
            shown.push(format!("+ {vips} virtual"));
        }
        table.row([
            i.name.clone(),
            link.to_owned(),
            i.xdp.split(" (").next().unwrap_or_default().to_owned(),
            i.frames.to_string(),
            i.arp.to_string(),
            i.nd.to_string(),
            i.echo_requests.to_string(),
            ago(i.last_receive_ms),
            shown.join(" "),
        ]);
    }
    // The reasons are sentences, too wide for a column.
    let reasons: String = s
        .interfaces
        .iter()
        .filter_map(|i| Some((&i.name, i.xdp.split_once(" (")?)))
        .map(|(name, (mode, why))| format!("{name}: {mode} XDP, because {}\n", why.trim_end_matches(')')))
        .collect();
    table.render() + &reasons
}

#[cfg(test)]
mod tests;
