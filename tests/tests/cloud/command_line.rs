//! The real AWS command line through the proxy, as another client than our own.

use anyhow::{Result, ensure};
use vipd_tests::{
    cloud::{Credentials, Fault, When},
    netns::run,
};

use super::{
    Test,
    caller::{ROUTE, Scene},
};

pub const TESTS: &[(&str, Test)] = &[("command_line::reads_swaps_and_reports_faults", command_line)];

fn command_line() -> Result<()> {
    let scene = Scene::new(1)?;
    let (proxy, world) = (&scene.cloud.proxy, &scene.world);
    let anybody = Credentials { access_key: "AKIATEST".to_owned(), secret: "secret".to_owned(), token: None };
    let aws = |arguments: &[&str]| -> Result<std::process::Command> {
        let mut command = scene.cloud.aws(&scene.hosts[0].ns, &anybody)?;
        command.args(["ec2", "--output", "text"]).args(arguments);
        Ok(command)
    };
    // It turns the pages by itself.
    proxy.set_page(Some(2));
    let query = ["describe-route-tables", "--query", "RouteTables[].RouteTableId"];
    let said = run(&mut aws(&query)?)?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(world.tables.iter().all(|table| said.contains(table)), "{said}");
    ensure!(proxy.count("DescribeRouteTables") >= 3, "{} calls", proxy.count("DescribeRouteTables"));

    let (table, eni) = (&world.tables[0], &world.nodes[1].eni);
    let to = ["--route-table-id", table, "--destination-cidr-block", ROUTE, "--network-interface-id", eni];
    let replace = [&["replace-route"], &to[..]].concat();
    for (arguments, fault, expected) in [
        (&[][..], Some(Fault::Throttle), "RequestLimitExceeded"),
        (&[], Some(Fault::Denied), "UnauthorizedOperation"),
        (&[], Some(Fault::Reset), "Connection"),
        (&["--dry-run"], None, "DryRunOperation"),
        (&["--dry-run"], Some(Fault::Denied), "UnauthorizedOperation"),
    ] {
        let rule = fault.map(|fault| proxy.inject(When::action("ReplaceRoute"), fault));
        let said = aws(&[&replace[..], arguments].concat())?.output()?;
        let text = String::from_utf8_lossy(&said.stderr);
        ensure!(!said.status.success() && text.contains(expected), "{fault:?}: {text}");
        rule.into_iter().for_each(|rule| proxy.lift(rule));
        ensure!(scene.owner(0)? == 0);
    }
    // Read back, it would not be one.
    let rule = proxy.inject(When::action("ReplaceRoute"), Fault::FalseSuccess);
    run(&mut aws(&replace)?)?;
    ensure!(scene.owner(0)? == 0);
    proxy.lift(rule);
    run(&mut aws(&replace)?)?;
    ensure!(scene.owner(0)? == 1);
    ensure!(proxy.calls().iter().all(|call| call.client == scene.hosts[0].address));
    Ok(())
}
