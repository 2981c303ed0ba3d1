//! What is declared -> text, which reads back as it was.

use std::{fmt::Display, time::Duration};

use crate::model::{
    Accept, Connectivity, Constraint, Declared, DeclaredCloud, DeclaredResource, Defaults, MonitoredSubnet,
    NodeId, NodeSettings, OnConflict, OrderKind, Policy, Score, Switchback, Tag, Threshold,
};

/// With the names of nodes.
pub fn write(declared: &Declared, name_of: &dyn Fn(NodeId) -> String) -> String {
    let mut out = Out { text: String::new(), name_of };
    if let Some(defaults) = &declared.defaults {
        out.defaults(defaults);
    }
    if let Some(Connectivity { hosts, interval, fall, rise }) = &declared.connectivity {
        out.section("[connectivity]");
        out.pair("hosts", list(hosts));
        out.pace(*interval, *fall, *rise);
    }
    for (net, MonitoredSubnet { targets, interval, fall, rise }) in &declared.subnets {
        out.section("[[subnet]]");
        out.pair("subnet", quoted(net));
        out.pair("targets", list(targets));
        out.pace(*interval, *fall, *rise);
    }
    for ((node, net), addresses) in &declared.ping_lists {
        out.section("[[ping-list]]");
        out.pair("node", quoted(name_of(*node)));
        out.pair("subnet", quoted(net));
        out.pair("addresses", list(addresses));
    }
    for (tag, resource) in &declared.resources {
        out.resource(tag, resource);
    }
    for (id, constraint) in &declared.constraints {
        out.section("[[constraint]]");
        out.pair("id", quoted(id));
        out.constraint(constraint);
    }
    out.text
}

struct Out<'a> {
    text: String,
    name_of: &'a dyn Fn(NodeId) -> String,
}

