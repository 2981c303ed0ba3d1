//! `vipctl show`.

use clap::Args;

use super::{Session, output, ping_list, session::unexpected, table::Table};
use crate::{
    api::{Answer, ApiError, Request, Shown},
    model::{Desired, Switchback, Tag},
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
    line("address", status.address.to_string());
    let on = status.owner.as_ref().map_or_else(String::new, |o| format!(" on {o}"));
    line("state", format!("{}{on}", status.state));
    line("device", status.device.clone().unwrap_or_default());
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
    let subnets: Vec<String> = resource.monitored.iter().map(ToString::to_string).collect();
    line("subnets", subnets.join(" "));
    line("packets", status.packets.map(|p| p.to_string()).unwrap_or_default());

    let mut nodes =
        Table::new(["NODE", "PRIORITY", "STATE", "DEVICES", "RESTORE-AND-RECOVER", "NOTE"]).right([1]);
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
            match settings.map(|s| s.restore_and_recover) {
                Some(true) => "enable".to_owned(),
                Some(false) => "disable".to_owned(),
                None => String::new(),
            },
            note,
        ]);
    }
    let mut tunables = Table::new(["TUNABLE", "VALUE"]).right([1]);
    for (name, value) in &shown.tunables {
        tunables.row([name.clone(), value.clone()]);
    }
    let lists = ping_list::text(&shown.ping_lists);
    format!("{}\n{}\n{lists}\n{}", head.render(), nodes.render(), tunables.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_facts_are_there() {
        let shown: Shown = serde_json::from_str(
            r#"{"status":{"tag":"ip-1","kind":"ip","address":"10.0.0.9/24","state":"ISP","owner":"a","epoch":4,
                "device":"eth0","nodes":[{"node":"a","priority":1,"state":"ISP","reason":null},
                {"node":"b","priority":10,"state":"OSF","reason":"no carrier"}],"packets":12},
                "resource":{"tag":"ip-1","kind":{"kind":"ip","address":"10.0.0.9/24"},"switchback":"automatic",
                "nodes":{"1":{"priority":1,"devices":["eth0"],"restore_and_recover":true,"physical":false},
                "2":{"priority":10,"devices":["eth1","eth2"],"restore_and_recover":false,"physical":false}}},
                "placement":{"desired":{"desired":"in-service","on":1},"grant":null,"epoch":4,"failed":{"2":"no carrier"},
                "deleting":false},"ping_lists":[],"tunables":[["IP_PINGTRIES","3"]]}"#,
        )
        .unwrap();
        let text = text(&shown);
        for fact in [
            "tag         ip-1",
            "state       ISP on a",
            "wanted      in service on a",
            "switchback  automatic",
            "a            1  ISP    eth0       enable               -",
            "b           10  OSF    eth1,eth2  disable              no carrier",
            "no ping list",
            "IP_PINGTRIES      3",
        ] {
            assert!(text.contains(fact), "{fact:?} is missing in\n{text}");
        }
        let json = serde_json::to_string(&Answer::Shown(Box::new(shown.clone()))).unwrap();
        assert_eq!(serde_json::from_str::<Answer>(&json).unwrap(), Answer::Shown(Box::new(shown)));
    }
}
