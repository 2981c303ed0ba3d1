//! What is checked before a resource of EC2 is created (rows EC2-5, EC2-8).

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vipd_tests::{
    cloud::{Cloud, Fault, Plan, When, role},
    lab::{Options, PATIENCE},
};

use super::{
    Test,
    eips::{plug_second, two_interfaces},
    policy::{allowing, as_moto_evaluates, without},
    refusals::{commands, statement},
    scene::{IP, ROUTE, Served, VIP, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("creation::of_routes_lists_all_that_is_wrong_on_all_nodes", routes_all),
    ("creation::of_an_elastic_ip_lists_all_that_is_wrong_on_all_nodes", eip_all),
    ("creation::of_routes_succeeds_after_the_printed_remedies", routes_remedied),
    ("creation::of_an_elastic_ip_succeeds_after_the_printed_remedies", eip_remedied),
    ("creation::goes_on_by_force_where_nobody_can_be_asked", force),
    ("creation::in_another_region_is_refused", region),
    ("creation::takes_only_ipv4_resources_that_are_in_service", offered),
    ("creation::names_exit_codes_and_documents", contract),
];

/// 203.0.113.77, which nobody has.
const NOBODYS: &str = "203.0.113.77";

fn routes_all() -> Result<()> {
    let served = Served::empty(&options(), &Plan::default())?;
    let (world, cloud) = (&served.instances.world, served.cloud());
    served.create_ip("10.77.0.60/24")?;
    world.set_source_dest_check(&world.nodes[0], true)?;
    cloud.moto.set_role_policy(&role(1), &allowing(&without("ec2:ReplaceRoute")))?;
    cloud.moto.enforce_policies(true)?;
    served.instances.imds[2].set_silent(true);

    let order = ["create", "ec2-route", "--ip", IP];
    let within = "10.77.0.60 is within 10.77.0.0/16 of the VPC";
    let missing = "has an entry for 10.77.0.60, and vipd makes none";
    let off = format!(
        "'aws ec2 modify-network-interface-attribute --network-interface-id {} --no-source-dest-check --region eu-central-1'",
        world.nodes[0].eni
    );
    let right = "ec2:ReplaceRoute is not permitted";
    let mut expected: Vec<Vec<&str>> = vec![
        vec!["ec2-web on host1: the source/dest check of eth0", &off],
        vec!["ec2-web on host1: ", within, "use addresses that are in no block"],
        vec!["ec2-web on host1: ", missing, "aws ec2 create-route"],
        vec!["ec2-web on host2: ", within],
        vec!["ec2-web on host2: ", missing, "--destination-cidr-block 10.77.0.60/32", &world.nodes[1].eni],
        vec!["ec2-web on host2: ", right, r#"{"Effect":"Allow","Action":"ec2:ReplaceRoute","Resource":"#],
    ];
    let known = expected.len();
    let silent =
        vec!["ec2-web on host3: ", "this host's identity was not answered", "169.254.169.254", "--force"];
    expected.push(silent);
    let expected: Vec<&[&str]> = expected.iter().map(Vec::as_slice).collect();
    served.refused(&order)?.check(&expected)?;
    // Against what is known there is no force.
    served.refused(&[&order[..], &["--force"]].concat())?.check(&expected[..known])?;

    // Once the reason is gone, so is the objection.
    served.instances.imds[2].set_silent(false);
    world.set_source_dest_check(&world.nodes[0], false)?;
    cloud.moto.set_role_policy(&role(1), &allowing(&without("ec2:DescribeRouteTables")))?;
    served.refused(&order)?.check(&[
        &["host1: ", within],
        &["host1: ", missing],
        &["host2: ", within],
        &["host2: ", "ec2:DescribeRouteTables is not permitted", r#""Resource":"*"}"#],
        &["host3: ", within],
        &["host3: ", missing],
    ])?;
    served.check_others_but(&[])
}

fn eip_all() -> Result<()> {
    let served = Served::empty(&two_interfaces(), &Plan::default())?;
    let (lab, cloud) = (served.lab(), served.cloud());
    plug_second(&served)?;
    lab.segment.host(0).ip("link set eth2 down")?;
    let mac = lab.segment.standby_mac(1).to_string();
    served.instances.imds[1].change(|identity| {
        identity.interfaces.remove(&mac);
    });
    cloud.moto.set_role_policy(&role(2), &allowing(&without("ec2:DisassociateAddress")))?;
    cloud.moto.enforce_policies(true)?;
    let create = ["create", "ec2-eip", "--eip", NOBODYS, "--extend-to", "all", "--dev"];
    let none = "this account has no Elastic IP 203.0.113.77 in the region";
    let attach = format!("--instance-id {}", served.instances.world.nodes[1].instance);
    let lists = "'aws ec2 describe-addresses --region eu-central-1'";
    served.refused(&[&create[..], &["eth2"]].concat())?.check(&[
        &["ec2-203.0.113.77 on host1: eth2 has no link", "'ip link set eth2 up'"],
        &["host1: ", none, lists, "aws ec2 allocate-address"],
        &["host2: ", "eth2 is no network interface of EC2 that is attached", &attach],
        &["host2: ", none],
        &["host3: ", none],
        &["host3: ", "ec2:DisassociateAddress is not permitted", "elastic-ip/", "network-interface/"],
    ])?;
    served.refused(&[&create[..], &["eth7"]].concat())?.check(&[
        &["host1: ", "there is no interface 'eth7' on this node", "vipctl interfaces"],
        &["host1: ", none],
        &["host2: ", "there is no interface 'eth7'"],
        &["host2: ", none],
        &["host3: ", "there is no interface 'eth7'"],
        &["host3: ", none],
        &["host3: ", "ec2:DisassociateAddress"],
    ])?;
    let written = cloud.proxy.calls().into_iter().filter(|c| c.is_effective_write()).count();
    ensure!(written == 0, "{written} writes");
    Ok(())
}

/// The VPC has one table, its main one, so that the command can be printed with all that it needs.
fn routes_remedied() -> Result<()> {
    let served = Served::empty(&options(), &Plan { tables: 0, ..Plan::default() })?;
    let (world, cloud) = (&served.instances.world, served.cloud());
    served.create_ip(&format!("{VIP}/32"))?;
    for node in [0, 2] {
        world.set_source_dest_check(&world.nodes[node], true)?;
    }
    cloud.moto.set_role_policy(&role(1), &allowing(&without("ec2:ReplaceRoute")))?;
    cloud.moto.enforce_policies(true)?;
    let order = ["create", "ec2-route", "--ip", IP];
    let refused = served.refused(&order)?;
    let entry = "has an entry for 10.9.0.5, and vipd makes none";
    let check = "source/dest check";
    let denied = "ec2:ReplaceRoute is not permitted";
    refused.check(&[
        &["host1: ", check],
        &["host1: ", entry],
        &["host2: ", entry],
        &["host2: ", denied],
        &["host3: ", check],
        &["host3: ", entry],
    ])?;
    for host in ["host1: ", "host3: "] {
        let [command] = commands(refused.line(&[host, check])?, "aws")[..] else { panic!("{refused:?}") };
        served.administer(command)?;
    }
    // Each node would have it lead to itself; where it leads at first does not matter.
    let [command] = commands(refused.line(&["host3: ", entry])?, "aws")[..] else { panic!("{refused:?}") };
    served.administer(command)?;
    let mut rights = without("ec2:ReplaceRoute");
    rights.push(as_moto_evaluates(statement(refused.line(&["host2: ", denied])?)?));
    cloud.moto.set_role_policy(&role(1), &allowing(&rights))?;

    served.order(0, &order)?;
    served.wait_in_service(ROUTE, 0)?;
    let table = command.split(' ').skip_while(|w| *w != "--route-table-id").nth(1).context("no table")?;
    let target = world.snapshot()?.target(table, "10.9.0.5/32");
    ensure!(target.as_ref() == Some(&world.nodes[0].eni), "{table} leads to {target:?}");
    Ok(())
}

fn eip_remedied() -> Result<()> {
    let served = Served::empty(&two_interfaces(), &Plan::default())?;
    let (lab, world, cloud) = (served.lab(), &served.instances.world, served.cloud());
    let second = plug_second(&served)?;
    lab.segment.host(1).ip("link set eth2 down")?;
    world.detach_interface(&second[2])?;
    let mac = lab.segment.standby_mac(2).to_string();
    let mut gone = None;
    served.instances.imds[2].change(|identity| gone = identity.interfaces.remove(&mac));
    let create =
        |address: &str| ["create", "ec2-eip", "--eip", address, "--dev", "eth2"].map(str::to_owned).to_vec();
    let order =
        |address: &str| [create(address), ["--extend-to", "all"].map(str::to_owned).to_vec()].concat();
    let ask = |address: &str| {
        let all = order(address);
        served.refused(&all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let (link, none, lost) =
        ("eth2 has no link", "this account has no Elastic IP", "eth2 is no network interface");
    let refused = ask(NOBODYS)?;
    refused.check(&[
        &["host1: ", none],
        &["host2: ", none],
        &["host2: ", link],
        &["host3: ", none],
        &["host3: ", lost],
    ])?;
    let [up] = commands(refused.line(&["host2: ", link])?, "ip")[..] else { panic!("{refused:?}") };
    lab.segment.host(1).ip(up.strip_prefix("ip ").context("not ip")?)?;
    let [attach] = commands(refused.line(&["host3: ", lost])?, "aws")[..] else { panic!("{refused:?}") };
    served.administer(&attach.replace(" ENI ", &format!(" {} ", second[2])).replace(" N ", " 1 "))?;
    served.instances.imds[2].change(|identity| identity.interfaces.extend(gone.map(|i| (mac, i))));
    let [list, allocate] = commands(refused.line(&["host1: ", none])?, "aws")[..] else {
        panic!("{refused:?}")
    };
    served.administer(list)?;
    let said: Value = serde_json::from_slice(&served.administer(allocate)?.stdout)?;
    let address = said["PublicIp"].as_str().context("no address")?.to_owned();

    let all = order(&address);
    served.order(0, &all.iter().map(String::as_str).collect::<Vec<_>>())?;
    served.wait_in_service(&format!("ec2-{address}"), 0)?;
    ensure!(world.eip(address.parse()?)?.eni.as_ref() == Some(&second[0]));
    // The other two can have it as well.
    for host in [1, 2] {
        served.order(0, &["in-service", &format!("ec2-{address}"), "--on", lab.host(host).name()])?;
        ensure!(world.eip(address.parse()?)?.eni.as_ref() == Some(&second[host]));
    }
    ensure!(cloud.proxy.count("AssociateAddress") >= 3);
    Ok(())
}

fn force() -> Result<()> {
    let served = Served::empty(&options(), &Plan::default())?;
    let (lab, cloud) = (served.lab(), served.cloud());
    served.create_ip(&format!("{VIP}/32"))?;
    let route = ["create", "ec2-route", "--ip", IP];
    let all = cloud.proxy.inject(When::any(), Fault::Hang);
    let api = "https://ec2.eu-central-1.amazonaws.com, or name a VPC's endpoint in [ec2]";
    let said = served.refused(&route)?;
    for host in ["host1: ", "host2: ", "host3: "] {
        said.line(&[
            host,
            "ec2:DescribeRouteTables",
            "ec2:DescribeNetworkInterfaces",
            "was not answered within",
            api,
        ])?;
    }
    cloud.proxy.lift(all);

    cloud.cut(1)?;
    let said = served.refused(&route)?;
    said.line(&["host2: ", "DescribeRouteTables", api, "--force"])?;
    ensure!(said.line(&["host1: "]).is_err() && said.line(&["host3: "]).is_err(), "{said:?}");
    let said = served.order(0, &[&route[..], &["--force"]].concat())?;
    ensure!(said.contains("not checked: ec2-web on host2: ec2:Describe"), "{said}");
    served.wait_in_service(ROUTE, 0)?;
    served.check_routes(0)?;
    cloud.mend(1)?;

    // A node that is down.
    let address = served.instances.world.allocate_address()?.to_string();
    let eip = ["create", "ec2-eip", "--eip", &address, "--dev", "eth0", "--extend-to", "all"];
    lab.host(2).sigkill()?;
    lab.wait(PATIENCE, "the third host is not heard", || {
        let nodes = lab.host(0).status()?.nodes;
        ensure!(nodes.iter().any(|n| n.name == "host3" && !n.alive), "{nodes:?}");
        Ok(())
    })?;
    let answer = lab.host(0).vipctl(&eip)?;
    ensure!(answer.code() == 4, "{answer:?}");
    for part in ["node 'host3' is down", &format!("cannot check ec2-{address}"), "--force"] {
        ensure!(answer.stderr.contains(part), "{answer:?}");
    }
    ensure!(lab.resource(0, &format!("ec2-{address}")).is_err(), "it is there nevertheless");
    let said = served.order(0, &[&eip[..], &["--force"]].concat())?;
    ensure!(said.contains("node host3 is down") && said.contains("not checked there"), "{said}");
    served.wait_in_service(&format!("ec2-{address}"), 0)?;
    let place = served.instances.world.eip(address.parse()?)?.eni;
    ensure!(place.as_ref() == Some(&served.instances.world.nodes[0].eni), "{place:?}");
    Ok(())
}

fn region() -> Result<()> {
    let served = Served::empty(&options(), &Plan::default())?;
    served.create_ip(&format!("{VIP}/32"))?;
    let address = served.instances.world.allocate_address()?.to_string();
    for order in [
        &["create", "ec2-route", "--ip", IP, "--region", "us-east-1"][..],
        &[
            "create",
            "ec2-eip",
            "--eip",
            &address,
            "--dev",
            "eth0",
            "--extend-to",
            "all",
            "--region",
            "us-east-1",
        ],
    ] {
        let said = served.refused(order)?;
        // And nothing of what is missing in that other region.
        said.check(&[&["host1: "], &["host2: "], &["host3: "]])?;
        for (n, node) in served.instances.world.nodes.iter().enumerate() {
            let place = format!("this instance ({}) is in eu-central-1", node.instance);
            let asked = "region us-east-1 was asked for";
            said.line(&[&format!("host{}: ", n + 1), asked, &place, "leave the region out"])?;
        }
    }
    // Its own may be named.
    served.order(0, &["create", "ec2-route", "--ip", IP, "--region", "eu-central-1"])?;
    served.check_routes(0)
}

fn offered() -> Result<()> {
    let served = Served::empty(&options(), &Plan::default())?;
    let asked = |tag: &str| served.refused(&["create", "ec2-route", "--ip", tag]);
    let create = |address: &str, tag: &str| {
        served.order(0, &["create", "ip", address, "--dev", "eth0", "--tag", tag, "--extend-to", "all"])?;
        served.wait_in_service(tag, 0)
    };
    create("fd77::50/64", "six")?;
    asked("six")?.check(&[&[
        "'six' has addresses in fd77::/64",
        "IPv4 only",
        "there is no IPv4 resource in service",
    ]])?;
    create(&format!("{VIP}/32"), IP)?;
    create("10.9.0.6/32", "other")?;
    create("10.9.0.7/32", "out")?;
    served.order(0, &["out-of-service", "out"])?;
    let choice = "choose one of other, web";
    asked("six")?.check(&[&["IPv4 only", choice]])?;
    asked("out")?.check(&[&["'out' is not in service", "vipctl in-service out", choice]])?;
    served.order(0, &["create", "ec2-route", "--ip", "other"])?;
    served.wait_in_service("ec2-other", 0)?;
    asked("other")?.check(&[&["has its routes seen to by 'ec2-other' already", "choose one of web"]])?;
    asked("ec2-other")?.check(&[&["is of the kind ec2-route", "choose one of web"]])?;
    served.order(0, &["in-service", "out"])?;
    served.wait_in_service("out", 0)?;
    asked("six")?.check(&[&["choose one of out, web"]])
}

fn contract() -> Result<()> {
    let served = Served::empty(&Options { hosts: 3, ..options() }, &Plan::default())?;
    let (lab, world) = (served.lab(), &served.instances.world);
    served.create_ip(&format!("{VIP}/32"))?;
    let address = world.allocate_address()?;
    let code = |order: &[&str], expected: i32| {
        let answer = lab.host(0).vipctl(order)?;
        ensure!(answer.code() == expected, "{order:?}: {answer:?}");
        Ok(answer)
    };
    for usage in [
        &["create", "ec2-route"][..],
        &["create", "ec2-eip", "--eip", "fd77::1", "--dev", "eth0"],
        &["create", "ec2-eip", "--eip", "203.0.113.1"],
    ] {
        code(usage, 2)?;
    }
    ensure!(served.order(0, &["create", "ec2-route", "--help"])?.contains("--ip <TAG>"));
    // A document for a refusal, too.
    let refused = code(&["--json", "create", "ec2-eip", "--eip", NOBODYS, "--dev", "eth0"], 4)?;
    ensure!(refused.stdout.is_empty(), "{refused:?}");
    let said: Value = serde_json::from_str(&refused.stderr)?;
    ensure!(said["error"]["kind"] == "refused", "{said}");
    ensure!(
        said["error"]["message"].as_str().is_some_and(|m| m.contains("no Elastic IP 203.0.113.77")),
        "{said}"
    );

    let done = code(&["--json", "create", "ec2-route", "--ip", IP], 0)?;
    let said: Value = serde_json::from_str(&done.stdout)?;
    ensure!(said["message"].as_str().is_some_and(|m| m.contains("ec2-web is in service on host1")), "{said}");
    let eip = ["create", "ec2-eip", "--eip", &address.to_string(), "--dev", "eth0"];
    let eip = [&eip[..], &["--extend-to", "host3", "--extend-to", "host2"]].concat();
    code(&[&["--json"], &eip[..]].concat(), 0)?;
    let tag = format!("ec2-{address}");
    served.wait_in_service(&tag, 0)?;
    let status = lab.host(1).status()?;
    let kind = |tag: &str| status.resources.iter().find(|r| r.tag.as_str() == tag).map(|r| r.kind.clone());
    ensure!(kind("ec2-web").as_deref() == Some("ec2-route") && kind(&tag).as_deref() == Some("ec2-eip"));
    // Both are there already.
    let again = served.refused(&[&eip[..], &["--tag", "again"]].concat())?;
    again.line(&["belongs to the resource", &tag])?;
    // The order in which nodes were named is that of preference.
    let mut prefer: Vec<_> = lab.resource(0, &tag)?.nodes.into_iter().map(|n| (n.priority, n.node)).collect();
    prefer.sort();
    let names: Vec<&str> = prefer.iter().map(|(_, name)| name.as_str()).collect();
    ensure!(names == ["host1", "host3", "host2"], "{prefer:?}");
    // The tag may be chosen; nothing waits where nothing shall.
    served.order(0, &["delete", "ec2-web"])?;
    lab.wait(PATIENCE, "it is gone", || {
        ensure!(lab.resource(0, "ec2-web").is_err());
        Ok(())
    })?;
    let said = served.order(0, &["create", "ec2-route", "--ip", IP, "--tag", "chosen", "--no-wait"])?;
    ensure!(said.contains("being brought in service"), "{said}");
    served.wait_in_service("chosen", 0)?;
    let from = Cloud::address(0);
    ensure!(served.cloud().proxy.calls().iter().any(|c| c.client == from && c.is_dry_run()));
    Ok(())
}
