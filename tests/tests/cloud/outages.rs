//! A daemon that dies before it has done what it owed, and an API that is silent for longer than anybody waits.

use std::thread;

use anyhow::{Context, Result, ensure};
use vipd_tests::{
    cloud::{Cloud, Fault, Plan, When},
    lab::{Options, PATIENCE},
};

use super::{
    Test,
    scene::{IP, ROUTE, Served, TUNABLES, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("outages::a_removal_that_an_earlier_life_owed_is_done_by_the_next", owed),
    ("outages::of_the_api_for_longer_than_bring_ups_may_take_end_by_themselves", long),
];

/// Killed while it asks where the Elastic IP is that it is to take off.
fn owed() -> Result<()> {
    // Nothing is given up before the next life begins.
    let tunables = format!("{TUNABLES}EC2_CALL_TIMEOUT=20\n");
    let served = Served::empty(&Options { tunables, ..options() }, &Plan::default())?;
    let (world, lab, proxy) = (&served.instances.world, served.lab(), &served.cloud().proxy);
    let address = world.allocate_address()?;
    let tag = format!("ec2-{address}");
    served.order(0, &["create", "ec2-eip", "--eip", &address.to_string(), "--dev", "eth0"])?;
    served.wait_in_service(&tag, 0)?;
    ensure!(world.eip(address)?.eni.as_ref() == Some(&world.nodes[0].eni));
    let hang = proxy.inject(When::action("DescribeAddresses").from(Cloud::address(0)), Fault::Hang);
    thread::scope(|scope| {
        // Nobody waits for what it says.
        let order = scope.spawn(|| lab.host(1).vipctl(&["out-of-service", &tag]).map(drop));
        served.wait_event(0, "remove.ec2-look", "")?;
        let mark = proxy.mark();
        lab.host(0).sigkill()?;
        lab.host(0).start()?;
        proxy.lift(hang);
        lab.wait(PATIENCE, "nobody has it any more", || {
            let seen = lab.resource(1, &tag)?;
            ensure!(seen.owner.is_none(), "{seen:?}");
            Ok(())
        })?;
        let place = world.eip(address)?.eni;
        ensure!(place.is_none(), "that was said, and yet it is on {place:?}");
        ensure!(!served.calls(0, "DisassociateAddress", mark).is_empty());
        order.join().ok().context("the order panicked")?
    })
}

/// The owner dies while nobody gets an answer, and no successor can bring it up before its time is over.
fn long() -> Result<()> {
    let tunables = format!("{TUNABLES}EC2_RESTORE_TIMEOUT=4\n");
    let served = Served::routes_with(&Options { tunables, ..options() }, &Plan::default())?;
    let (lab, proxy) = (served.lab(), &served.cloud().proxy);
    served.order(0, &["cluster", "set", "failure-timeout=5"])?;
    let silence = proxy.inject(When::any(), Fault::Hang);
    lab.host(0).sigkill()?;
    for host in [1, 2] {
        let said = served.wait_event(host, "restore.failed", "")?;
        ensure!(said.contains("did not finish within 4s") && said.contains("EC2"), "{said}");
    }
    proxy.lift(silence);
    served.wait_long("all routes lead to one that lives, and it says so", || {
        let owner = lab.owner(1, ROUTE)?;
        ensure!(owner != 0, "it is the dead one's");
        served.check_routes(owner)?;
        lab.check_in_service(ROUTE, owner, 1)?;
        lab.check_in_service(IP, owner, 1)
    })?;
    served.check_others_untouched()
}
