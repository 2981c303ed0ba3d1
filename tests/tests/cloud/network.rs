//! The network between hosts and API can be cut alone.

use std::time::Duration;

use anyhow::{Result, ensure};
use vipd_tests::{
    cloud::{Cloud, CloudLab, INTERFACE, Plan, tools},
    lab::Options,
    netns::run,
};

use super::{Test, caller::Scene};

pub const TESTS: &[(&str, Test)] = &[
    ("network::one_host_is_cut_off_and_comes_back", cut),
    ("network::a_labs_hosts_are_instances", beside_a_lab),
];

const READER: &str = r#"{"Version": "2012-10-17", "Statement":
    [{"Effect": "Allow", "Action": "ec2:DescribeRouteTables", "Resource": "*"}]}"#;

fn cut() -> Result<()> {
    let scene = Scene::new(2)?;
    let read = |host: usize, ms: u64| {
        let socket = scene.hosts[host].ns.enter(|| {
            std::net::TcpStream::connect_timeout(&scene.cloud.proxy.address(), Duration::from_millis(ms))
        })?;
        drop(socket);
        anyhow::Ok(scene.send_from(host, "DescribeVpcs", &[], Duration::from_secs(10))?.status)
    };
    ensure!([read(0, 5_000)?, read(1, 5_000)?] == [200, 200]);
    scene.cloud.cut(1)?;
    ensure!(read(0, 5_000)? == 200);
    let error = format!("{:#}", read(1, 300).unwrap_err());
    ensure!(error.contains("timed out"), "{error}");
    scene.cloud.mend(1)?;
    ensure!(read(1, 5_000)? == 200);
    // They do not reach each other there.
    let mut ping = scene.hosts[0].ns.command("ping");
    let other = Cloud::address(1).to_string();
    ensure!(
        !ping.args(["-c", "1", "-W", "1", &other]).output()?.status.success(),
        "the hosts hear each other"
    );
    Ok(())
}

fn beside_a_lab() -> Result<()> {
    let options = Options { hosts: 2, ..Options::default() };
    let CloudLab { lab, imds: _imds, world, cloud } = CloudLab::new(&options, &Plan::default(), READER)?;
    cloud.moto.enforce_policies(true)?;
    for index in 0..2 {
        let host = lab.segment.host(index);
        let said = host.ip(&format!("-o addr show dev {INTERFACE}"))?;
        ensure!(said.contains(&Cloud::address(index).to_string()), "{said}");
        // From the interface's MAC to its ENI, and to the API with the role's credentials.
        let mac = lab.host(index).mac();
        ensure!(host.ip("link show dev eth0")?.contains(&mac.to_string()));
        let script = format!(
            "set -e; to=http://169.254.169.254/latest; \
             token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' $to/api/token); \
             curl -sf -H \"X-aws-ec2-metadata-token: $token\" $to/meta-data/network/interfaces/macs/{mac}/interface-id"
        );
        let said = run(host.command("sh").args(["-c", &script]))?;
        ensure!(String::from_utf8_lossy(&said.stdout) == world.nodes[index].eni, "{said:?}");
        let mut aws = host.command(tools::program("aws")?);
        cloud.environment(&mut aws);
        run(aws.args(["ec2", "describe-route-tables"]))?;
        let call = cloud.proxy.calls().pop().unwrap();
        ensure!(call.client == Cloud::address(index), "{call:?}");
    }
    // Without the API, the hosts' own network stays.
    cloud.cut(0)?;
    run(lab.segment.host(0).command("ping").args(["-c", "1", "-W", "5", "10.77.0.2"]))?;
    // And the other way round.
    cloud.mend(0)?;
    lab.segment.cut(0)?;
    cloud.dial(lab.segment.host(0))?;
    Ok(())
}
