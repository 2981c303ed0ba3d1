//! What the next life of vipd knows of the Elastic IPs that this one had to do with.

use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use vipd_tests::{
    cloud::{Cloud, Fault, Plan, When},
    lab::{Options, PATIENCE},
};

use super::{
    Test,
    eips::{Elastic, PUT, TAKE, plug_second, two_interfaces, writes},
    scene::{Served, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("eips::stay_on_the_standby_interface_when_vipd_is_restarted", stay),
    ("eips::of_which_no_note_can_be_read_are_put_right", damaged),
    ("eips::whose_removal_ec2_did_not_answer_are_taken_off_by_the_next_life", taken_off),
    ("eips::of_deleted_resources_are_taken_off_by_the_next_life", deleted),
    ("eips::whose_association_the_daemon_did_not_live_to_see_are_taken_off", orphaned),
    ("eips::are_taken_off_a_node_that_has_left_the_cluster", left),
    ("eips::that_came_to_another_node_meanwhile_are_left_alone", moved),
];

/// For what resources the host has noted that an Elastic IP may be on it.
fn notes(elastic: &Elastic, host: usize) -> Result<Vec<String>> {
    let dir = elastic.lab().host(host).state_dir().join("elastic-ips");
    let files = fs::read_dir(&dir).with_context(|| format!("no notes in {}", dir.display()))?;
    files.map(|file| Ok(file?.file_name().to_string_lossy().into_owned())).collect()
}

fn wait_no_notes(elastic: &Elastic, host: usize) -> Result<()> {
    elastic.lab().wait(PATIENCE, "nothing is noted any more", || {
        let notes = notes(elastic, host)?;
        ensure!(notes.is_empty(), "{notes:?}");
        Ok(())
    })
}

fn wait_nowhere(elastic: &Elastic) -> Result<()> {
    elastic.lab().wait(PATIENCE, "it is nowhere", || {
        let place = elastic.place()?;
        ensure!(place.is_none(), "it is on {place:?}");
        Ok(())
    })
}

/// The cluster says that it is in service nowhere, and it is on the first host.
fn wait_left_behind(elastic: &Elastic) -> Result<()> {
    // Others learn a moment later than the one that was asked.
    elastic.lab().wait(PATIENCE, "nobody has it in service", || {
        let seen = elastic.lab().resource(1, &elastic.tag)?;
        ensure!(seen.owner.is_none(), "{seen:?}");
        Ok(())
    })?;
    elastic.check_on(0)
}

#[derive(Clone, Copy, Debug)]
enum End {
    Killed,
    Terminated,
}

fn restart(elastic: &Elastic, end: End) -> Result<()> {
    let host = elastic.lab().host(0);
    match end {
        End::Killed => host.sigkill().map(drop)?,
        End::Terminated => host.terminate().map(drop)?,
    }
    host.start()
}

/// Nobody takes over while its daemon takes its time to start.
fn alone(options: Options) -> Options {
    Options { hosts: 1, ..options }
}

fn stay() -> Result<()> {
    let mut second = Vec::new();
    let prepare = |served: &Served| {
        second = plug_second(served)?;
        Ok(())
    };
    let elastic = Elastic::with(&alone(two_interfaces()), prepare, &["--dev", "eth0", "--dev", "eth2"])?;
    let (served, lab, tag) = (&elastic.served, elastic.lab(), elastic.tag.as_str());
    let there = || {
        elastic.check_at(&second[0])?;
        lab.check_in_service(tag, 0, 0)?;
        let used = lab.resource(0, tag)?.device;
        ensure!(used.as_deref() == Some("eth2"), "it is on {used:?}");
        let known = served.known(0, tag)?;
        let seen = known.interface.as_ref() == Some(&second[0]) && known.trouble.is_none();
        ensure!(seen && known.targets.len() == 1, "{known:?}");
        Ok(())
    };
    lab.segment.set_carrier(0, false, false)?;
    lab.wait(PATIENCE, "it is on the second interface", there)?;
    // The first one is as good again, and no reason to go back.
    lab.segment.set_carrier(0, false, true)?;
    served.wait_event(0, "link.up", "eth0")?;
    let epoch = served.epoch(0, tag)?;
    for end in [End::Terminated, End::Killed] {
        let mark = served.cloud().proxy.mark();
        restart(&elastic, end)?;
        lab.wait(PATIENCE, "it is where it was", there)?;
        // Look after look finds it there.
        served.wait_calls(0, "DescribeAddresses", mark, 6)?;
        there().with_context(|| format!("{end:?}"))?;
        let written = elastic.written(mark);
        ensure!(written.is_empty(), "{end:?}: {written:?}");
        ensure!(served.epoch(0, tag)? == epoch, "{end:?}: it was granted anew");
    }
    // What is known of it serves to take it off.
    served.order(0, &["out-of-service", tag])?;
    wait_nowhere(&elastic)?;
    wait_no_notes(&elastic, 0)?;
    elastic.check_others_untouched()
}

fn damaged() -> Result<()> {
    let elastic = Elastic::with(&alone(options()), |_| Ok(()), &["--dev", "eth0"])?;
    let (served, lab, tag) = (&elastic.served, elastic.lab(), elastic.tag.as_str());
    let epoch = served.epoch(0, tag)?;
    let mark = served.cloud().proxy.mark();
    let note = lab.host(0).state_dir().join("elastic-ips").join(format!("{tag}.json"));
    let before = fs::read(&note).context("nothing was noted")?;
    lab.host(0).terminate()?;
    fs::write(&note, &before[..before.len() / 2])?;
    lab.host(0).start()?;
    let said = served.wait_event(0, "ec2.note-lost", tag)?;
    ensure!(said.contains(&*note.to_string_lossy()), "{said}");
    lab.wait(PATIENCE, "it is in service as before, and noted", || {
        ensure!(served.known(0, tag)?.trouble.is_none());
        lab.check_in_service(tag, 0, 0)?;
        ensure!(fs::read(&note)? == before);
        Ok(())
    })?;
    ensure!(
        elastic.written(mark).is_empty() && served.epoch(0, tag)? == epoch,
        "{:?}",
        elastic.written(mark)
    );
    elastic.check_on(0)
}

fn taken_off() -> Result<()> {
    let elastic = Elastic::new()?;
    let (served, lab, tag) = (&elastic.served, elastic.lab(), elastic.tag.as_str());
    let proxy = &served.cloud().proxy;
    for end in [End::Killed, End::Terminated] {
        let context = || format!("{end:?}");
        // Not even where it is: so no write is under way that might come late.
        let silence = proxy.inject(When::action("DescribeAddresses").from(Cloud::address(0)), Fault::Hang);
        let mark = proxy.mark();
        served.order(0, &["out-of-service", tag])?;
        wait_left_behind(&elastic).with_context(context)?;
        restart(&elastic, end)?;
        lab.wait_whole()?;
        wait_left_behind(&elastic).with_context(context)?;
        proxy.lift(silence);
        wait_nowhere(&elastic).with_context(context)?;
        wait_no_notes(&elastic, 0).with_context(context)?;
        let written = elastic.written(mark);
        ensure!(written == writes(&[(0, TAKE)]), "{end:?}: {written:?}");
        elastic.in_service_on(0)?;
        elastic.check_on(0)?;
    }
    elastic.check_others_untouched()
}

/// And their tags are used for others meanwhile.
fn deleted() -> Result<()> {
    let elastic = Elastic::new()?;
    let (served, lab, tag) = (&elastic.served, elastic.lab(), elastic.tag.as_str());
    let (world, proxy) = (&served.instances.world, &served.cloud().proxy);
    let throttle = proxy.inject(When::action(TAKE).from(Cloud::address(0)), Fault::Throttle);
    served.order(0, &["delete", tag])?;
    lab.wait_gone(tag, 1)?;
    elastic.check_on(0)?;
    restart(&elastic, End::Killed)?;
    lab.wait_whole()?;
    elastic.check_on(0)?;
    let next = world.allocate_address()?;
    let create = ["create", "ec2-eip", "--eip", &next.to_string(), "--dev", "eth0", "--tag", tag];
    served.order(1, &create)?;
    served.wait_in_service(tag, 1)?;
    // It is not mistaken for the other one.
    let mark = proxy.mark();
    served.wait_calls(0, TAKE, mark, 1)?;
    proxy.lift(throttle);
    wait_nowhere(&elastic)?;
    wait_no_notes(&elastic, 0)?;
    lab.check_in_service(tag, 1, 0)?;
    ensure!(world.eip(next)?.eni.as_ref() == Some(&world.nodes[1].eni), "{:?}", world.eip(next)?);
    let written = elastic.written(mark);
    ensure!(written == writes(&[(0, TAKE)]), "{written:?}");
    Ok(())
}

/// Killed when it had asked for the association and had no answer: its grant was never in service.
fn orphaned() -> Result<()> {
    let served = Served::empty(&options(), &Plan::default())?;
    let (lab, world) = (served.lab(), &served.instances.world);
    let proxy = &served.cloud().proxy;
    let address = world.allocate_address()?;
    let tag = format!("ec2-{address}");
    let here = || anyhow::Ok(world.eip(address)?.eni);
    served.order(0, &["create", "ec2-eip", "--eip", &address.to_string(), "--dev", "eth0"])?;
    served.wait_in_service(&tag, 0)?;
    served.order(0, &["out-of-service", &tag])?;
    ensure!(here()?.is_none(), "it is on {:?}", here()?);
    let hang = proxy.inject(When::action(PUT).from(Cloud::address(0)), Fault::HangAnswer);
    thread::scope(|scope| {
        // Nobody waits for what they say.
        let order = |word| {
            let tag = &tag;
            scope.spawn(move || lab.host(1).vipctl(&[word, tag]).map(drop))
        };
        let bring = order("in-service");
        lab.wait(PATIENCE, "it is associated", || {
            ensure!(here()?.as_ref() == Some(&world.nodes[0].eni), "it is on {:?}", here()?);
            Ok(())
        })?;
        lab.host(0).sigkill()?;
        let take = order("out-of-service");
        lab.wait(PATIENCE, "nobody has it", || {
            let seen = lab.resource(1, &tag)?;
            ensure!(seen.owner.is_none(), "{seen:?}");
            Ok(())
        })?;
        ensure!(here()?.is_some(), "who took it off?");
        proxy.lift(hang);
        lab.host(0).start()?;
        lab.wait(PATIENCE, "it is nowhere", || {
            ensure!(here()?.is_none(), "it is on {:?}", here()?);
            Ok(())
        })?;
        for order in [bring, take] {
            order.join().ok().context("an order panicked")??;
        }
        Ok(())
    })
}

fn left() -> Result<()> {
    let elastic = Elastic::new()?;
    let (served, tag) = (&elastic.served, elastic.tag.as_str());
    let proxy = &served.cloud().proxy;
    let silence = proxy.inject(When::action("DescribeAddresses").from(Cloud::address(0)), Fault::Hang);
    served.order(0, &["out-of-service", tag])?;
    wait_left_behind(&elastic)?;
    served.order(0, &["cluster", "leave"])?;
    served.wait_event(0, "node.left", "")?;
    let mark = proxy.mark();
    served.wait_calls(0, "DescribeAddresses", mark, 1)?;
    elastic.check_on(0)?;
    proxy.lift(silence);
    wait_nowhere(&elastic)?;
    wait_no_notes(&elastic, 0)?;
    let written = elastic.written(mark);
    ensure!(written == writes(&[(0, TAKE)]), "{written:?}");
    elastic.check_others_untouched()
}

fn moved() -> Result<()> {
    let elastic = Elastic::new()?;
    let (served, lab) = (&elastic.served, elastic.lab());
    lab.host(0).sigkill()?;
    elastic.wait_on(1)?;
    served.wait_in_service(&elastic.tag, 1)?;
    ensure!(notes(&elastic, 0)?.len() == 1, "{:?}", notes(&elastic, 0));
    let association = served.instances.world.eip(elastic.address)?.association;
    let mark = served.cloud().proxy.mark();
    lab.host(0).start()?;
    wait_no_notes(&elastic, 0)?;
    lab.wait_whole()?;
    ensure!(elastic.written(mark).is_empty(), "{:?}", elastic.written(mark));
    ensure!(served.instances.world.eip(elastic.address)?.association == association);
    ensure!(notes(&elastic, 1)?.len() == 1, "{:?}", notes(&elastic, 1));
    lab.check_in_service(&elastic.tag, 1, 0)
}
