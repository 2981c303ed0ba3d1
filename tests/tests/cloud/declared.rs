//! As a file, and what must be in no file: the declared state of both kinds (row CL-12), and secrets (row EC2-6).

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use vipd_tests::{
    cloud::{Credentials, Fault, When, role},
    lab::{Options, PATIENCE},
};

use super::{
    Test,
    eips::Elastic,
    refusals::commands,
    scene::{IP, ROUTE, VIP, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("declared::what_is_exported_is_applied_again_and_verified", round_trip),
    ("declared::no_secret_is_in_any_file_or_document", secrets),
];

/// Both kinds, in service on the first host.
fn both(options: &Options) -> Result<Elastic> {
    let elastic = Elastic::with(options, |_| Ok(()), &["--dev", "eth0"])?;
    elastic.served.create_ip(&format!("{VIP}/32"))?;
    elastic.served.order(0, &["create", "ec2-route", "--ip", IP, "--region", "eu-central-1"])?;
    elastic.served.wait_in_service(ROUTE, 0)?;
    elastic.served.check_routes(0)?;
    Ok(elastic)
}

fn round_trip() -> Result<()> {
    let elastic = both(&options())?;
    let (served, lab, tag) = (&elastic.served, elastic.lab(), elastic.tag.as_str());
    let world = &served.instances.world;
    served.order(0, &["set", tag, "switchback=automatic"])?;
    let exported = served.order(0, &["export"])?;
    let address = format!("eip = \"{}\"", elastic.address);
    for part in
        ["kind = \"ec2-route\"", "ip = \"web\"", "region = \"eu-central-1\"", "kind = \"ec2-eip\"", &address]
    {
        ensure!(exported.contains(part), "no {part}: {exported}");
    }
    let file = lab.dir().join("cluster.toml").display().to_string();
    fs::write(&file, &exported)?;
    served.order(1, &["verify", &file])?;

    served.order(0, &["delete", IP, "--hierarchy"])?;
    served.order(0, &["delete", tag])?;
    lab.wait(PATIENCE, "they are gone", || {
        let all = lab.host(0).status()?.resources;
        ensure!(all.is_empty(), "{all:?}");
        Ok(())
    })?;
    world.replace_route(&world.tables[0], &format!("{VIP}/32"), &world.stranger.eni)?;
    let answer = lab.host(1).vipctl(&["verify", &file])?;
    ensure!(answer.code() == 1, "{answer:?}");
    for part in [format!("+ resource {tag}"), format!("+ resource {ROUTE}"), format!("+ resource {IP}")] {
        ensure!(answer.stdout.contains(&part), "no '{part}': {}", answer.stdout);
    }
    // On another host, which is not the best one for it.
    served.order(1, &["apply", &file, "--yes"])?;
    for tag in [IP, ROUTE, tag] {
        served.wait_in_service(tag, 0)?;
    }
    served.check_routes(0)?;
    elastic.check_on(0)?;
    ensure!(served.order(2, &["export"])? == exported);
    served.order(2, &["verify", &file])?;
    ensure!(served.order(2, &["apply", &file, "--yes"])?.contains("no differences"));

    // Where it is not in service.
    world.set_source_dest_check(&world.nodes[2], true)?;
    let answer = lab.host(1).vipctl(&["verify", &file])?;
    ensure!(answer.code() == 1 && answer.stderr.contains("1 difference"), "{answer:?}");
    let finding = format!("! {ROUTE} on host3: the source/dest check of eth0 ({}) is on", world.nodes[2].eni);
    ensure!(answer.stdout.contains(&finding), "{answer:?}");
    let json = lab.host(1).vipctl(&["--json", "verify", &file])?;
    let json: serde_json::Value = serde_json::from_str(&json.stdout)?;
    ensure!(json["findings"].as_array().is_some_and(|all| all.len() == 1), "{json}");
    let [command] = commands(&answer.stdout, "aws")[..] else { panic!("{answer:?}") };
    served.administer(command)?;
    served.order(1, &["verify", &file])?;
    served.check_others_untouched()
}

/// With everything logged that vipd itself logs, and with EC2 in trouble.
fn secrets() -> Result<()> {
    let options = Options { log: Some("trace,openraft=off"), ..options() };
    let elastic = both(&options)?;
    let (served, lab) = (&elastic.served, elastic.lab());
    let proxy = &served.cloud().proxy;
    let rule = proxy.inject(When::any(), Fault::Denied);
    served.wait_event(0, "ec2.trouble", "not permitted")?;
    let refused = lab.host(0).vipctl(&["create", "ec2-eip", "--eip", "203.0.113.2", "--dev", "eth0"])?;
    ensure!(refused.code() == 4, "{refused:?}");
    proxy.lift(rule);
    served.wait_event(0, "ec2.trouble-ended", "")?;
    lab.host(0).sigkill()?;
    elastic.wait_on(1)?;
    served.wait_in_service(&elastic.tag, 1)?;
    served.wait_routes(1)?;
    lab.host(0).start()?;
    lab.wait_whole()?;

    let mut secrets: Vec<(String, String)> = Vec::new();
    for host in 0..3 {
        let mut given: Option<Credentials> = None;
        served.instances.imds[host].change(|i| given = i.role.as_ref().map(|(_, c)| c.clone()));
        let given = given.with_context(|| format!("{} has none", role(host)))?;
        // They were in use.
        let calls = proxy.calls();
        ensure!(calls.iter().any(|c| c.access_key.as_ref() == Some(&given.access_key)), "{}", role(host));
        let token = given.token.context("no token")?;
        for (kind, secret) in [("access key", given.access_key), ("secret", given.secret), ("token", token)] {
            ensure!(secret.len() > 10, "{kind}: '{secret}'");
            secrets.push((format!("the {kind} of {}", role(host)), secret));
        }
    }
    // As the metadata service gives its tokens.
    secrets.push(("a token of the metadata service".to_owned(), "AQAEA00000".to_owned()));
    let mut seen = 0;
    let mut look = |what: String, bytes: &[u8]| {
        seen += bytes.len();
        for (name, secret) in &secrets {
            let there = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            ensure!(!there, "{name} is in {what}");
        }
        Ok(())
    };
    let mut files = Vec::new();
    all_files(lab.dir(), &mut files)?;
    let logs = files.iter().filter(|f| f.ends_with("log")).count();
    ensure!(logs >= 3, "{files:?}");
    for file in files {
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        look(file.display().to_string(), &bytes)?;
    }
    for host in 0..3 {
        let show = ["--json", "show", &elastic.tag];
        for order in [&["--json", "status"][..], &["--json", "export"], &["--json", "events"], &show] {
            look(format!("{order:?}"), lab.host(host).vipctl(order)?.done()?.stdout.as_bytes())?;
        }
    }
    ensure!(seen > 100_000, "only {seen} bytes were looked at");
    ensure!(lab.host(0).log().contains("TRACE"), "the logs are not as full as they should be");
    Ok(())
}

fn all_files(dir: &Path, found: &mut Vec<std::path::PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            all_files(&entry.path(), found)?;
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(())
}
