//! What an operator orders about hierarchies, nodes and constraints, through the real daemon.

use anyhow::{Result, ensure};
use serde_json::Value;
use vipd_tests::lab::{Lab, NewIp, PATIENCE};

use crate::{
    Test,
    operator::{explained, json, refused},
    scene::options,
};

pub const TESTS: &[(&str, Test)] = &[
    ("verbs::a_hierarchy_is_made_changed_and_deleted_and_refusals_change_nothing", hierarchy),
    ("verbs::standby_drains_and_online_brings_back", standby),
    ("verbs::a_choice_ends_by_itself_and_by_clear", choices),
    ("verbs::constraints_decide_where_things_are", constraints),
    ("verbs::in_maintenance_nothing_is_ordered", maintenance),
];

const IP: &str = "ip";
const WEB: &str = "web";

/// `ip` and `web` on the first host and extended to the others, whatever depends on what.
fn pair() -> Result<Lab> {
    let lab = Lab::new(&options())?;
    lab.form_cluster()?;
    for (tag, address) in [(IP, "10.77.0.51/24"), (WEB, "10.77.0.52/24")] {
        lab.create_ip(&NewIp { address, tag, on: 0, extend_to: &[1, 2] })?;
    }
    Ok(lab)
}

fn order(lab: &Lab, arguments: &[&str]) -> Result<String> {
    Ok(lab.host(0).vipctl(arguments)?.done()?.stdout)
}

/// What is replicated of both.
fn replicated(lab: &Lab) -> Result<Vec<Value>> {
    let one = |tag| -> Result<[Value; 2]> {
        let shown = json(lab.host(0), &["show", tag])?;
        Ok([shown["resource"].clone(), shown["placement"].clone()])
    };
    Ok([one(IP)?, one(WEB)?].concat())
}

fn unchanged(lab: &Lab, arguments: &[&str], reason: &str) -> Result<()> {
    let before = replicated(lab)?;
    refused(lab.host(0), arguments, 4, reason)?;
    let after = replicated(lab)?;
    ensure!(before == after, "vipctl {arguments:?} was refused and changed {before:?} to {after:?}");
    Ok(())
}

fn wait_both(lab: &Lab, on: usize) -> Result<()> {
    [IP, WEB].into_iter().try_for_each(|tag| lab.wait_in_service(tag, on))
}

fn hierarchy() -> Result<()> {
    let lab = pair()?;
    explained(&lab, || {
        order(&lab, &["depend", WEB, IP])?;
        unchanged(&lab, &["depend", IP, WEB], "neither could start")?;
        unchanged(&lab, &["undepend", IP, WEB], "does not depend directly")?;
        unchanged(&lab, &["unextend", WEB, "--from", "host1"], "in service on node 'host1'")?;
        unchanged(&lab, &["delete", IP], "'vipctl undepend web ip'")?;
        unchanged(&lab, &["extend", WEB, "--to", "host2"], "already")?;

        // One order moves both.
        order(&lab, &["in-service", IP, "--on", "host2"])?;
        wait_both(&lab, 1)?;
        let page = order(&lab, &["status"])?;
        ensure!(page.contains("\nweb        ISP    host2\n  ip       ISP    host2\n"), "no tree in\n{page}");

        let said = order(&lab, &["unextend", IP, "--from", "host3"])?;
        ensure!(said.contains("so are not web"), "{said}");
        for tag in [IP, WEB] {
            let nodes = lab.resource(0, tag)?.nodes;
            ensure!(nodes.iter().all(|n| n.node != "host3"), "{tag} is still on host3: {nodes:?}");
        }
        let said = order(&lab, &["extend", IP, "--to", "host3"])?;
        ensure!(said.contains("so are web"), "{said}");

        let said = order(&lab, &["out-of-service", IP])?;
        ensure!(said.contains("web"), "{said}");
        ensure!(lab.resource(0, WEB)?.owner.is_none(), "web is still in service");
        order(&lab, &["in-service", WEB])?;
        ensure!(lab.resource(0, IP)?.state == "ISP", "what web depends on was not started");

        order(&lab, &["delete", IP, "--hierarchy"])?;
        lab.wait(PATIENCE, "both are gone", || {
            ensure!(lab.host(0).status()?.resources.is_empty(), "something is left");
            Ok(())
        })
    })
}

fn standby() -> Result<()> {
    let lab = pair()?;
    explained(&lab, || {
        order(&lab, &["depend", WEB, IP])?;
        order(&lab, &["set", WEB, "switchback=automatic"])?;
        // Creating it there was a choice, which would keep it there.
        order(&lab, &["clear", WEB])?;
        let said = order(&lab, &["node", "standby", "host1"])?;
        ensure!(said.contains("holds nothing"), "{said}");
        let there = lab.resource(0, WEB)?.owner;
        ensure!(there.as_deref() != Some("host1"), "it waited for nothing: {there:?}");
        wait_both(&lab, 1)?;
        refused(lab.host(0), &["in-service", WEB, "--on", "host1"], 4, "'vipctl node online host1'")?;
        let warnings = lab.host(0).status()?.warnings.join("\n");
        ensure!(warnings.contains("'vipctl node online host1'"), "{warnings}");
        order(&lab, &["node", "online", "host1"])?;
        wait_both(&lab, 0)
    })
}

