//! Elastic IPs where the API is silent, fails or lies, and where two nodes want them.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use vipd_tests::{
    cloud::{Cloud, Fault, When},
    lab::PATIENCE,
};

use super::{
    Test,
    eips::{Elastic, PUT, TAKE},
};

pub const TESTS: &[(&str, Test)] = &[
    ("eips::whatever_becomes_of_an_association_they_are_right_in_the_end", associations),
    ("eips::whatever_becomes_of_a_disassociation_they_are_right_in_the_end", disassociations),
    ("eips::are_taken_from_a_node_that_cannot_let_go_of_them", silent),
    ("eips::whatever_becomes_of_a_repair_they_come_back", repairs),
    ("eips::an_owner_that_was_frozen_between_two_attempts_writes_nothing", frozen),
    ("eips::a_removal_that_comes_late_does_not_hit_the_next_owner", late_removal),
    ("eips::an_association_that_comes_late_takes_it_from_nobody", late_association),
];

fn faults() -> impl Iterator<Item = Fault> {
    Fault::OF_WRITES.into_iter().chain([Fault::Throttle])
}

fn associations() -> Result<()> {
    moved_in_spite_of(PUT)
}

fn disassociations() -> Result<()> {
    moved_in_spite_of(TAKE)
}

/// Each of them, on the way to the next owner, as ordered.
fn moved_in_spite_of(action: &str) -> Result<()> {
    let elastic = Elastic::new()?;
    let (served, proxy) = (&elastic.served, &elastic.served.cloud().proxy);
    for (n, fault) in faults().enumerate() {
        let to = 1 + n % 2;
        let mark = proxy.mark();
        let rule = proxy.inject(When::action(action).times(2), fault);
        let context = || format!("{fault:?} of {action}");
        elastic.in_service_on(to).with_context(context)?;
        elastic.check_on(to).with_context(context)?;
        let hit = proxy.calls_since(mark).iter().filter(|c| c.fault == Some(fault)).count();
        ensure!(hit >= 1, "{fault:?} befell {hit} calls");
        // A write that was held up comes through only now: it is no other node's, or of no consequence.
        proxy.lift(rule);
        elastic.wait_on(to).with_context(context)?;
        served.wait_in_service(&elastic.tag, to).with_context(context)?;
        elastic.check_others_untouched().with_context(context)?;
    }
    Ok(())
}

/// Each of them, while the owner takes it back from a stranger.
fn repairs() -> Result<()> {
    let elastic = Elastic::new()?;
    let (served, proxy) = (&elastic.served, &elastic.served.cloud().proxy);
    let epoch = served.epoch(0, &elastic.tag)?;
    for (action, fault) in [TAKE, PUT].into_iter().flat_map(|a| faults().map(move |f| (a, f))) {
        let context = || format!("{fault:?} of {action}");
        let mark = proxy.mark();
        let rule = proxy.inject(When::action(action).times(2), fault);
        elastic.steal(&served.instances.world.stranger.eni)?;
        elastic.wait_on(0).with_context(context)?;
        let hit = proxy.calls_since(mark).iter().filter(|c| c.fault == Some(fault)).count();
        ensure!(hit >= 1, "{fault:?} befell {hit} calls");
        proxy.lift(rule);
        elastic.wait_on(0).with_context(context)?;
        elastic.lab().wait(PATIENCE, "it is mended", || {
            let known = served.known(0, &elastic.tag)?;
            ensure!(known.trouble.is_none(), "{known:?}");
            elastic.lab().check_in_service(&elastic.tag, 0, 0)
        })?;
        ensure!(served.epoch(0, &elastic.tag)? == epoch, "granted anew after {fault:?} of {action}");
    }
    elastic.check_others_untouched()
}

fn silent() -> Result<()> {
    let elastic = Elastic::new()?;
    let served = &elastic.served;
    served.cloud().cut(0)?;
    let begun = Instant::now();
    elastic.in_service_on(1)?;
    // Far less than EC2_REMOVE_TIMEOUT.
    ensure!(begun.elapsed() < PATIENCE, "that took {:?}", begun.elapsed());
    elastic.check_on(1)?;
    elastic.lab().check_in_service(&elastic.tag, 1, 1)?;
    served.cloud().mend(0)?;
    // And back to where it was not let go of.
    elastic.in_service_on(0)?;
    elastic.check_on(0)?;
    elastic.check_others_untouched()
}