impl Out<'_> {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn section(&mut self, name: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.line(name);
    }

    fn pair(&mut self, key: &str, value: impl Display) {
        self.line(&format!("{key} = {value}"));
    }

    fn pace(&mut self, interval: Duration, fall: u16, rise: u16) {
        self.pair("interval", seconds(interval));
        self.pair("fall", fall);
        self.pair("rise", rise);
    }

    fn defaults(&mut self, defaults: &Defaults) {
        let Defaults { stickiness, migration_threshold, failure_timeout, maintenance, two_nodes } = defaults;
        self.section("[defaults]");
        self.pair("stickiness", score(*stickiness));
        self.pair("migration-threshold", threshold(*migration_threshold));
        self.pair("failure-timeout", seconds(*failure_timeout));
        self.pair("maintenance", maintenance);
        self.pair("two-nodes", quoted(two_nodes.name()));
    }

    fn resource(&mut self, tag: &Tag, r: &DeclaredResource) {
        self.section("[[resource]]");
        self.pair("tag", quoted(tag));
        self.kind(r);
        if let Some(on) = r.in_service {
            self.pair("state", quoted(if on { "in-service" } else { "out-of-service" }));
        }
        match r.accept {
            Some(Accept::Assign) => self.pair("accept", quoted("assign")),
            Some(Accept::Route) => self.pair("accept", quoted("route")),
            Some(Accept::Anyip) => self.pair("accept", quoted("anyip")),
            None => {}
        }
        let switchback = match r.switchback {
            Switchback::Intelligent => "intelligent",
            Switchback::Automatic => "automatic",
        };
        self.pair("switchback", quoted(switchback));
        match r.on_conflict {
            OnConflict::Report => self.pair("on-conflict", quoted("report")),
            OnConflict::Yield => self.pair("on-conflict", quoted("yield")),
            OnConflict::Defend => {}
        }
        if !r.monitored.is_empty() {
            self.pair("subnets", list(&r.monitored));
        }
        if let Some(depends) = &r.depends {
            self.pair("depends", list(depends));
        }
        self.policy(&r.policy);
        self.line("[resource.nodes]");
        let mut nodes: Vec<_> = r.nodes.iter().collect();
        nodes.sort_by_key(|(_, s)| s.priority);
        for (id, settings) in nodes {
            let name = key((self.name_of)(*id));
            // A route has none of its own.
            let devices = r.followed().is_none();
            self.line(&format!("{name} = {}", node(settings, devices)));
        }
    }

    fn kind(&mut self, r: &DeclaredResource) {
        let Some(cloud) = &r.cloud else {
            let parts = r.addresses.by_subnet().flat_map(|(net, hosts)| {
                let length = net.prefix_len();
                hosts.ranges().iter().map(move |range| format!("{range}/{length}"))
            });
            self.pair("addresses", list(parts));
            return;
        };
        self.pair("kind", quoted(cloud.kind().name()));
        match cloud {
            DeclaredCloud::Route(route) => self.pair("ip", quoted(&route.ip)),
            DeclaredCloud::Eip(eip) => self.pair("eip", quoted(eip.address)),
        }
        if let Some(region) = cloud.cloud().region() {
            self.pair("region", quoted(region));
        }
    }

    fn policy(&mut self, policy: &Policy) {
        let Policy {
            stickiness,
            migration_threshold,
            failure_timeout,
            service_failfast,
            node_failfast,
            maintenance,
            ignores_connectivity,
        } = policy;
        if let Some(stickiness) = stickiness {
            self.pair("stickiness", score(*stickiness));
        }
        if let Some(limit) = migration_threshold {
            self.pair("migration-threshold", threshold(*limit));
        }
        if let Some(timeout) = failure_timeout {
            self.pair("failure-timeout", seconds(*timeout));
        }
        let failfast: Vec<&str> = [(service_failfast, "service"), (node_failfast, "node")]
            .into_iter()
            .filter(|(on, _)| **on)
            .map(|(_, word)| word)
            .collect();
        if !failfast.is_empty() {
            self.pair("failfast", list(failfast));
        }
        if *maintenance {
            self.pair("maintenance", true);
        }
        if *ignores_connectivity {
            self.pair("connectivity", quoted("ignore"));
        }
    }

    fn constraint(&mut self, constraint: &Constraint) {
        match constraint {
            Constraint::Location { tag, node, score: likes } => {
                self.pair("kind", quoted("location"));
                self.pair("resource", quoted(tag));
                self.pair("node", quoted((self.name_of)(*node)));
                self.pair("score", score(*likes));
            }
            Constraint::Colocation { tag, with, score: likes } => {
                self.pair("kind", quoted("colocation"));
                self.pair("resource", quoted(tag));
                self.pair("with", quoted(with));
                self.pair("score", score(*likes));
            }
            Constraint::Order { first, then, kind } => {
                self.pair("kind", quoted("order"));
                self.pair("first", quoted(first));
                self.pair("then", quoted(then));
                match kind {
                    OrderKind::Mandatory => {}
                    OrderKind::Optional => self.pair("optional", true),
                }
            }
            Constraint::Group { members } => {
                self.pair("kind", quoted("group"));
                self.pair("members", list(members));
            }
            Constraint::Clone { members, per_node } => {
                self.pair("kind", quoted("clone"));
                self.pair("members", list(members));
                self.pair("per-node", per_node);
            }
        }
    }
}

fn node(settings: &NodeSettings, with_devices: bool) -> String {
    let NodeSettings { priority, devices, restore_and_recover, physical, source } = settings;
    let mut text = format!("{{ priority = {priority}");
    if with_devices {
        text.push_str(&format!(", devices = {}", list(devices)));
    }
    if !restore_and_recover {
        text.push_str(", restore-and-recover = false");
    }
    for (on, name) in [(physical, "physical"), (source, "source")] {
        if *on {
            text.push_str(&format!(", {name} = true"));
        }
    }
    text + " }"
}

fn score(score: Score) -> String {
    if score.forbids() || score.demands() { quoted(score) } else { score.to_string() }
}

fn threshold(threshold: Threshold) -> String {
    match threshold {
        Threshold::Unlimited => quoted("unlimited"),
        Threshold::Failures(n) => n.to_string(),
    }
}

fn seconds(time: Duration) -> String {
    let nanos = format!("{:09}", time.subsec_nanos());
    match nanos.trim_end_matches('0') {
        "" => time.as_secs().to_string(),
        fraction => format!("{}.{fraction}", time.as_secs()),
    }
}

fn quoted(text: impl Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn key(name: String) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(bare) { name } else { quoted(name) }
}

fn list<T: Display>(all: impl IntoIterator<Item = T>) -> String {
    let all: Vec<String> = all.into_iter().map(quoted).collect();
    format!("[{}]", all.join(", "))
}
