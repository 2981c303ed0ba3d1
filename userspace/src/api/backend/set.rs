//! `set`: settings of a resource, as a whole or on one node.

use ipnet::IpNet;

use super::{Context, Result, lookup, policy};
use crate::{
    api::{Answer, ApiError, thousands},
    core::{
        accept::is_quick,
        change::{Change, Setting},
    },
    model::{Accept, AcceptBy, NodeId, OnConflict, Resource, Switchback, Tag},
};

impl Context {
    pub(super) async fn set(
        &self,
        tag: &Tag,
        node: Option<&str>,
        settings: &[(String, String)],
    ) -> Result<Answer> {
        let member = self.member()?;
        if settings.is_empty() {
            return Err(ApiError::usage(format!("nothing to set: {KNOWN}")));
        }
        let settings = settings.iter().map(|(k, v)| parse(k, v)).collect::<Result<Vec<_>>>()?;
        let state = member.fresh().await?;
        let resource = lookup::resource(&state, tag)?;
        let node = node.map(|name| lookup::holder(&state, name)).transpose()?;
        if let Some(node) = node
            && !resource.nodes.contains_key(&node.id)
        {
            return Err(ApiError::refused(format!(
                "'{tag}' is not extended to node '{0}': 'vipctl extend {tag} --to {0}' first",
                node.name
            )));
        }
        let id = node.map(|n| n.id);
        if resource.cloud().is_some() {
            // What means nothing there is refused before any interface is looked at.
            let on = |s: &Setting| if of_the_whole(s) { None } else { id };
            let change = |s: &Setting| Change::Set { tag: tag.clone(), node: on(s), setting: s.clone() };
            lookup::tried(&state, &settings.iter().map(change).collect::<Vec<_>>())?;
        }
        for setting in &settings {
            self.check_devices(setting, tag, id, member.id).await?;
        }
        for setting in &settings {
            self.check_accept(setting, resource, member.id).await?;
        }
        // What belongs to the resource may be set together with a node's settings.
        let (whole, own): (Vec<Setting>, Vec<Setting>) = settings.into_iter().partition(of_the_whole);
        let on = node.map_or_else(String::new, |n| format!(" on {}", n.name));
        let said = match (&whole[..], &own[..]) {
            ([], _) => format!("{tag} is set{on}"),
            (_, []) if node.is_none() => format!("{tag} is set"),
            (whole, []) => format!("{tag} is set on all of its nodes: {} as a whole", belong(whole)),
            (whole, _) if node.is_some() => {
                format!(
                    "{tag} is set{on}, but on all of its nodes where a setting belongs to it as a whole: {}",
                    names(whole)
                )
            }
            _ => format!("{tag} is set"),
        };
        let when = match whole.iter().find(|s| matches!(s, Setting::Accept(_))) {
            None => String::new(),
            Some(Setting::Accept(Accept::Assign)) if !is_quick(resource.addresses()) => format!(
                "; accept takes effect at the next bring-up, and then the kernel needs long for {} addresses: 'vipctl \
                 set {tag} accept=anyip' spares it",
                thousands(resource.addresses().count())
            ),
            Some(_) => "; accept takes effect at the next bring-up".to_owned(),
        };
        let whole = whole.into_iter().map(|s| (None, s));
        let all = whole.chain(own.into_iter().map(|s| (id, s)));
        let changes = all.map(|(node, setting)| Change::Set { tag: tag.clone(), node, setting });
        member.propose(changes.collect()).await?;
        Ok(Answer::done(format!("{said}{when}; 'vipctl show {tag}' shows it")))
    }

    /// IPv6 addresses that are not assigned need XDP: where this node has none it can be said now.
    async fn check_accept(&self, setting: &Setting, resource: &Resource, me: NodeId) -> Result<()> {
        let (Setting::Accept(accept), Some(here)) = (setting, resource.nodes.get(&me)) else { return Ok(()) };
        if self.config.witness {
            return Ok(());
        }
        let (links, _) = self.look().await?;
        let used: Vec<_> = links.iter().filter(|l| here.devices.contains(&l.name)).collect();
        self.check_xdp(*accept, AcceptBy::Operator, resource.addresses(), &used)
    }