fn choices() -> Result<()> {
    let lab = pair()?;
    explained(&lab, || {
        order(&lab, &["depend", WEB, IP])?;
        order(&lab, &["set", WEB, "switchback=automatic"])?;
        order(&lab, &["in-service", WEB, "--on", "host2", "--for", "8"])?;
        lab.check_in_service(WEB, 1, 0)?;
        let ends = lab.resource(0, WEB)?.choice.and_then(|c| c.ends);
        ensure!(ends.is_some(), "the choice has no end");
        wait_both(&lab, 0)?;

        order(&lab, &["in-service", WEB, "--on", "host3"])?;
        wait_both(&lab, 2)?;
        order(&lab, &["clear", IP])?;
        wait_both(&lab, 0)?;
        let said = order(&lab, &["cleanup", WEB, "--node", "host2"])?;
        ensure!(said.contains("forgotten"), "{said}");
        unchanged(&lab, &["cleanup", WEB, "--node", "host9"], "host9")
    })
}

fn constraints() -> Result<()> {
    let lab = pair()?;
    explained(&lab, || {
        let apart = ["constraint", "add", "colocation", WEB, IP, "-INFINITY", "--id", "apart"];
        order(&lab, &apart)?;
        lab.wait(PATIENCE, "web goes where ip is not", || {
            let web = lab.resource(0, WEB)?;
            ensure!(web.state == "ISP" && web.owner.as_deref() != Some("host1"), "{web:?}");
            Ok(())
        })?;
        lab.check_in_service(IP, 0, 0)?;
        refused(lab.host(0), &apart, 4, "apart")?;
        order(&lab, &["constraint", "remove", "apart"])?;

        order(&lab, &["constraint", "add", "colocation", WEB, IP, "INFINITY"])?;
        wait_both(&lab, 0)?;
        order(&lab, &["constraint", "add", "location", IP, "host1", "-INFINITY"])?;
        wait_both(&lab, 1)?;
        order(&lab, &["constraint", "remove", "colocation-web-ip"])?;

        order(&lab, &["constraint", "add", "order", IP, WEB])?;
        order(&lab, &["out-of-service", IP])?;
        lab.wait(PATIENCE, "web is stopped with what it is ordered after", || {
            ensure!(lab.resource(0, WEB)?.owner.is_none(), "it is not");
            Ok(())
        })?;
        order(&lab, &["in-service", IP])?;
        lab.wait(PATIENCE, "web follows", || {
            let web = lab.resource(0, WEB)?;
            ensure!(web.state == "ISP", "{web:?}");
            Ok(())
        })?;
        order(&lab, &["constraint", "remove", "order-ip-web"])?;
        // Both would be on the second host now; a clone has one instance on a node.
        order(&lab, &["constraint", "add", "location", WEB, "host1", "-INFINITY"])?;
        wait_both(&lab, 1)?;
        order(&lab, &["constraint", "add", "clone", IP, WEB])?;
        order(&lab, &["out-of-service", WEB])?;
        order(&lab, &["in-service", WEB])?;
        lab.check_in_service(IP, 1, 0)?;
        lab.check_in_service(WEB, 2, 0)?;
        let left = json(lab.host(0), &["constraint", "list"])?;
        ensure!(left.as_array().is_some_and(|all| all.len() == 3), "{left}");
        Ok(())
    })
}

fn maintenance() -> Result<()> {
    let lab = pair()?;
    explained(&lab, || {
        order(&lab, &["depend", WEB, IP])?;
        order(&lab, &["set", IP, "maintenance=on"])?;
        unchanged(&lab, &["in-service", WEB, "--on", "host2"], "'vipctl set web maintenance=off'")?;
        unchanged(&lab, &["out-of-service", IP], "'vipctl set ip maintenance=off'")?;
        order(&lab, &["set", WEB, "maintenance=off"])?;
        order(&lab, &["node", "maintenance", "host1", "on"])?;
        unchanged(&lab, &["out-of-service", WEB], "'vipctl node maintenance host1 off'")?;
        order(&lab, &["node", "maintenance", "host1", "off"])?;
        order(&lab, &["cluster", "set", "maintenance=on"])?;
        unchanged(&lab, &["in-service", WEB], "'vipctl cluster set maintenance=off'")?;
        order(&lab, &["cluster", "set", "maintenance=off"])?;
        order(&lab, &["in-service", WEB, "--on", "host2"])?;
        wait_both(&lab, 1)
    })
}
