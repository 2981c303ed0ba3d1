//! Daemons are stopped and started again.

use anyhow::{Result, ensure};
use vipd_tests::{
    lab::{Host, PATIENCE},
    timeline::Moment,
};

use crate::{
    Test,
    scene::{Scene, TAGS, addresses, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("restarts::all_three_at_once_and_the_state_is_back", all_three),
    ("restarts::a_killed_daemon_in_service_is_back_within_its_lease", in_service_killed),
    ("restarts::a_daemon_in_service_is_restarted", in_service_terminated),
    ("restarts::a_virtual_address_as_source_keeps_nobody_from_coming_back", source_of_a_route),
    ("restarts::a_host_that_lost_its_state_stays_silent", state_lost),
    ("restarts::a_host_that_lost_its_pins_stays_silent", pins_lost),
];

fn all_three() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    lab.host(0).vipctl(&["ping-list", "add", "10.77.0.0/24", "10.77.0.100"])?.done()?;
    for host in &lab.hosts {
        host.sigkill()?;
    }
    lab.wait(PATIENCE, "the kernel goes silent by itself", || scene.check_quiet(200))?;
    let restarted = Moment::now();
    lab.hosts.iter().try_for_each(Host::start)?;
    lab.wait_whole()?;
    let owner = lab.wait(PATIENCE, "both addresses are in service again", || {
        let owner = lab.owner(1, TAGS[0])?;
        TAGS.into_iter().try_for_each(|tag| lab.check_in_service(tag, owner, 1))?;
        Ok(owner)
    })?;
    scene.wait_answers(owner, restarted)?;
    let lists = lab.host(2).vipctl(&["ping-list", "show", "10.77.0.0/24", "--node", lab.host(0).name()])?;
    ensure!(lists.stdout.contains("10.77.0.100"), "the ping list is lost: {lists:?}");
    scene.check_terms(&[0, owner])
}

/// The kernel would call the peers from it, and its gate is shut when the daemon returns.
fn source_of_a_route() -> Result<()> {
    let scene = Scene::new(&options(), 1)?;
    let lab = &scene.lab;
    let (host, tag) = (lab.host(1), TAGS[0]);
    host.vipctl(&["set", tag, "source=enable"])?.done()?;
    host.vipctl(&["out-of-service", tag])?.done()?;
    host.vipctl(&["in-service", tag, "--on", host.name()])?.done()?;
    let mut ip = host.command("ip")?;
    let route = ip.args(["route", "get", "10.77.0.3"]).output()?;
    let route = String::from_utf8_lossy(&route.stdout).into_owned();
    ensure!(route.contains("src 10.77.0.50"), "the address is not the route's source: {route}");
    let killed = host.sigkill()?;
    lab.wait(PATIENCE, "another host takes over", || {
        let owner = lab.owner(0, tag)?;
        ensure!(owner != 1, "still the dead one's");
        lab.check_in_service(tag, owner, 0)
    })?;
    scene.check_silent_within_lease(1, killed)?;
    host.start()?;
    lab.wait_whole()
}

fn in_service_killed() -> Result<()> {
    restart(|host| host.sigkill())
}

fn in_service_terminated() -> Result<()> {
    restart(Host::terminate)
}

/// The kernel answers on without the daemon; the new one adopts what it finds and renews the lease.
fn restart(stop: impl Fn(&Host) -> Result<Moment>) -> Result<()> {
    let scene = Scene::new(&options(), 1)?;
    let lab = &scene.lab;
    let before = Moment::now();
    stop(lab.host(1))?;
    lab.host(1).start()?;
    lab.wait_whole()?;
    scene.wait_in_service(1, 1)?;
    scene.wait_answers(1, Moment::now())?;
    for address in addresses() {
        let timeline = scene.capture.timeline().between(before, Moment(u64::MAX));
        let silence = timeline.longest_silence(address);
        ensure!(silence <= scene.lease(), "{address} was not answered for {silence:?}");
    }
    scene.check_terms(&[1])
}

/// It is in no cluster when it returns, while its addresses are in service elsewhere.
fn state_lost() -> Result<()> {
    let scene = Scene::new(&options(), 1)?;
    let lab = &scene.lab;
    let killed = lab.host(1).sigkill()?;
    scene.wait_answers(0, killed)?;
    std::fs::remove_dir_all(lab.host(1).state_dir())?;
    returns_silent(&scene)
}

/// Its addresses are still assigned, nothing guards them, and it finds no quorum to ask.
fn pins_lost() -> Result<()> {
    let scene = Scene::new(&options(), 1)?;
    let lab = &scene.lab;
    let killed = lab.host(1).sigkill()?;
    scene.wait_answers(0, killed)?;
    std::fs::remove_dir_all(lab.host(1).pins())?;
    // Nobody asked this host since: the kernel itself answers from now on. What it says until the daemon
    // is back is beyond the daemon; the terms are looked at from then on.
    returns_silent(&scene)
}

fn returns_silent(scene: &Scene) -> Result<()> {
    let lab = &scene.lab;
    lab.host(1).start()?;
    lab.host(1).wait_up()?;
    let up = Moment::now();
    lab.wait(PATIENCE, "the addresses are gone from the host that returned", || {
        ensure!(!lab.host(1).has_address("10.77.0.50")?, "the IPv4 address is still there");
        ensure!(!lab.host(1).has_address("fd77::50")?, "the IPv6 address is still there");
        Ok(())
    })?;
    scene.wait_answers(0, Moment::now())?;
    let mac = lab.host(1).mac();
    for address in addresses() {
        let last = scene.capture.look(|timeline| timeline.last_use(address, mac));
        ensure!(last.is_none_or(|r| r.time < up), "{address} was used by the host that returned: {last:?}");
    }
    Ok(())
}
