//! Route tables (rows EC2-1, EC2-3, EC2-7).

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use vipd_tests::{
    cloud::{Cloud, Fault, Plan, When},
    lab::PATIENCE,
};

use super::{
    Test,
    scene::{IP, ROUTE, Served, destination, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("routes::follow_the_owner_and_no_other_is_touched", follow),
    ("routes::a_wrong_target_is_repaired_where_it_is", repaired),
    ("routes::of_a_set_in_pages_follow_what_is_added_to_it", sets),
    ("routes::of_a_detached_interface_go_to_another_node", detached),
    ("routes::a_restart_of_the_daemon_waits_for_no_answer", restart),
    ("routes::out_of_service_they_are_left_and_in_service_turned", services),
];

fn follow() -> Result<()> {
    let served = Served::routes()?;
    let lab = served.lab();
    served.check_others_untouched()?;
    let known = served.known(0, ROUTE)?;
    ensure!(known.interface.as_deref() == Some(&*served.instances.world.nodes[0].eni), "{known:?}");
    ensure!(known.targets.len() == 3 && known.trouble.is_none(), "{known:?}");

    // In the order that an operator gives.
    served.order(0, &["in-service", ROUTE, "--on", lab.host(1).name()])?;
    served.check_routes(1)?;
    lab.check_in_service(IP, 1, 1)?;

    let mark = served.cloud().proxy.mark();
    lab.host(1).sigkill()?;
    served.wait_routes(0)?;
    served.wait_in_service(ROUTE, 0)?;
    lab.check_in_service(IP, 0, 0)?;
    served.check_others_untouched()?;
    // One write for each table that was wrong, by the new owner, and by nobody else.
    let writes: Vec<_> = served.cloud().proxy.calls_since(mark);
    let writes: Vec<_> = writes.iter().filter(|c| c.is_effective_write()).collect();
    ensure!(writes.len() == 3, "{writes:?}");
    ensure!(writes.iter().all(|c| c.client == Cloud::address(0) && c.action == "ReplaceRoute"), "{writes:?}");
    // The killed one returns and leaves them alone.
    lab.host(1).start()?;
    lab.wait_whole()?;
    served.check_routes(0)
}

fn repaired() -> Result<()> {
    let served = Served::routes()?;
    let world = &served.instances.world;
    let epoch = served.epoch(0, ROUTE)?;
    // One by a stranger, one by hand.
    world.replace_route(&world.tables[1], &destination(), &world.stranger.eni)?;
    world.replace_route(&world.tables[2], &destination(), &world.nodes[2].eni)?;
    served.wait_routes(0)?;
    let said = served.wait_event(0, "quickcheck.failed", &world.tables[1])?;
    ensure!(said.contains(&world.stranger.eni) && said.contains(&world.tables[2]), "{said}");
    served.lab().wait(PATIENCE, "it is mended", || {
        let known = served.known(0, ROUTE)?;
        ensure!(known.trouble.is_none(), "{known:?}");
        served.lab().check_in_service(ROUTE, 0, 0)
    })?;
    ensure!(served.epoch(0, ROUTE)? == epoch, "it was granted anew");
    served.check_others_untouched()
}

fn sets() -> Result<()> {
    let plan = Plan { tables: 7, ..Plan::default() };
    let served = Served::empty(&options(), &plan)?;
    let (world, proxy) = (&served.instances.world, &served.cloud().proxy);
    proxy.set_page(Some(5));
    let of = |n: u8| Ipv4Addr::new(10, 9, 1, n);
    (1..=10).try_for_each(|n| world.add_vip(of(n), &world.stranger.eni))?;
    served.create_ip("10.9.1.1-10.9.1.9/24")?;
    served.order(0, &["create", "ec2-route", "--ip", IP])?;
    let wait = |host: usize, last: u8| {
        served.lab().wait(PATIENCE, &format!("{last} routes of each table lead to host {host}"), || {
            let now = world.snapshot()?;
            for (table, n) in world.tables.iter().flat_map(|t| (1..=last).map(move |n| (t, n))) {
                let target = now.target(table, &format!("{}/32", of(n)));
                ensure!(target.as_deref() == Some(&*world.nodes[host].eni), "{n} in {table}: {target:?}");
            }
            Ok(())
        })
    };
    wait(0, 9)?;
    let now = world.snapshot()?;
    let tenth = now.target(&world.tables[0], "10.9.1.10/32");
    ensure!(tenth.as_deref() == Some(&*world.stranger.eni), "{tenth:?}");
    ensure!(proxy.calls().iter().any(|c| c.parameters.contains_key("NextToken")), "there were no pages");

    served.order(0, &["create", "ip", "10.9.1.10/24", "--group", IP])?;
    wait(0, 10)?;
    served.lab().host(0).sigkill()?;
    wait(1, 10)?;
    served.check_others_but(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(|n| format!("{}/32", of(n))))
}

fn detached() -> Result<()> {
    let served = Served::routes()?;
    served.instances.imds[0].change(|identity| identity.interfaces.clear());
    served.wait_routes(1)?;
    served.wait_in_service(ROUTE, 1)?;
    served.lab().check_in_service(IP, 1, 1)?;
    let reason = served.wait_event(0, "recover.failed", "")?;
    ensure!(reason.contains(&served.lab().host(0).mac().to_string()), "{reason}");
    served.check_others_untouched()
}

/// Of one that does not lead: an election would take time in which it could be missed.
fn restart() -> Result<()> {
    let served = Served::routes()?;
    let lab = served.lab();
    let owner = (0..3).find(|host| lab.leader(0).is_ok_and(|leader| leader != *host)).context("all lead")?;
    served.order(0, &["in-service", ROUTE, "--on", lab.host(owner).name()])?;
    let epochs = (served.epoch(0, ROUTE)?, served.epoch(0, IP)?);
    let rule = served.cloud().proxy.inject(When::any(), Fault::Hang);
    let mark = served.cloud().proxy.mark();
    lab.host(owner).terminate()?;
    lab.host(owner).start()?;
    lab.host(owner).wait_up()?;
    served.wait_in_service(ROUTE, owner)?;
    // It has asked, and nobody has answered yet.
    served.wait_calls(owner, "DescribeRouteTables", mark, 1)?;
    served.wait_event(owner, "ec2.trouble", "DescribeRouteTables")?;
    lab.check_in_service(ROUTE, owner, owner)?;
    served.cloud().proxy.lift(rule);
    served.wait_event(owner, "ec2.trouble-ended", "")?;
    ensure!((served.epoch(0, ROUTE)?, served.epoch(0, IP)?) == epochs, "it was granted anew");
    ensure!(served.calls(owner, "ReplaceRoute", mark).is_empty());
    served.check_routes(owner)
}

fn services() -> Result<()> {
    let served = Served::routes()?;
    let lab = served.lab();
    served.order(0, &["out-of-service", ROUTE])?;
    lab.check_in_service(IP, 0, 0)?;
    served.check_routes(0)?;
    let world = &served.instances.world;
    world.replace_route(&world.tables[0], &destination(), &world.stranger.eni)?;
    let mark = served.cloud().proxy.mark();
    // Nobody looks after it now, whoever restarts.
    lab.host(0).terminate()?;
    lab.host(0).start()?;
    lab.host(0).wait_up()?;
    served.wait_in_service(IP, 0)?;
    ensure!(served.calls(0, "ReplaceRoute", mark).is_empty());
    served.order(0, &["in-service", ROUTE])?;
    served.check_routes(0)?;
    // Away with the route resource: the address stays.
    served.order(0, &["delete", ROUTE])?;
    lab.wait_gone(ROUTE, 0)?;
    lab.check_in_service(IP, 0, 0)?;
    served.check_routes(0)
}