/// The first host is turned away again and again while it takes it back, and frozen between two attempts; the second
/// one takes over.
fn frozen() -> Result<()> {
    let elastic = Elastic::new()?;
    let (served, lab, proxy) = (&elastic.served, elastic.lab(), &elastic.served.cloud().proxy);
    for action in [TAKE, PUT] {
        let rule = proxy.inject(When::action(action).from(Cloud::address(0)), Fault::Throttle);
        let mark = proxy.mark();
        elastic.steal(&served.instances.world.stranger.eni)?;
        served.wait_calls(0, action, mark, 1)?;
        lab.host(0).sigstop()?;
        elastic.wait_on(1)?;
        served.wait_in_service(&elastic.tag, 1)?;
        // It wakes up in the belief that it is its turn to try again.
        proxy.lift(rule);
        let mark = proxy.mark();
        lab.host(0).sigcont()?;
        lab.wait(PATIENCE, "the first host knows that it was deposed, and is back", || {
            lab.check_in_service(&elastic.tag, 1, 0)
        })?;
        lab.wait_whole()?;
        let written = [TAKE, PUT].map(|action| served.calls(0, action, mark));
        ensure!(written.iter().all(Vec::is_empty), "{written:?}");
        elastic.check_on(1)?;
        elastic.in_service_on(0)?;
        elastic.check_on(0)?;
    }
    elastic.check_others_untouched()
}

/// It is under way, and stays so, until somebody else has it.
fn late_removal() -> Result<()> {
    let elastic = Elastic::new()?;
    let (served, lab, proxy) = (&elastic.served, elastic.lab(), &elastic.served.cloud().proxy);
    let rule = proxy.inject(When::action(TAKE).from(Cloud::address(0)), Fault::Hang);
    let mark = proxy.mark();
    elastic.in_service_on(1)?;
    elastic.check_on(1)?;
    let association = served.instances.world.eip(elastic.address)?.association;
    ensure!(!served.calls(0, TAKE, mark).is_empty(), "it was not let go of");
    proxy.lift(rule);
    lab.wait(PATIENCE, "the late removal is executed", || {
        let late = served.calls(0, TAKE, mark);
        ensure!(late.iter().all(|c| c.executed.is_some()), "{late:?}");
        Ok(())
    })?;
    let now = served.instances.world.eip(elastic.address)?;
    ensure!(now.association == association, "{now:?}");
    lab.check_in_service(&elastic.tag, 1, 1)?;
    elastic.check_on(1)?;
    elastic.check_others_untouched()
}

/// The first host's write is under way, and stays so, when it dies.
fn late_association() -> Result<()> {
    let elastic = Elastic::new()?;
    let (served, lab, proxy) = (&elastic.served, elastic.lab(), &elastic.served.cloud().proxy);
    let rule = proxy.inject(When::action(PUT).from(Cloud::address(0)), Fault::Hang);
    let mark = proxy.mark();
    elastic.steal(&served.instances.world.stranger.eni)?;
    served.wait_calls(0, PUT, mark, 1)?;
    lab.host(0).sigkill()?;
    elastic.wait_on(1)?;
    served.wait_in_service(&elastic.tag, 1)?;
    let association = served.instances.world.eip(elastic.address)?.association;
    proxy.lift(rule);
    lab.wait(PATIENCE, "the late write is executed", || {
        let late = served.calls(0, PUT, mark);
        ensure!(late.iter().all(|c| c.executed.is_some()), "{late:?}");
        Ok(())
    })?;
    let now = served.instances.world.eip(elastic.address)?;
    ensure!(now.association == association, "{now:?}");
    elastic.check_on(1)?;
    lab.check_in_service(&elastic.tag, 1, 1)?;
    elastic.check_others_untouched()
}
