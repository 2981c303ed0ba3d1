//! The policy that docs/ec2.md tells operators to give the nodes' role: it is enough, and none of it is too much.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use vipd_tests::{
    cloud::{Outcome, Plan, role},
    lab::PATIENCE,
};

use super::{
    Test,
    eips::Elastic,
    refusals::statement,
    scene::{IP, ROUTE, Served, VIP, destination, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("policy::of_the_documents_is_enough_for_all_that_vipd_does", enough),
    ("policy::without_any_of_its_actions_creation_is_refused", each),
];

const DOCUMENT: &str = include_str!("../../../docs/ec2.md");

/// The statements of the document.
fn documented() -> Vec<Value> {
    let policy = DOCUMENT.split("```json").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let policy: Value = serde_json::from_str(policy).unwrap();
    policy["Statement"].as_array().unwrap().iter().cloned().map(as_moto_evaluates).collect()
}

/// moto asks a policy about the resource `*` whatever a call of EC2 is about, and so finds no statement that names
/// any. That the ARNs are of the right kinds is told from the document itself.
pub fn as_moto_evaluates(mut statement: Value) -> Value {
    statement["Resource"] = json!("*");
    statement
}

fn actions(statements: &[Value]) -> BTreeSet<String> {
    let all = statements.iter().flat_map(|s| s["Action"].as_array().unwrap());
    all.map(|a| a.as_str().unwrap().to_owned()).collect()
}

/// The documents' statements, and in none of them this action.
pub fn without(action: &str) -> Vec<Value> {
    let mut all = documented();
    assert!(actions(&all).contains(action), "{action} is not in the policy anyway");
    for statement in &mut all {
        statement["Action"].as_array_mut().unwrap().retain(|a| a != action);
    }
    all.retain(|s| !s["Action"].as_array().unwrap().is_empty());
    all
}

pub fn allowing(statements: &[Value]) -> String {
    json!({ "Version": "2012-10-17", "Statement": statements }).to_string()
}

/// What an action may be about, as EC2 defines it.
fn check_resources() -> Result<()> {
    let policy = DOCUMENT.split("```json").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let policy: Value = serde_json::from_str(policy)?;
    for statement in policy["Statement"].as_array().context("no statements")? {
        let actions = actions(std::slice::from_ref(statement));
        if actions.iter().all(|a| a.starts_with("ec2:Describe")) {
            ensure!(statement["Resource"] == "*", "{statement}");
            continue;
        }
        let kinds: BTreeSet<String> = statement["Resource"]
            .as_array()
            .context("no resources")?
            .iter()
            .map(|arn| {
                let parts: Vec<&str> = arn.as_str().unwrap_or_default().splitn(6, ':').collect();
                ensure!(parts.len() == 6 && parts[..3] == ["arn", "aws", "ec2"], "{arn}");
                Ok(parts[5].split('/').next().unwrap_or_default().to_owned())
            })
            .collect::<Result<_>>()?;
        let expected: &[&str] = match actions.contains("ec2:ReplaceRoute") {
            true => &["route-table"],
            false => &["elastic-ip", "network-interface"],
        };
        ensure!(kinds.iter().map(String::as_str).eq(expected.iter().copied()), "{statement}");
    }
    Ok(())
}

fn enough() -> Result<()> {
    check_resources()?;
    let prepare = |served: &Served| {
        let moto = &served.cloud().moto;
        (0..3).try_for_each(|host| moto.set_role_policy(&role(host), &allowing(&documented())))?;
        moto.enforce_policies(true)
    };
    let elastic = Elastic::with(&options(), prepare, &["--dev", "eth0"])?;
    let (served, lab, tag) = (&elastic.served, elastic.lab(), elastic.tag.as_str());
    let world = &served.instances.world;
    served.create_ip(&format!("{VIP}/32"))?;
    served.order(0, &["create", "ec2-route", "--ip", IP])?;
    let both = |host: usize| {
        lab.wait(PATIENCE, "both are there and well", || {
            served.check_routes(host)?;
            elastic.check_on(host)?;
            for tag in [ROUTE, tag] {
                lab.check_in_service(tag, host, host)?;
                let known = served.known(host, tag)?;
                ensure!(known.trouble.is_none() && known.answered_ms.is_some(), "{tag}: {known:?}");
            }
            Ok(())
        })
    };
    both(0)?;
    // Drift, an order, the owner's death, and away with them.
    elastic.steal(&world.stranger.eni)?;
    world.replace_route(&world.tables[0], &destination(), &world.stranger.eni)?;
    both(0)?;
    served.wait_event(0, "quickcheck.failed", "10.9.0.5")?;
    for tag in [ROUTE, tag] {
        served.order(0, &["in-service", tag, "--on", lab.host(1).name()])?;
    }
    both(1)?;
    lab.host(1).sigkill()?;
    both(0)?;
    for tag in [ROUTE, tag] {
        served.order(0, &["out-of-service", tag])?;
    }
    lab.wait(PATIENCE, "it is nowhere", || {
        ensure!(elastic.place()?.is_none());
        Ok(())
    })?;

    let calls = served.cloud().proxy.calls();
    let denied: Vec<_> = calls.iter().filter(|c| matches!(c.outcome, Outcome::Answered(401 | 403))).collect();
    ensure!(denied.is_empty(), "{denied:?}");
    // And none of it is too much: each was really called, and nothing else was.
    let called = calls.iter().filter(|c| !c.is_dry_run()).map(|c| format!("ec2:{}", c.action));
    let called: BTreeSet<String> = called.collect();
    ensure!(called == actions(&documented()), "{called:?}");
    elastic.served.check_others_untouched()
}

fn each() -> Result<()> {
    let served = Served::empty(&options(), &Plan::default())?;
    let (world, moto) = (&served.instances.world, &served.cloud().moto);
    served.create_ip(&format!("{VIP}/32"))?;
    let address = world.allocate_address()?.to_string();
    (0..3).try_for_each(|host| moto.set_role_policy(&role(host), &allowing(&documented())))?;
    moto.enforce_policies(true)?;
    let route = ["create", "ec2-route", "--ip", IP];
    let eip = ["create", "ec2-eip", "--eip", &address, "--dev", "eth0", "--extend-to", "all"];
    for (number, action) in actions(&documented()).iter().enumerate() {
        let host = number % 3;
        moto.set_role_policy(&role(host), &allowing(&without(action)))?;
        let orders: &[&[&str]] = match action.as_str() {
            "ec2:DescribeNetworkInterfaces" => &[&route, &eip],
            "ec2:DescribeRouteTables" | "ec2:ReplaceRoute" => &[&route],
            _ => &[&eip],
        };
        for order in orders {
            let said = served.refused(order)?;
            let line = [format!("on host{}: {action} is not permitted (UnauthorizedOperation)", host + 1)];
            said.check(&[&[&line[0]]]).with_context(|| action.clone())?;
            let remedy = statement(said.line(&[&line[0]])?)?;
            ensure!(remedy["Effect"] == "Allow" && remedy["Action"] == action.as_str(), "{remedy}");
        }
        moto.set_role_policy(&role(host), &allowing(&documented()))?;
    }
    let written = served.cloud().proxy.calls().into_iter().filter(|c| c.is_effective_write()).count();
    ensure!(written == 0, "{written} writes");
    // With all of them nothing is in the way.
    served.order(0, &route)?;
    served.order(0, &eip)?;
    served.check_routes(0)
}
