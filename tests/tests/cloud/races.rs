//! Two nodes that both believe, for a moment, that it is theirs.

use anyhow::{Result, ensure};
use vipd_tests::{
    cloud::{Cloud, Fault, When},
    lab::PATIENCE,
};

use super::{
    Test,
    scene::{ROUTE, Served, destination},
};

pub const TESTS: &[(&str, Test)] = &[
    ("races::an_owner_that_was_frozen_between_two_attempts_writes_nothing", frozen),
    ("races::a_write_that_comes_late_is_undone_by_the_next_owner", late),
];

/// The first host is turned away again and again while it repairs a route, and frozen between two attempts; the second
/// one takes over.
fn frozen() -> Result<()> {
    let served = Served::routes()?;
    let (world, lab, proxy) = (&served.instances.world, served.lab(), &served.cloud().proxy);
    let rule = proxy.inject(When::action("ReplaceRoute").from(Cloud::address(0)), Fault::Throttle);
    let mark = proxy.mark();
    world.replace_route(&world.tables[0], &destination(), &world.stranger.eni)?;
    served.wait_calls(0, "ReplaceRoute", mark, 1)?;
    lab.host(0).sigstop()?;
    served.wait_routes(1)?;
    served.wait_in_service(ROUTE, 1)?;
    // It wakes up in the belief that it is its turn to try again.
    proxy.lift(rule);
    let mark = proxy.mark();
    lab.host(0).sigcont()?;
    lab.wait(PATIENCE, "the first host knows that it was deposed, and is back", || {
        lab.check_in_service(ROUTE, 1, 0)
    })?;
    lab.wait_whole()?;
    let written = served.calls(0, "ReplaceRoute", mark);
    ensure!(written.is_empty(), "{written:?}");
    served.check_routes(1)?;
    served.check_others_untouched()
}

/// The first host's write is under way, and stays so, when it dies.
fn late() -> Result<()> {
    let served = Served::routes()?;
    let (world, lab, proxy) = (&served.instances.world, served.lab(), &served.cloud().proxy);
    let rule = proxy.inject(When::action("ReplaceRoute").from(Cloud::address(0)), Fault::Hang);
    let mark = proxy.mark();
    world.replace_route(&world.tables[0], &destination(), &world.stranger.eni)?;
    served.wait_calls(0, "ReplaceRoute", mark, 1)?;
    lab.host(0).sigkill()?;
    served.wait_routes(1)?;
    served.wait_in_service(ROUTE, 1)?;
    proxy.lift(rule);
    lab.wait(PATIENCE, "the late write is executed", || {
        let late = served.calls(0, "ReplaceRoute", mark);
        ensure!(late.iter().any(|c| c.executed.is_some_and(|e| e.status == 200)), "{late:?}");
        Ok(())
    })?;
    served.wait_routes(1)?;
    served.lab().check_in_service(ROUTE, 1, 1)?;
    served.check_others_untouched()
}
