//! Two voters without a third vote (row CL-4): silence or freeze, and an operator's word that one of them is dead.

use anyhow::{Context, Result, ensure};
use vipd::api::Status;
use vipd_tests::{
    lab::{Answer, Options, PATIENCE},
    netns::NetNs,
    timeline::Moment,
};

use crate::{
    Test,
    scene::{Scene, TAGS, V4, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("two_nodes::without_a_policy_the_loss_of_one_is_silence", off),
    ("two_nodes::frozen_the_owner_goes_on_without_its_peer", frozen_peer_killed),
    ("two_nodes::frozen_nothing_is_taken_over_from_a_dead_owner", frozen_owner_killed),
    ("two_nodes::frozen_and_cut_apart_only_the_owner_answers", frozen_apart),
    ("two_nodes::an_operators_word_moves_what_the_dead_one_had", forced),
    ("two_nodes::an_operators_word_without_a_policy", forced_without_policy),
    ("two_nodes::a_wrong_word_ends_when_they_meet", wrong_word),
    ("two_nodes::a_restarted_survivor_is_silent_until_told", restarted_survivor),
    ("two_nodes::a_third_node_ends_the_freeze", third_node),
    ("two_nodes::the_tie_breaker_lets_the_survivor_take_over", tie_owner_killed),
    ("two_nodes::the_tie_breaker_lets_the_owner_go_on", tie_peer_killed),
    ("two_nodes::the_tie_breaker_leaves_out_an_owner_that_is_cut_off", tie_owner_cut),
    ("two_nodes::of_two_that_only_lost_one_another_one_goes_on", tie_silenced),
    ("two_nodes::without_the_tie_breaker_nobody_goes_on", tie_unreachable),
];

fn two() -> Options {
    Options { hosts: 2, ..options() }
}

/// Nothing of the policy counts before both may hold their leases alone.
fn freeze(scene: &Scene) -> Result<()> {
    let lab = &scene.lab;
    lab.host(0).vipctl(&["cluster", "set", "two-nodes=freeze"])?.done().map_err(|e| lab.explain(e))?;
    lab.wait(PATIENCE, "both hold their leases alone", || {
        for host in &lab.hosts {
            let status = host.status()?;
            ensure!(status.nodes.iter().all(|n| n.holds_alone), "not yet as {} sees it", host.name());
        }
        Ok(())
    })
}

fn frozen() -> Result<Scene> {
    let scene = Scene::new(&two(), 0)?;
    freeze(&scene)?;
    Ok(scene)
}

/// Well after every lease of before has run out.
fn later(scene: &Scene, from: Moment) -> Moment {
    Moment(from.0 + 3 * scene.lease().as_nanos() as u64)
}

/// Until the host knows that it has no quorum.
fn wait_alone(scene: &Scene, host: usize) -> Result<Status> {
    scene.lab.wait(PATIENCE, "the survivor knows that it is alone", || {
        let status = scene.lab.host(host).status()?;
        ensure!(status.cluster.as_ref().is_some_and(|c| !c.quorum), "it believes in a quorum");
        Ok(status)
    })
}

fn says(status: &Status, what: &str) -> Result<()> {
    ensure!(status.warnings.iter().any(|w| w.contains(what)), "'{what}' is not in {:?}", status.warnings);
    Ok(())
}

fn force(scene: &Scene, on: usize, dead: usize) -> Result<Answer> {
    let lab = &scene.lab;
    lab.host(on).vipctl(&["cluster", "force-quorum", "--i-confirm-dead", lab.host(dead).name()])
}

/// Until the host that returned is a voter again, holds nothing, and nobody calls anything unsafe.
fn wait_taken_back(scene: &Scene, returned: usize) -> Result<()> {
    let lab = &scene.lab;
    lab.wait_whole()?;
    lab.wait(PATIENCE, "the returned host is a voter again and holds nothing", || {
        for host in &lab.hosts {
            let status = host.status()?;
            let cluster = status.cluster.as_ref().context("no cluster")?;
            ensure!(cluster.voters == 2, "{} counts {} voters", host.name(), cluster.voters);
            ensure!(!status.nodes.iter().any(|n| n.declared_dead), "still declared dead");
            ensure!(!status.warnings.iter().any(|w| w.starts_with("UNSAFE")), "{:?}", status.warnings);
        }
        ensure!(!lab.host(returned).has_address("10.77.0.50")?, "the IPv4 address is still there");
        ensure!(!lab.host(returned).has_address("fd77::50")?, "the IPv6 address is still there");
        Ok(())
    })
}

fn off() -> Result<()> {
    let scene = Scene::new(&two(), 0)?;
    let lab = &scene.lab;
    says(&lab.host(0).status()?, "two voters are no failover")?;
    let listed = lab.host(0).vipctl(&["node", "list"])?.done()?.stdout;
    ensure!(listed.contains("two voters are no failover"), "node list does not say so:\n{listed}");
    let killed = lab.host(1).sigkill()?;
    let status = wait_alone(&scene, 0)?;
    says(&status, "there is no failover, and all addresses are silent")?;
    lab.wait(PATIENCE, "the lease is over", || {
        ensure!(!lab.host(0).status()?.lease.valid, "it is valid");
        Ok(())
    })?;
    scene.check_silent_within_lease(0, killed)?;
    scene.check_quiet(500)?;
    lab.host(1).start()?;
    lab.wait_whole()?;
    scene.wait_answers(0, Moment::now())?;
    scene.check_terms(&[0])
}

fn frozen_peer_killed() -> Result<()> {
    let scene = frozen()?;
    let lab = &scene.lab;
    says(&lab.host(0).status()?, "two voters freeze")?;
    let killed = lab.host(1).sigkill()?;
    scene.wait_answers(0, later(&scene, killed))?;
    let status = wait_alone(&scene, 0)?;
    ensure!(status.lease.valid, "the lease is lost");
    says(&status, "this node keeps what it has")?;
    let address = V4.split('/').next().context("an address")?.parse()?;
    let longest = scene.capture.look(|t| t.between(killed, Moment::now()).longest_silence(address));
    ensure!(longest < scene.lease(), "it was silent for {longest:?}");
    let answer = lab.host(0).vipctl(&["out-of-service", TAGS[0]])?;
    ensure!(answer.code() == 5, "exit code 5 (no quorum) expected: {answer:?}");
    lab.host(1).start()?;
    lab.wait_whole()?;
    scene.wait_in_service(0, 1)?;
    scene.wait_answers(0, Moment::now())?;
    scene.check_terms(&[0])
}

fn frozen_owner_killed() -> Result<()> {
    let scene = frozen()?;
    let lab = &scene.lab;
    let killed = lab.host(0).sigkill()?;
    let status = wait_alone(&scene, 1)?;
    says(&status, "takes over nothing")?;
    // The kernel of a dead daemon answers until its lease runs out, and nobody after that.
    lab.wait(PATIENCE, "the dead owner's lease is over", || {
        ensure!(Moment::now() > later(&scene, killed), "not yet");
        Ok(())
    })?;
    scene.check_silent_within_lease(0, killed)?;
    scene.check_quiet(500)?;
    lab.host(0).start()?;
    lab.wait_whole()?;
    scene.wait_answers(0, Moment::now())?;
    scene.check_terms(&[0])
}

fn frozen_apart() -> Result<()> {
    let scene = frozen()?;
    let lab = &scene.lab;
    lab.segment.partition(0, 1)?;
    let parted = Moment::now();
    scene.wait_answers(0, later(&scene, parted))?;
    let status = wait_alone(&scene, 1)?;
    ensure!(status.lease.valid, "each keeps its lease");
    lab.segment.heal()?;
    lab.wait_whole()?;
    scene.wait_answers(0, Moment::now())?;
    scene.check_terms(&[0])
}

fn forced() -> Result<()> {
    let scene = frozen()?;
    let lab = &scene.lab;
    let answer = force(&scene, 1, 0)?;
    ensure!(answer.code() == 4, "one that is alive must not be declared dead: {answer:?}");
    lab.host(0).sigkill()?;
    take_over_by_word(&scene)
}

fn forced_without_policy() -> Result<()> {
    let scene = Scene::new(&two(), 0)?;
    scene.lab.host(0).sigkill()?;
    take_over_by_word(&scene)
}

/// The owner, host 0, was killed; the other is told so.
fn take_over_by_word(scene: &Scene) -> Result<()> {
    let lab = &scene.lab;
    wait_alone(scene, 1)?;
    let told = force(scene, 1, 0)?.done().map_err(|e| lab.explain(e))?;
    ensure!(told.stdout.contains("UNSAFE"), "the answer does not call it unsafe: {told:?}");
    ensure!(told.stderr.contains("UNSAFE"), "there was no warning before: {told:?}");
    scene.wait_in_service(1, 1)?;
    let forced = Moment::now();
    scene.wait_answers(1, forced)?;
    lab.wait(PATIENCE, "the last voter has a quorum, and calls it unsafe", || {
        let status = lab.host(1).status()?;
        let cluster = status.cluster.as_ref().context("no cluster")?;
        ensure!(cluster.quorum && cluster.voters == 1, "{cluster:?}");
        ensure!(cluster.cautions.iter().any(|c| c.starts_with("UNSAFE")), "{cluster:?}");
        says(&status, "UNSAFE: an operator declared node")
    })?;
    let events = lab.host(1).events()?;
    ensure!(events.iter().any(|e| e.kind == "cluster.forced" && e.message.contains("UNSAFE")), "no event");
    // It can decide: a resource is made and unmade.
    let create = ["create", "ip", "10.77.0.60/24", "--dev", "eth0", "--tag", "more"];
    lab.host(1).vipctl(&create)?.done().map_err(|e| lab.explain(e))?;
    lab.host(1).vipctl(&["delete", "more"])?.done().map_err(|e| lab.explain(e))?;

    lab.host(0).start()?;
    wait_taken_back(scene, 0)?;
    scene.wait_in_service(1, 0)?;
    scene.wait_answers(1, Moment::now())?;
    // It is as good as before: what it is given it serves.
    for tag in TAGS {
        lab.host(0)
            .vipctl(&["in-service", tag, "--on", lab.host(0).name()])?
            .done()
            .map_err(|e| lab.explain(e))?;
    }
    scene.wait_answers(0, Moment::now())?;
    scene.check_terms(&[0, 1, 0])
}

/// The operator was wrong: the owner was only cut off, and both answer. Once they meet, the one that was declared
/// dead stops, before it has read anything of what was decided without it.
fn wrong_word() -> Result<()> {
    let scene = frozen()?;
    let lab = &scene.lab;
    lab.segment.partition(0, 1)?;
    wait_alone(&scene, 1)?;
    force(&scene, 1, 0)?.done().map_err(|e| lab.explain(e))?;
    scene.wait_answers(1, Moment::now())?;
    lab.segment.heal()?;
    wait_taken_back(&scene, 0)?;
    let met = Moment::now();
    scene.wait_answers(1, later(&scene, met))?;
    let address = V4.split('/').next().context("an address")?.parse()?;
    let users = scene.capture.look(|t| t.between(met, Moment(u64::MAX)).users(address));
    ensure!(users == [lab.host(1).mac()], "used by {users:?} after they had met");
    Ok(())
}

/// What was decided before it started it cannot know alone: it waits for its peer, or for an operator.
fn restarted_survivor() -> Result<()> {
    let scene = frozen()?;
    let lab = &scene.lab;
    lab.host(1).sigkill()?;
    wait_alone(&scene, 0)?;
    let killed = lab.host(0).sigkill()?;
    lab.host(0).start()?;
    lab.host(0).wait_up()?;
    lab.wait(PATIENCE, "the lease of before is over", || {
        let status = lab.host(0).status()?;
        ensure!(!status.lease.valid, "it is valid");
        says(&status, "frozen without a lease")
    })?;
    scene.check_silent_within_lease(0, killed)?;
    scene.check_quiet(300)?;
    force(&scene, 0, 1)?.done().map_err(|e| lab.explain(e))?;
    scene.wait_answers(0, Moment::now())?;
    lab.host(1).start()?;
    wait_taken_back(&scene, 1)?;
    scene.wait_in_service(0, 1)?;
    scene.check_terms(&[0])
}

/// Host 2 joins late.
fn third_node() -> Result<()> {
    let scene = Scene::founded(&Options { hosts: 3, ..options() }, 2)?;
    let lab = &scene.lab;
    lab.host(0).vipctl(&["cluster", "set", "two-nodes=freeze"])?.done().map_err(|e| lab.explain(e))?;
    let alone = |wanted: bool| {
        lab.wait(PATIENCE, "it is as it should be who holds alone", || {
            let nodes = lab.host(0).status()?.nodes;
            ensure!(nodes.iter().all(|n| n.holds_alone == wanted), "{nodes:?}");
            Ok(())
        })
    };
    alone(true)?;
    lab.host(2).start()?;
    lab.host(2).wait_up()?;
    lab.join(2, 0)?;
    lab.wait_whole()?;
    alone(false)?;
    for tag in TAGS {
        lab.host(0).vipctl(&["extend", tag, "--to", lab.host(2).name(), "--dev", "eth0"])?.done()?;
    }
    let killed = lab.host(0).sigkill()?;
    scene.wait_answers(1, killed)?;
    scene.check_silent_within_lease(0, killed)?;
    scene.check_terms(&[0, 1])
}

/// Another namespace on the clients' network.
const ROUTER: u8 = 200;

/// The router is the tie-breaker.
fn tied() -> Result<(Scene, NetNs)> {
    let scene = Scene::new(&two(), 0)?;
    let lab = &scene.lab;
    let router = lab.segment.plug_other("vipd-router", ROUTER)?;
    let set = ["cluster", "set", "two-nodes=tie-breaker"];
    let refused = lab.host(0).vipctl(&set)?;
    ensure!(refused.code() == 4, "without a host it must be refused: {refused:?}");
    ensure!(refused.stderr.contains("vipctl connectivity add"), "no remedy: {refused:?}");
    let address = format!("10.77.0.{ROUTER}");
    lab.host(0).vipctl(&["connectivity", "add", &address])?.done().map_err(|e| lab.explain(e))?;
    let told = lab.host(0).vipctl(&set)?.done().map_err(|e| lab.explain(e))?;
    ensure!(told.stdout.contains("UNSAFE"), "it is not called unsafe: {told:?}");
    let refused = lab.host(0).vipctl(&["connectivity", "remove", &address])?;
    ensure!(refused.code() == 4, "the last host must not go: {refused:?}");
    lab.wait(PATIENCE, "both know the policy", || {
        lab.hosts.iter().try_for_each(|host| says(&host.status()?, "UNSAFE: two-nodes=tie-breaker"))
    })?;
    Ok((scene, router))
}

/// Until it decides alone, and says by whose word.
fn wait_gone_on(scene: &Scene, host: usize) -> Result<()> {
    scene.lab.wait(PATIENCE, "it goes on alone by itself", || {
        let host = scene.lab.host(host);
        let status = host.status()?;
        ensure!(status.cluster.as_ref().is_some_and(|c| c.quorum && c.voters == 1), "{:?}", status.cluster);
        says(&status, "UNSAFE: the tie-breaker")?;
        let events = host.events()?;
        let by = |m: &str| m.contains("by the tie-breaker") && m.contains("UNSAFE");
        ensure!(events.iter().any(|e| e.kind == "cluster.forced" && by(&e.message)), "no event");
        Ok(())
    })
}

fn wait_event(scene: &Scene, host: usize, text: &str) -> Result<()> {
    scene.lab.wait(PATIENCE, "it says why it does not go on", || {
        let events = scene.lab.host(host).events()?;
        let ties: Vec<_> = events.into_iter().filter(|e| e.kind == "cluster.tie").collect();
        ensure!(ties.iter().any(|e| e.message.contains(text)), "'{text}' is not in {ties:?}");
        Ok(())
    })
}

/// As [`wait_taken_back`], under a policy that is called unsafe itself.
fn wait_both_vote(scene: &Scene) -> Result<()> {
    scene.lab.wait_whole()?;
    scene.lab.wait(PATIENCE, "both vote, and neither is declared dead", || {
        for host in &scene.lab.hosts {
            let status = host.status()?;
            ensure!(status.cluster.as_ref().is_some_and(|c| c.voters == 2), "{:?}", status.cluster);
            ensure!(!status.nodes.iter().any(|n| n.declared_dead), "still declared dead");
        }
        Ok(())
    })
}

fn tie_owner_killed() -> Result<()> {
    let (scene, _router) = tied()?;
    let lab = &scene.lab;
    let killed = lab.host(0).sigkill()?;
    wait_gone_on(&scene, 1)?;
    scene.wait_answers(1, killed)?;
    scene.check_silent_within_lease(0, killed)?;
    lab.host(0).start()?;
    wait_both_vote(&scene)?;
    scene.wait_in_service(1, 0)?;
    ensure!(!lab.host(0).has_address("10.77.0.50")?, "the returned host has the address");
    scene.wait_answers(1, Moment::now())?;
    scene.check_terms(&[0, 1])
}

fn tie_peer_killed() -> Result<()> {
    let (scene, _router) = tied()?;
    let killed = scene.lab.host(1).sigkill()?;
    wait_gone_on(&scene, 0)?;
    scene.wait_answers(0, later(&scene, killed))?;
    scene.lab.host(1).start()?;
    wait_both_vote(&scene)?;
    scene.wait_answers(0, Moment::now())?;
    scene.check_terms(&[0])
}

fn tie_owner_cut() -> Result<()> {
    let (scene, _router) = tied()?;
    let lab = &scene.lab;
    lab.segment.cut(0)?;
    let cut = Moment::now();
    wait_event(&scene, 0, "reaches 0 of the 1 connectivity hosts")?;
    wait_gone_on(&scene, 1)?;
    scene.wait_answers(1, cut)?;
    ensure!(lab.host(0).status()?.cluster.is_some_and(|c| !c.quorum), "the one that is cut off goes on");
    lab.segment.mend(0)?;
    wait_both_vote(&scene)?;
    scene.wait_answers(1, Moment::now())?;
    scene.check_terms(&[0, 1])
}

fn tie_silenced() -> Result<()> {
    let (scene, _router) = tied()?;
    let lab = &scene.lab;
    lab.segment.silence(0, 1)?;
    let parted = Moment::now();
    wait_gone_on(&scene, 0)?;
    wait_event(&scene, 1, "the other node is alive")?;
    scene.wait_answers(0, later(&scene, parted))?;
    let status = lab.host(1).status()?;
    ensure!(status.cluster.is_some_and(|c| !c.quorum && c.voters == 2), "both went on");
    lab.segment.heal()?;
    wait_both_vote(&scene)?;
    scene.wait_answers(0, Moment::now())?;
    scene.check_terms(&[0])
}

fn tie_unreachable() -> Result<()> {
    let (scene, _router) = tied()?;
    let lab = &scene.lab;
    for host in 0..2 {
        lab.segment.part_from(host, &[ROUTER])?;
    }
    lab.segment.partition(0, 1)?;
    let parted = Moment::now();
    for host in 0..2 {
        wait_event(&scene, host, "reaches 0 of the 1 connectivity hosts")?;
        let status = lab.host(host).status()?;
        ensure!(status.cluster.is_some_and(|c| !c.quorum && c.voters == 2), "it goes on");
    }
    scene.check_silent_within_lease(0, parted)?;
    scene.check_quiet(500)?;
    lab.segment.heal()?;
    lab.wait_whole()?;
    scene.wait_answers(0, Moment::now())?;
    scene.check_terms(&[0])
}
