//! `vipctl show`.

mod why;

use clap::Args;

use super::{Session, output, ping_list, session::unexpected, table::Table};
use crate::{
    api::{Answer, ApiError, Request, Shown, accept_name, counted_span, thousands},
    model::{Cloud, Desired, OnConflict, Range, Ranges, Switchback, Tag, Threshold},
};

/// Show all about one resource
#[derive(Debug, Args)]
pub struct Show {
    tag: Tag,
}

impl Show {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        match session.ask(&Request::Show { tag: self.tag })? {
            Answer::Shown(shown) if session.json => output::json(&shown),
            Answer::Shown(shown) => {
                output::print(&text(&shown));
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }
}

fn text(shown: &Shown) -> String {
    let (status, resource, placement) = (&shown.status, &shown.resource, &shown.placement);
    // The status lists nodes by priority, the resource by number: names by priority fit both.
    let name_of = |id: &u64| {
        let priority = resource.nodes.get(id).map(|s| s.priority);
        let named = status.nodes.iter().find(|n| Some(n.priority) == priority);
        named.map_or_else(|| format!("#{id}"), |n| n.node.clone())
    };
    let mut head = Table::bare();
    let mut line = |name: &str, value: String| head.row([name.to_owned(), value]);
    line("tag", status.tag.to_string());
    line("kind", status.kind.clone());
    match resource.cloud() {
        None => {}
        Some(Cloud::Route(route)) => line("routes to", route.ip.to_string()),
        Some(Cloud::Eip(eip)) => line("elastic ip", eip.address.to_string()),
    }
    if let Some(cloud) = resource.cloud() {
        line("region", cloud.region().unwrap_or("that of its nodes").to_owned());
    }
    let mut by_subnet = resource.addresses().by_subnet();
    match (status.addresses, by_subnet.next(), by_subnet.next()) {
        _ if resource.cloud().is_some() => {}
        (0..=1, ..) | (_, None, _) => line("address", status.address.to_string()),
        (n, Some(_), None) => line("addresses", counted_span(n, &status.span)),
        (n, Some(_), Some(_)) => line("addresses", thousands(n)),
    }
    for (subnet, hosts) in resource.addresses().by_subnet().filter(|_| status.addresses > 1) {
        line(&format!("  in {subnet}"), ranges(hosts));
    }
    if let Some(ip) = resource.ip() {
        line("accept", format!("{} ({})", accept_name(ip.accept), status.accept_reason));
    }
    let on = status.owner.as_ref().map_or_else(String::new, |o| format!(" on {o}"));
    line("state", format!("{}{on}", status.state));
    line("device", status.device.clone().unwrap_or_default());
    if let Some(cloud) = &status.cloud {
        line("EC2 interface", cloud.interface.clone().unwrap_or_default());
        for target in &cloud.targets {
            line("EC2 says", target.clone());
        }
        let asked = cloud.answered_ms.map(|ms| format!("{} s ago", ms / 1000));
        line("EC2 answered", asked.unwrap_or_else(|| "never yet".to_owned()));
        if let (Some(trouble), Some(ms)) = (&cloud.trouble, cloud.trouble_ms) {
            line("EC2 trouble", format!("{trouble} (since {} s)", ms / 1000));
        }
    }
    line("epoch", status.epoch.to_string());
    line(
        "wanted",
        match &placement.desired {
            _ if placement.deleting => "deleted".to_owned(),
            Desired::InService { on: Some(node) } => format!("in service on {}", name_of(node)),
            Desired::InService { on: None } => "in service on the best node that is fit".to_owned(),
            Desired::OutOfService => "out of service".to_owned(),
        },
    );
    line(
        "switchback",
        match resource.switchback {
            Switchback::Intelligent => "intelligent".to_owned(),
            Switchback::Automatic => "automatic".to_owned(),
        },
    );
    let on_conflict = match resource.on_conflict {
        OnConflict::Report => "report",
        OnConflict::Defend => "defend",
        OnConflict::Yield => "yield",
    };
    if resource.ip().is_some() {
        line("on-conflict", on_conflict.to_owned());
    }
    let policy = &resource.policy;
    let or_default = |text: Option<String>| text.unwrap_or_else(|| "as the cluster has it".to_owned());
    line("stickiness", or_default(policy.stickiness.map(|s| s.to_string())));
    line("migration-threshold", or_default(policy.migration_threshold.map(threshold)));
    line("failure-timeout", or_default(policy.failure_timeout.map(|t| format!("{} s", t.as_secs()))));
    let failfast = [(policy.service_failfast, "service"), (policy.node_failfast, "node")];
    let failfast: Vec<&str> = failfast.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    line("failfast", failfast.join(", "));
    line("maintenance", if policy.maintenance { "on" } else { "off" }.to_owned());
    for (node, failures) in &placement.failures {
        line(
            &format!("failures on {}", name_of(node)),
            format!("{}, at last: {}", failures.count, failures.last),
        );
    }
    let subnets: Vec<String> = resource.monitored.iter().map(ToString::to_string).collect();
    line("subnets", subnets.join(" "));
    line("packets", status.packets.map(|p| p.to_string()).unwrap_or_default());

    let mut nodes =
        Table::new(["NODE", "PRIORITY", "STATE", "DEVICES", "RESTORE-AND-RECOVER", "SOURCE", "NOTE"])
            .right([1]);
    for node in &status.nodes {
        let settings = resource.nodes.values().find(|s| s.priority == node.priority);
        let note = match (&node.reason, settings.is_some_and(|s| s.physical)) {
            (Some(reason), _) => reason.clone(),
            (None, true) => "its own address, never touched".to_owned(),
            (None, false) => String::new(),
        };
        nodes.row([
            node.node.clone(),
            node.priority.to_string(),
            node.state.clone(),
            settings.map(|s| s.devices.join(",")).unwrap_or_default(),
            enabled(settings.map(|s| s.restore_and_recover)),
            enabled(settings.map(|s| s.source)),
            note,
        ]);
    }
    let lists = ping_list::text(&shown.ping_lists);
    format!("{}\n{}\n{}{lists}\n{}", head.render(), nodes.render(), why::text(shown), tunables(shown))
}

fn threshold(threshold: Threshold) -> String {
    match threshold {
        Threshold::Unlimited => "unlimited".to_owned(),
        Threshold::Failures(n) => format!("{n} failures"),
    }
}

/// What is in force, what of it is not at its default, and what is wrong in the file.
fn tunables(shown: &Shown) -> String {
    let mut table = Table::new(["TUNABLE", "VALUE", "NOTE"]).right([1]);
    for (name, value) in &shown.tunables {
        let note = if shown.tuned.contains(name) { "set" } else { "default" };
        table.row([name.clone(), value.clone(), note.to_owned()]);
    }
    let wrong: String = shown.complaints.iter().map(|c| format!("wrong: {c}\n")).collect();
    format!("{}from {}\n{wrong}", table.render(), shown.tunables_file)
}

/// Ranges of one subnet that are written out.
const RANGES: usize = 8;

fn ranges(hosts: &Ranges) -> String {
    let all = hosts.ranges();
    let mut text: Vec<String> = all.iter().take(RANGES).map(Range::to_string).collect();
    if all.len() > RANGES {
        text.push(format!(
            "and {} more ranges ('vipctl list' lists all)",
            thousands((all.len() - RANGES) as u64)
        ));
    }
    text.join(" ")
}

fn enabled(value: Option<bool>) -> String {
    match value {
        Some(true) => "enable".to_owned(),
        Some(false) => "disable".to_owned(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = r#"{"status":{"tag":"ip-1","kind":"ip","address":"10.0.0.9/24","addresses":4,
        "span":"10.0.0.9-10.0.0.11/24 and 1 more ranges","accept":"anyip","accept_reason":"an operator's choice",
        "state":"ISP","owner":"a","epoch":4,
        "device":"eth0","nodes":[{"node":"a","priority":1,"state":"ISP","reason":null},
        {"node":"b","priority":10,"state":"OSF","reason":"no carrier"}],"packets":12},
        "resource":{"tag":"ip-1","id":1,"kind":{"kind":"ip","addresses":{"10.0.0.0/24":["10.0.0.9-10.0.0.11"],
        "fd00::/64":["fd00::1"]},"accept":"anyip","accept_by":"operator"},"switchback":"automatic",
        "on_conflict":"yield",
        "nodes":{"1":{"priority":1,"devices":["eth0"],"restore_and_recover":true,"physical":false,"source":true},
        "2":{"priority":10,"devices":["eth1","eth2"],"restore_and_recover":false,"physical":false,"source":false}}},
        "placement":{"desired":{"desired":"in-service","on":1},"grant":null,"epoch":4,"failed":{"2":"no carrier"},
        "deleting":false},"ping_lists":[],"tunables":[["IP_PINGTRIES","3"],["NOIPUNIQUE","1"]],
        "tuned":["NOIPUNIQUE"],"tunables_file":"/etc/default/vipd","complaints":["/etc/default/vipd:3: wrong"]}"#;

    #[test]
    fn all_facts_are_there() {
        let shown: Shown = serde_json::from_str(SHOWN).unwrap();
        let text = text(&shown);
        for fact in [
            "tag               ip-1",
            "addresses         4",
            "  in 10.0.0.0/24  10.0.0.9-10.0.0.11",
            "  in fd00::/64    fd00::1",
            "accept            anyip (an operator's choice)",
            "state             ISP on a",
            "wanted            in service on a",
            "switchback        automatic",
            "on-conflict       yield",
            "a            1  ISP    eth0       enable               enable   -",
            "b           10  OSF    eth1,eth2  disable              disable  no carrier",
            "no ping list",
            "IP_PINGTRIES      3  default",
            "NOIPUNIQUE        1  set",
            "from /etc/default/vipd\nwrong: /etc/default/vipd:3: wrong",
        ] {
            let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(plain(&text).contains(&plain(fact)), "{fact:?} is missing in\n{text}");
        }
        let json = serde_json::to_string(&Answer::Shown(Box::new(shown.clone()))).unwrap();
        assert_eq!(serde_json::from_str::<Answer>(&json).unwrap(), Answer::Shown(Box::new(shown)));
    }
}
