//! The metadata service: version 2 alone, changeable while it runs.

use std::time::Duration;

use anyhow::{Result, ensure};
use vipd_tests::{
    cloud::{
        Imds,
        http::{Request, Response},
        imds,
    },
    lab::wait_until,
    netns::{NetNs, run},
};

use super::{Test, caller::Scene};

pub const TESTS: &[(&str, Test)] = &[
    ("metadata::nothing_without_a_token", tokens),
    ("metadata::tells_instance_and_interfaces", tells),
    ("metadata::changes_while_it_runs", changes),
    ("metadata::the_command_line_takes_its_credentials", credentials),
];

const MAC: &str = "02:00:00:77:00:01";
const TTL: &str = "X-aws-ec2-metadata-token-ttl-seconds";

fn send(ns: &NetNs, request: Request, patience: Duration) -> Result<Response> {
    let socket = ns.enter(|| std::net::TcpStream::connect((imds::ADDRESS, 80)))?;
    request.with("Host", "169.254.169.254").exchange(socket, patience)
}

const PATIENCE: Duration = Duration::from_secs(10);

fn token(ns: &NetNs) -> Result<String> {
    let answer = send(ns, Request::new("PUT", "/latest/api/token", "").with(TTL, "300"), PATIENCE)?;
    ensure!(answer.status == 200 && answer.header(TTL) == Some("300"), "{answer:?}");
    Ok(answer.text())
}

fn get(ns: &NetNs, token: &str, path: &str) -> Result<Response> {
    send(ns, Request::new("GET", path, "").with("X-aws-ec2-metadata-token", token), PATIENCE)
}

fn tokens() -> Result<()> {
    let scene = Scene::new(1)?;
    let ns = &scene.hosts[0].ns;
    let imds = Imds::start(ns, scene.world.identity(&scene.world.nodes[0], MAC))?;
    let path = "/latest/meta-data/instance-id";
    ensure!(send(ns, Request::new("GET", path, ""), PATIENCE)?.status == 401, "version 1 is answered");
    ensure!(get(ns, "made-up", path)?.status == 401);
    for ttl in ["0", "21601", "soon"] {
        let request = Request::new("PUT", "/latest/api/token", "").with(TTL, ttl);
        ensure!(send(ns, request, PATIENCE)?.status == 400, "{ttl}");
    }
    ensure!(send(ns, Request::new("PUT", "/latest/api/token", ""), PATIENCE)?.status == 400);
    let first = token(ns)?;
    ensure!(get(ns, &first, path)?.text() == scene.world.nodes[0].instance);
    ensure!(token(ns)? != first);
    imds.expire_tokens();
    ensure!(get(ns, &first, path)?.status == 401);
    ensure!(imds.asked().contains(&path.to_owned()));
    Ok(())
}

fn tells() -> Result<()> {
    let scene = Scene::new(2)?;
    let world = &scene.world;
    // Each host has its own.
    let start = |host: usize| Imds::start(&scene.hosts[host].ns, world.identity(&world.nodes[host], MAC));
    let _services = [start(0)?, start(1)?];
    for (host, node) in scene.hosts.iter().zip(&world.nodes) {
        let ns = &host.ns;
        let token = token(ns)?;
        let subnet = &world.subnets[node.subnet];
        let address = node.address.to_string();
        let interface = format!("network/interfaces/macs/{MAC}");
        for (path, expected) in [
            ("instance-id".to_owned(), node.instance.as_str()),
            ("placement/region".to_owned(), "eu-central-1"),
            ("placement/availability-zone".to_owned(), &subnet.zone),
            ("network/interfaces/macs/".to_owned(), "02:00:00:77:00:01/"),
            (format!("{interface}/interface-id"), &node.eni),
            (format!("{interface}/vpc-id"), &world.vpc),
            (format!("{interface}/vpc-ipv4-cidr-blocks"), "10.77.0.0/16"),
            (format!("{interface}/local-ipv4s"), &address),
            (format!("{interface}/subnet-id"), &subnet.id),
            (format!("{interface}/device-number"), "0"),
        ] {
            let answer = get(ns, &token, &format!("/latest/meta-data/{path}"))?;
            ensure!(answer.status == 200 && answer.text() == expected, "{path}: {answer:?}");
        }
        let document = get(ns, &token, "/latest/dynamic/instance-identity/document")?.text();
        let document: serde_json::Value = serde_json::from_str(&document)?;
        ensure!(
            document["instanceId"] == node.instance && document["region"] == "eu-central-1",
            "{document}"
        );
        ensure!(get(ns, &token, "/latest/meta-data/iam/security-credentials/")?.status == 404);
        ensure!(get(ns, &token, "/latest/meta-data/nothing")?.status == 404);
    }
    Ok(())
}

fn changes() -> Result<()> {
    let scene = Scene::new(1)?;
    let ns = &scene.hosts[0].ns;
    let imds = Imds::start(ns, scene.world.identity(&scene.world.nodes[0], MAC))?;
    let path = format!("/latest/meta-data/network/interfaces/macs/{MAC}/interface-id");
    let token = token(ns)?;
    ensure!(get(ns, &token, &path)?.status == 200);
    let mut detached = None;
    imds.change(|identity| detached = identity.interfaces.remove(MAC));
    ensure!(get(ns, &token, &path)?.status == 404);
    ensure!(get(ns, &token, "/latest/meta-data/network/interfaces/macs/")?.text().is_empty());
    imds.change(|identity| {
        identity.interfaces.insert(MAC.to_owned(), detached.unwrap());
    });
    ensure!(get(ns, &token, &path)?.status == 200);
    // It takes the call, and says nothing.
    imds.set_silent(true);
    let asked = imds.asked().len();
    let request = Request::new("GET", &path, "").with("X-aws-ec2-metadata-token", &token);
    let error = format!("{:#}", send(ns, request, Duration::from_millis(300)).unwrap_err());
    ensure!(error.contains("did not come"), "{error}");
    wait_until(PATIENCE, "it has taken the call", || {
        ensure!(imds.asked().len() == asked + 1, "not yet");
        Ok(())
    })?;
    imds.set_silent(false);
    ensure!(get(ns, &token, &path)?.status == 200);
    Ok(())
}

fn credentials() -> Result<()> {
    let scene = Scene::new(1)?;
    let ns = &scene.hosts[0].ns;
    let reader = r#"{"Version": "2012-10-17", "Statement":
        [{"Effect": "Allow", "Action": "ec2:DescribeRouteTables", "Resource": "*"}]}"#;
    let role = scene.cloud.moto.role("node", reader)?;
    let mut identity = scene.world.identity(&scene.world.nodes[0], MAC);
    identity.role = Some(("node".to_owned(), role.clone()));
    let imds = Imds::start(ns, identity)?;
    scene.cloud.moto.enforce_policies(true)?;
    let mut aws = ns.command(vipd_tests::cloud::tools::program("aws")?);
    scene.cloud.environment(&mut aws);
    run(aws.args(["ec2", "describe-route-tables"]))?;
    let call = scene.cloud.proxy.calls().pop().unwrap();
    ensure!(call.access_key == Some(role.access_key), "{call:?}");
    ensure!(
        imds.asked().iter().any(|path| path.ends_with("security-credentials/node")),
        "{:?}",
        imds.asked()
    );
    Ok(())
}
