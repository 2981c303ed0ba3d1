//! An API that is slow, silent, throttles, fails or lies (rows EC2-4, EC2-7).

use std::{
    fs,
    process::{Child, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use vipd_tests::{
    cloud::{Cloud, Fault, Outcome, Plan, When},
    lab::PATIENCE,
};

use super::{
    Test,
    scene::{IP, PROMPT, ROUTE, Served, TUNABLES, destination, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("silence::of_the_api_moves_nothing_and_blocks_nobody", silent),
    ("silence::of_the_metadata_service_moves_nothing", metadata),
    ("silence::on_the_network_of_the_owner_alone_moves_nothing", cut),
    ("silence::throttled_fifty_times_the_routes_follow_all_the_same", throttled),
    ("silence::whatever_becomes_of_a_write_the_routes_are_right_in_the_end", writes),
    ("silence::whatever_becomes_of_a_check_nothing_moves", checks),
    ("silence::a_permission_that_is_taken_away_is_told_and_moves_nothing", permission),
    ("silence::a_table_that_may_not_be_changed_takes_no_other_out_of_service", barred),
    ("silence::of_what_many_operators_ask_holds_up_neither_status_nor_failover", verifying),
    ("silence::a_node_that_may_not_write_gives_way_to_one_that_may", denied),
];

fn silent() -> Result<()> {
    let tunables = format!("{TUNABLES}EC2_QUICKCHECK_TIMEOUT=3\n");
    let served = Served::routes_with(&vipd_tests::lab::Options { tunables, ..options() }, &Plan::default())?;
    let lab = served.lab();
    let epoch = served.epoch(0, ROUTE)?;
    let rule = served.cloud().proxy.inject(When::any(), Fault::Hang);
    // Longer than a check may take.
    served.wait_event(0, "ec2.trouble", "within 3s")?;
    let known = served.known(0, ROUTE)?;
    ensure!(known.trouble.is_some() && known.targets.len() == 3, "{known:?}");
    let warned = lab.host(0).status()?.warnings;
    ensure!(warned.iter().any(|w| w.contains(ROUTE) && w.contains("stays in service")), "{warned:?}");

    // Meanwhile everything else goes on: orders, other resources and their failover.
    let begun = Instant::now();
    served.order(
        0,
        &["create", "ip", "10.77.0.60/24", "--dev", "eth0", "--tag", "other", "--extend-to", "all"],
    )?;
    served.order(0, &["in-service", "other", "--on", lab.host(1).name()])?;
    lab.check_in_service("other", 1, 1)?;
    lab.host(0).vipctl(&["show", ROUTE])?.done()?;
    ensure!(begun.elapsed() < PROMPT, "that took {:?}", begun.elapsed());
    lab.host(1).sigkill()?;
    lab.wait(PATIENCE, "the other one fails over", || {
        let owner = lab.owner(0, "other")?;
        ensure!(owner != 1, "not yet");
        lab.check_in_service("other", owner, 0)
    })?;
    lab.check_in_service(ROUTE, 0, 0)?;
    ensure!(served.epoch(0, ROUTE)? == epoch);
    ensure!(served.events(0, "ec2.trouble")?.len() == 1, "{:?}", served.events(0, "ec2.trouble")?);

    served.cloud().proxy.lift(rule);
    served.wait_event(0, "ec2.trouble-ended", "")?;
    ensure!(served.known(0, ROUTE)?.trouble.is_none());
    ensure!(served.epoch(0, ROUTE)? == epoch);
    served.check_others_untouched()
}

fn metadata() -> Result<()> {
    let served = Served::routes()?;
    let epoch = served.epoch(0, ROUTE)?;
    served.instances.imds[0].set_silent(true);
    served.wait_event(0, "ec2.trouble", "")?;
    served.lab().check_in_service(ROUTE, 0, 0)?;
    served.instances.imds[0].set_silent(false);
    served.wait_event(0, "ec2.trouble-ended", "")?;
    ensure!(served.epoch(0, ROUTE)? == epoch);
    Ok(())
}

fn cut() -> Result<()> {
    let served = Served::routes()?;
    let epoch = served.epoch(0, ROUTE)?;
    served.cloud().cut(0)?;
    served.wait_event(0, "ec2.trouble", "")?;
    served.lab().check_in_service(ROUTE, 0, 0)?;
    // An order moves it nevertheless, to a node that reaches the API.
    served.order(0, &["in-service", ROUTE, "--on", served.lab().host(2).name()])?;
    served.check_routes(2)?;
    ensure!(served.epoch(0, ROUTE)? > epoch);
    served.check_others_untouched()
}

fn throttled() -> Result<()> {
    let served = Served::routes()?;
    let mark = served.cloud().proxy.mark();
    served.cloud().proxy.inject(When::action("ReplaceRoute").times(50), Fault::Throttle);
    served.lab().host(0).sigkill()?;
    served.wait_long("all routes lead to the second host", || served.check_routes(1))?;
    served.wait_in_service(ROUTE, 1)?;
    let refused = served.calls(1, "ReplaceRoute", mark);
    let refused = refused.iter().filter(|c| c.outcome == Outcome::Answered(503)).count();
    ensure!(refused == 50, "{refused} were throttled");
    ensure!(served.calls(2, "ReplaceRoute", mark).is_empty(), "it went on to another node");
    served.check_others_untouched()
}

/// Every one of them, on the way to the next owner and back.
fn writes() -> Result<()> {
    let served = Served::routes()?;
    let (lab, proxy) = (served.lab(), &served.cloud().proxy);
    for (n, fault) in Fault::OF_WRITES.into_iter().enumerate() {
        let to = 1 + n % 2;
        let mark = proxy.mark();
        let rule = proxy.inject(When::action("ReplaceRoute").times(3), fault);
        let moved = served.order(0, &["in-service", ROUTE, "--on", lab.host(to).name()]);
        moved.with_context(|| format!("{fault:?}"))?;
        served.check_routes(to).with_context(|| format!("{fault:?}"))?;
        let hit = proxy.calls_since(mark).iter().filter(|c| c.fault == Some(fault)).count();
        ensure!(hit == 3, "{fault:?} befell {hit} calls");
        proxy.lift(rule);
        served.lab().check_in_service(ROUTE, to, to).with_context(|| format!("{fault:?}"))?;
        // A write that was held up comes through only now: it is for the same node.
        served.wait_routes(to)?;
    }
    served.check_others_untouched()
}

fn checks() -> Result<()> {
    let served = Served::routes()?;
    let proxy = &served.cloud().proxy;
    let epoch = served.epoch(0, ROUTE)?;
    let faults = [
        Fault::LoseAnswer,
        Fault::Reset,
        Fault::Throttle,
        Fault::InternalError,
        Fault::Unavailable,
        Fault::Truncate,
        Fault::Garbage,
        Fault::Denied,
    ];
    for fault in faults {
        let ended = served.events(0, "ec2.trouble-ended")?.len();
        let rule = proxy.inject(When::action("DescribeRouteTables"), fault);
        served.lab().wait(PATIENCE, &format!("{fault:?} is noticed"), || {
            let known = served.known(0, ROUTE)?;
            known.trouble.map(drop).context("all is well")
        })?;
        served.lab().check_in_service(ROUTE, 0, 0)?;
        proxy.lift(rule);
        served.lab().wait(PATIENCE, &format!("{fault:?} is over"), || {
            ensure!(served.events(0, "ec2.trouble-ended")?.len() == ended + 1);
            Ok(())
        })?;
    }
    ensure!(served.epoch(0, ROUTE)? == epoch && served.events(0, "quickcheck.failed")?.is_empty());
    served.check_others_untouched()
}

fn permission() -> Result<()> {
    let served = Served::routes()?;
    let epoch = served.epoch(0, ROUTE)?;
    served.cloud().proxy.inject(When::action("DescribeRouteTables").from(Cloud::address(0)), Fault::Denied);
    let said = served.wait_event(0, "ec2.trouble", "ec2:DescribeRouteTables")?;
    ensure!(said.contains("stays in service"), "{said}");
    let shown = served.order(0, &["show", ROUTE])?;
    ensure!(shown.contains("ec2:DescribeRouteTables is not permitted"), "{shown}");
    ensure!(served.epoch(0, ROUTE)? == epoch);
    Ok(())
}

/// An entry in a table that the policy does not name.
fn barred() -> Result<()> {
    let served = Served::routes()?;
    let world = &served.instances.world;
    let (epoch, table) = (served.epoch(0, ROUTE)?, &world.tables[2]);
    let of_table = When::action("ReplaceRoute").with("RouteTableId", table);
    let rule = served.cloud().proxy.inject(of_table, Fault::Denied);
    let mark = served.cloud().proxy.mark();
    world.replace_route(table, &destination(), &world.stranger.eni)?;
    // Twice: it goes on to look, and to try.
    served.wait_calls(0, "ReplaceRoute", mark, 2)?;
    let said = served.wait_event(0, "recover.failed", "ec2:ReplaceRoute is not permitted")?;
    ensure!(said.contains(table), "{said}");
    served.lab().check_in_service(ROUTE, 0, 0)?;
    served.lab().check_in_service(IP, 0, 0)?;
    ensure!(served.epoch(0, ROUTE)? == epoch, "it was granted anew");
    let trouble = served.known(0, ROUTE)?.trouble.context("nothing is told")?;
    ensure!(trouble.contains(table), "{trouble}");
    served.cloud().proxy.lift(rule);
    served.wait_routes(0)?;
    served.lab().wait(PATIENCE, "all is well", || {
        let known = served.known(0, ROUTE)?;
        ensure!(known.trouble.is_none(), "{known:?}");
        Ok(())
    })?;
    ensure!(served.epoch(0, ROUTE)? == epoch);
    served.check_others_untouched()
}

/// Ended with the test.
struct Commands(Vec<Child>);

impl Drop for Commands {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn verifying() -> Result<()> {
    // Longer than a question of an operator may take: none of them leaves its place before.
    let tunables = format!("{TUNABLES}EC2_CALL_TIMEOUT=60\n");
    let served = Served::routes_with(&vipd_tests::lab::Options { tunables, ..options() }, &Plan::default())?;
    let (lab, proxy) = (served.lab(), &served.cloud().proxy);
    let file = lab.dir().join("cluster.toml");
    fs::write(&file, served.order(0, &["export"])?)?;
    // Nothing that is in service asks for it.
    let asked = "DescribeNetworkInterfaces";
    let rule = proxy.inject(When::action(asked), Fault::Hang);
    let mark = proxy.mark();
    let verify = || -> Result<Child> {
        let mut command = lab.host(2).vipctl_command()?;
        command.arg("verify").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().context("cannot run vipctl")
    };
    let mut commands = Commands((0..20).map(|_| verify()).collect::<Result<_>>()?);
    // As many as a node asks at the same time.
    served.wait_calls(1, asked, mark, 16)?;
    let begun = Instant::now();
    for host in 0..3 {
        lab.host(host).status()?;
    }
    ensure!(begun.elapsed() < PROMPT, "that took {:?}", begun.elapsed());
    lab.host(0).sigkill()?;
    served.wait_routes(1)?;
    served.wait_in_service(ROUTE, 1)?;
    for child in &mut commands.0 {
        let ended = child.try_wait().context("vipctl was lost")?;
        ensure!(ended.is_none(), "the routes waited for what was asked: {ended:?}");
    }
    lab.host(2).status()?;
    proxy.lift(rule);
    served.check_others_untouched()
}

fn denied() -> Result<()> {
    let served = Served::routes()?;
    let mark = served.cloud().proxy.mark();
    served.cloud().proxy.inject(When::action("ReplaceRoute").from(Cloud::address(1)), Fault::Denied);
    served.lab().host(0).sigkill()?;
    served.wait_routes(2)?;
    served.wait_in_service(ROUTE, 2)?;
    served.lab().check_in_service(IP, 2, 2)?;
    let said = served.wait_event(1, "restore.failed", "ec2:ReplaceRoute is not permitted")?;
    ensure!(said.contains("/32 in rtb-"), "{said}");
    ensure!(!served.calls(1, "ReplaceRoute", mark).is_empty());
    served.check_others_untouched()
}