    /// Only this node's interfaces can be looked at here; others find out when they start it.
    async fn check_devices(
        &self,
        setting: &Setting,
        tag: &Tag,
        on: Option<NodeId>,
        me: NodeId,
    ) -> Result<()> {
        let Setting::Devices(devices) = setting else { return Ok(()) };
        if on.is_some_and(|n| n != me) || self.config.witness {
            return Ok(());
        }
        let (links, _) = self.look().await?;
        match devices.iter().find(|d| !links.iter().any(|l| l.name == **d)) {
            Some(missing) if on.is_some() => Err(ApiError::refused(format!(
                "there is no interface '{missing}' on this host: 'vipctl interfaces' lists them"
            ))),
            Some(missing) => Err(ApiError::refused(format!(
                "there is no interface '{missing}' on this host: name the node it is on, 'vipctl set {tag} \
                 devices={missing} --node NODE'"
            ))),
            None => Ok(()),
        }
    }
}

/// A setting that has one value on all nodes.
fn of_the_whole(setting: &Setting) -> bool {
    match setting {
        Setting::Switchback(_)
        | Setting::OnConflict(_)
        | Setting::Accept(_)
        | Setting::Subnets(_)
        | Setting::Stickiness(_)
        | Setting::MigrationThreshold(_)
        | Setting::FailureTimeout(_)
        | Setting::ServiceFailfast(_)
        | Setting::NodeFailfast(_)
        | Setting::Maintenance(_)
        | Setting::IgnoresConnectivity(_) => true,
        Setting::Priority(_) | Setting::Devices(_) | Setting::RestoreAndRecover(_) | Setting::Source(_) => {
            false
        }
    }
}

