//! The network between hosts and API can be cut alone.

use std::time::Duration;

use anyhow::{Result, ensure};
use vipd_tests::{
    cloud::{Cloud, INTERFACE},
    lab::{Lab, Options},
    netns::run,
};

use super::{Test, caller::Scene};

pub const TESTS: &[(&str, Test)] = &[
    ("network::one_host_is_cut_off_and_comes_back", cut),
    ("network::a_labs_hosts_have_it_beside_their_own", beside_a_lab),
];

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
    let cloud = Cloud::start()?;
    let lab = Lab::new(&Options { hosts: 2, ..Options::default() })?;
    for index in 0..2 {
        let address = cloud.connect(lab.segment.host(index), index)?;
        let said = lab.segment.host(index).ip(&format!("-o addr show dev {INTERFACE}"))?;
        ensure!(said.contains(&address.to_string()), "{said}");
        cloud.dial(lab.segment.host(index))?;
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