fn names(settings: &[Setting]) -> String {
    let name = |s: &Setting| match s {
        Setting::Switchback(_) => "switchback",
        Setting::OnConflict(_) => "on-conflict",
        Setting::Accept(_) => "accept",
        Setting::Subnets(_) => "subnets",
        Setting::Stickiness(_) => "stickiness",
        Setting::MigrationThreshold(_) => "migration-threshold",
        Setting::FailureTimeout(_) => "failure-timeout",
        Setting::ServiceFailfast(_) => "service-failfast",
        Setting::NodeFailfast(_) => "node-failfast",
        Setting::Maintenance(_) => "maintenance",
        Setting::IgnoresConnectivity(_) => "connectivity",
        Setting::Priority(_) | Setting::Devices(_) | Setting::RestoreAndRecover(_) | Setting::Source(_) => {
            "others"
        }
    };
    settings.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn belong(settings: &[Setting]) -> String {
    let verb = if settings.len() == 1 { "belongs to it" } else { "belong to it" };
    format!("{} {verb}", names(settings))
}

const KNOWN: &str = "known are switchback=intelligent|automatic, on-conflict=report|defend|yield, \
                     accept=assign|route|anyip, subnets=SUBNET/LEN[,SUBNET/LEN]..., stickiness=SCORE, \
                     migration-threshold=N|unlimited, restarts=N|unlimited, failure-timeout=SECONDS, \
                     service-failfast=on|off, node-failfast=on|off, maintenance=on|off and \
                     connectivity=use|ignore of the resource as a whole; \
                     priority=1..999, devices=IF[,IF]..., source=enable|disable and \
                     restore-and-recover=enable|disable of a node";

fn parse(key: &str, value: &str) -> Result<Setting> {
    let wrong = |wanted: &str| Err(ApiError::usage(format!("{key}={value} is not valid: use {wanted}")));
    match key {
        "switchback" => match value {
            "intelligent" => Ok(Setting::Switchback(Switchback::Intelligent)),
            "automatic" => Ok(Setting::Switchback(Switchback::Automatic)),
            _ => wrong("intelligent or automatic"),
        },
        "priority" => match value.parse::<u16>() {
            Ok(priority @ 1..=999) => Ok(Setting::Priority(priority)),
            Ok(_) | Err(_) => wrong("a whole number from 1 (best) to 999"),
        },
        "devices" => {
            let devices: Vec<String> = value.split(',').map(|d| d.trim().to_owned()).collect();
            let distinct = devices.iter().enumerate().all(|(i, d)| !devices[..i].contains(d));
            if devices.iter().any(String::is_empty) || !distinct {
                return wrong("interface names, each once, with commas between");
            }
            Ok(Setting::Devices(devices))
        }
        "restore-and-recover" => match value {
            "enable" => Ok(Setting::RestoreAndRecover(true)),
            "disable" => Ok(Setting::RestoreAndRecover(false)),
            _ => wrong("enable or disable"),
        },
        "source" => match value {
            "enable" => Ok(Setting::Source(true)),
            "disable" => Ok(Setting::Source(false)),
            _ => wrong("enable or disable"),
        },
        "on-conflict" => match value {
            "report" => Ok(Setting::OnConflict(OnConflict::Report)),
            "defend" => Ok(Setting::OnConflict(OnConflict::Defend)),
            "yield" => Ok(Setting::OnConflict(OnConflict::Yield)),
            _ => wrong("report, defend or yield"),
        },
        "accept" => match value {
            "assign" => Ok(Setting::Accept(Accept::Assign)),
            "route" => Ok(Setting::Accept(Accept::Route)),
            "anyip" => Ok(Setting::Accept(Accept::Anyip)),
            _ => wrong("assign, route or anyip"),
        },
        "subnets" => {
            let subnet = |s: &str| s.trim().parse::<IpNet>().map(|n| n.trunc()).ok();
            let named = value.split(',').filter(|s| !s.trim().is_empty()).map(subnet);
            match named.collect::<Option<Vec<_>>>() {
                Some(subnets) => Ok(Setting::Subnets(subnets)),
                None => wrong(
                    "monitored subnets with commas between, as 10.1.0.0/24,fd00::/64, or nothing for none",
                ),
            }
        }
        _ => match policy::parse(key, value) {
            Some(setting) => setting,
            None => Err(ApiError::usage(format!("there is no setting '{key}': {KNOWN}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_their_mistakes() {
        assert_eq!(parse("priority", "7"), Ok(Setting::Priority(7)));
        assert_eq!(parse("devices", "eth0, eth1"), Ok(Setting::Devices(vec!["eth0".into(), "eth1".into()])));
        assert_eq!(parse("restore-and-recover", "disable"), Ok(Setting::RestoreAndRecover(false)));
        assert_eq!(parse("switchback", "automatic"), Ok(Setting::Switchback(Switchback::Automatic)));
        assert_eq!(parse("source", "enable"), Ok(Setting::Source(true)));
        assert_eq!(parse("on-conflict", "yield"), Ok(Setting::OnConflict(OnConflict::Yield)));
        assert_eq!(parse("accept", "anyip"), Ok(Setting::Accept(Accept::Anyip)));
        let both = vec!["10.1.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
        assert_eq!(parse("subnets", "10.1.0.9/24, fd00::/64"), Ok(Setting::Subnets(both)));
        assert_eq!(parse("subnets", ""), Ok(Setting::Subnets(vec![])));
        for (key, value) in [
            ("priority", "0"),
            ("priority", "1000"),
            ("devices", ""),
            ("devices", "a,,b"),
            ("devices", "a,a"),
            ("switchback", "auto"),
            ("subnets", "10.1.0.0"),
            ("subnets", "10.1.0.0/33"),
            ("restore-and-recover", "1"),
            ("source", "yes"),
            ("on-conflict", "fight"),
            ("accept", "kernel"),
            ("colour", "red"),
        ] {
            assert!(parse(key, value).is_err(), "{key}={value}");
        }
    }
}
