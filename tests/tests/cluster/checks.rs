//! Every node that a change concerns checks it on itself first, through the real daemons (row CL-6).

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use vipd_tests::lab::{Answer, Lab, NewIp, Options, PATIENCE, Store};

use crate::{
    Test,
    operator::{explained, json, refused},
    scene::options,
};

pub const TESTS: &[(&str, Test)] = &[
    ("checks::an_interface_that_the_other_node_lacks_is_refused_by_name", interface),
    ("checks::with_etcd_an_interface_that_the_other_node_lacks_is_refused_too", interface_with_etcd),
    ("checks::faults_on_two_other_nodes_are_told_together", two_faults),
    ("checks::a_third_node_can_refuse_a_dependency", dependency),
    ("checks::a_dead_node_holds_up_what_it_would_get_and_not_what_it_loses", dead_node),
    ("checks::a_frozen_node_is_named_within_seconds", frozen_node),
    ("checks::two_that_create_the_same_address_at_once_do_not_refuse_each_other", two_creates),
    ("checks::a_stranger_is_met_by_the_node_that_shares_his_segment", stranger),
    ("checks::a_hierarchy_is_gone_when_its_deletion_ends", deletion),
];

const IP: &str = "ip";
const WEB: &str = "web";

fn formed() -> Result<Lab> {
    formed_with(&options())
}

fn formed_with(options: &Options) -> Result<Lab> {
    let lab = Lab::new(options)?;
    lab.form_cluster()?;
    Ok(lab)
}

/// `ip` and `web` on the first host and extended to these.
fn pair(extend_to: &[usize]) -> Result<Lab> {
    with_pair(formed()?, extend_to)
}

fn with_pair(lab: Lab, extend_to: &[usize]) -> Result<Lab> {
    for (tag, address) in [(IP, "10.77.0.51/24"), (WEB, "10.77.0.52/24")] {
        lab.create_ip(&NewIp { address, tag, on: 0, extend_to })?;
    }
    Ok(lab)
}

fn exported(lab: &Lab) -> Result<String> {
    Ok(lab.host(0).vipctl(&["export"])?.done()?.stdout)
}

/// Refused by a check for all of these reasons, and the configuration is what it was.
fn unchanged(lab: &Lab, arguments: &[&str], reasons: &[&str]) -> Result<()> {
    let before = exported(lab)?;
    for reason in reasons {
        refused(lab.host(0), arguments, 4, reason)?;
    }
    let after = exported(lab)?;
    ensure!(before == after, "vipctl {arguments:?} was refused and changed\n{before}\nto\n{after}");
    Ok(())
}

fn order(lab: &Lab, arguments: &[&str]) -> Result<String> {
    Ok(lab.host(0).vipctl(arguments)?.done()?.stdout)
}

fn interface() -> Result<()> {
    interface_in(pair(&[])?)
}

fn interface_with_etcd() -> Result<()> {
    interface_in(with_pair(formed_with(&Options { store: Store::Etcd, ..options() })?, &[])?)
}

fn interface_in(lab: Lab) -> Result<()> {
    explained(&lab, || {
        // The first host has it, the second does not.
        lab.segment.host(0).ip("link add eth7 type veth peer name eth7p")?;
        lab.segment.host(0).ip("link set eth7 up")?;
        lab.segment.host(0).ip("link set eth7p up")?;
        let reasons = ["web on host2: ", "no interface 'eth7'", "allowed: eth0", "nothing was changed"];
        unchanged(&lab, &["extend", WEB, "--to", "host2", "--dev", "eth7"], &reasons)?;
        order(&lab, &["extend", WEB, "--to", "host2", "--dev", "eth0"])?;
        // With a new resource it is the same.
        let create = ["create", "ip", "10.79.0.9/24", "--dev", "eth7", "--extend-to", "all"];
        unchanged(&lab, &create, &["2 objections", "on host2: ", "on host3: ", "no interface 'eth7'"])
    })
}

fn two_faults() -> Result<()> {
    let lab = formed()?;
    explained(&lab, || {
        let resource = |tag: &str, address: &str, two: &str, three: &str| {
            format!(
                "[[resource]]\ntag = \"{tag}\"\naddresses = [\"{address}/24\"]\n[resource.nodes]\n\
                 host1 = {{ priority = 1, devices = [\"eth0\"] }}\nhost2 = {{ priority = 2, devices = [\"{two}\"] }}\n\
                 host3 = {{ priority = 3, devices = [\"{three}\"] }}\n"
            )
        };
        // Each fault is on a host of its own, and a third is a stationary address.
        lab.segment.host(2).ip("addr add 10.77.0.53/24 dev eth0")?;
        let text = [
            resource("one", "10.77.0.51", "eth5", "eth0"),
            resource("two", "10.77.0.52", "eth0", "eth6"),
            resource("three", "10.77.0.53", "eth0", "eth0"),
        ];
        let path = lab.dir().join("c.toml");
        fs::write(&path, text.concat())?;
        let path = path.display().to_string();
        let reasons = ["one on host2: ", "'eth5'", "two on host3: ", "'eth6'", "three on host3: 10.77.0.53"];
        unchanged(&lab, &["apply", &path], &reasons)?;
        unchanged(&lab, &["apply", &path, "--dry-run"], &reasons)?;
        lab.segment.host(2).ip("addr del 10.77.0.53/24 dev eth0")?;
        let good = text.concat().replace("eth5", "eth0").replace("eth6", "eth0");
        fs::write(&path, good)?;
        let planned = json(lab.host(0), &["apply", &path, "--dry-run"])?;
        let nothing = |key: &str| planned[key].as_array().is_some_and(Vec::is_empty);
        ensure!(nothing("findings") && nothing("notes") && planned.get("unchecked").is_none(), "{planned}");
        order(&lab, &["apply", &path]).map(drop)
    })
}

fn dependency() -> Result<()> {
    let lab = pair(&[1, 2])?;
    explained(&lab, || {
        lab.segment.host(2).ip("link add eth7 type veth peer name eth7p")?;
        order(&lab, &["set", IP, "devices=eth0", "--node", "host3"])?;
        // The address's subnet comes to another interface there, which alone may carry it from then on.
        lab.segment.host(2).ip("link set eth7 up")?;
        lab.segment.host(2).ip("link set eth7p up")?;
        lab.segment.host(2).ip("addr add 10.79.0.3/24 dev eth7")?;
        order(&lab, &["create", "ip", "10.79.0.9/24", "--dev", "eth0", "--tag", "other"])?;
        order(&lab, &["extend", "other", "--to", "host2", "--priority", "10", "--dev", "eth0"])?;
        let extend = ["extend", "other", "--to", "host3", "--priority", "20", "--dev", "eth0"];
        unchanged(&lab, &extend, &["other on host3: 10.79.0.9 cannot be on eth0", "allowed: eth7"])?;
        order(&lab, &["extend", "other", "--to", "host3", "--priority", "20", "--dev", "eth7"])?;
        lab.segment.host(2).ip("link set eth7 down")?;
        unchanged(&lab, &["depend", "other", IP], &["other on host3: ", "is down", "nothing was changed"])?;
        lab.segment.host(2).ip("link set eth7 up")?;
        lab.wait(PATIENCE, "the interface is up again and the dependency accepted", || {
            order(&lab, &["depend", "other", IP]).map(drop)
        })?;
        let said = order(&lab, &["undepend", "other", IP])?;
        ensure!(!said.contains("not checked"), "{said}");
        Ok(())
    })
}

/// Until the first host does not hear the third.
fn wait_silent(lab: &Lab) -> Result<()> {
    lab.wait(PATIENCE, "the third host is not heard", || {
        let status = lab.host(0).status()?;
        ensure!(status.nodes.iter().any(|n| n.name == "host3" && !n.alive), "{:?}", status.nodes);
        Ok(())
    })
}

fn dead_node() -> Result<()> {
    let lab = pair(&[1])?;
    explained(&lab, || {
        order(&lab, &["extend", IP, "--to", "host3"])?;
        lab.host(2).sigkill()?;
        wait_silent(&lab)?;
        let extend = ["extend", WEB, "--to", "host3"];
        unchanged(&lab, &extend, &["node 'host3' is down", "web", "--force"])?;
        unchanged(&lab, &["create", "ip", "10.77.0.60/24", "--extend-to", "all"], &["node 'host3' is down"])?;
        let said = order(&lab, &[&extend[..], &["--force"]].concat())?;
        ensure!(said.contains("node host3 is down") && said.contains("not checked there"), "{said}");
        let said = order(&lab, &["unextend", WEB, "--from", "host3"])?;
        ensure!(said.contains("node host3 is down"), "{said}");
        let said = order(&lab, &["delete", IP])?;
        ensure!(said.contains("node host3 is down"), "{said}");
        ensure!(lab.host(0).status()?.resources.len() == 1, "it is still there");
        Ok(())
    })
}

/// The signal is on its way to all threads of the third host's daemon for a moment.
fn freeze(lab: &Lab) -> Result<()> {
    lab.host(2).sigstop()?;
    let pid = lab.host(2).pid().context("the daemon is gone")?;
    lab.wait(PATIENCE, "all threads are stopped", || {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = fs::read_to_string(thread?.path().join("status"))?;
            ensure!(status.contains("State:\tT"), "one runs");
        }
        Ok(())
    })
}

/// Its kernel takes calls and its daemon does not answer: until it is suspected it counts as there.
fn frozen_node() -> Result<()> {
    let lab = pair(&[1])?;
    explained(&lab, || {
        freeze(&lab)?;
        let begun = std::time::Instant::now();
        refused(lab.host(0), &["extend", WEB, "--to", "host3"], 4, "node 'host3'")?;
        refused(lab.host(0), &["create", "ip", "10.77.0.60/24", "--extend-to", "host3"], 4, "node 'host3'")?;
        let took = begun.elapsed();
        ensure!(took < PATIENCE / 2, "it took {took:?} to refuse");
        lab.host(2).sigcont()?;
        lab.wait_whole()?;
        lab.wait(PATIENCE, "it is created once the host is back", || {
            let create = ["create", "ip", "10.77.0.60/24", "--tag", "late", "--extend-to", "host3"];
            match lab.host(0).vipctl(&create)? {
                answer if answer.stderr.contains("is taken") => Ok(()),
                answer => answer.done().map(drop),
            }
        })
    })
}

fn two_creates() -> Result<()> {
    let lab = formed()?;
    explained(&lab, || {
        for n in 0..8 {
            // The later one looks while the first is being checked, decided, and brought up. With the others' checks,
            // and without.
            let later = Duration::from_millis(30 * n);
            let more: &[&str] = if n % 2 == 0 { &["--extend-to", "all"] } else { &[] };
            let address = format!("10.77.0.{}/24", 60 + n);
            let create = |host: usize| -> Result<Answer> {
                let tag = format!("at-{host}-{n}");
                let create = ["create", "ip", &address, "--tag", &tag, "--no-wait"];
                lab.host(host).vipctl(&[&create[..], more].concat())
            };
            let create = &create;
            let (one, two) = std::thread::scope(|scope| {
                let (one, two) = (
                    scope.spawn(move || create(0)),
                    scope.spawn(move || {
                        std::thread::sleep(later);
                        create(1)
                    }),
                );
                (one.join(), two.join())
            });
            let lost = |_| anyhow::anyhow!("the thread of a create panicked");
            let (one, two) = (one.map_err(lost)??, two.map_err(lost)??);
            ensure!(one.code() == 0 || two.code() == 0, "both were refused: {one:?} {two:?}");
            let (first, late) = if one.code() == 0 { (0, two) } else { (1, one) };
            ensure!(late.code() == 4, "both were done, or one failed: {late:?}");
            let why = ["belongs to the resource", "claims it on", "answers a ping"];
            ensure!(why.iter().any(|w| late.stderr.contains(w)), "{late:?}");
            // What the other looked for is no duplicate for the bring-up either.
            lab.wait_in_service(&format!("at-{first}-{n}"), first)?;
        }
        Ok(())
    })
}

fn stranger() -> Result<()> {
    let lab = formed()?;
    explained(&lab, || {
        // A stranger behind an interface that only the third host has in that form.
        for host in [0, 1, 2] {
            lab.segment.host(host).ip("link add eth7 type veth peer name eth7p")?;
            lab.segment.host(host).ip("link set eth7 up")?;
        }
        for host in [0, 1] {
            lab.segment.host(host).ip("link set eth7p up")?;
        }
        let stranger = lab.segment.client();
        let moved = format!("link set eth7p netns {}", stranger.name());
        lab.segment.host(2).ip(&moved)?;
        stranger.ip("link set eth7p up")?;
        stranger.ip("addr add 10.79.0.9/24 dev eth7p")?;
        let create = ["create", "ip", "10.79.0.9/24", "--dev", "eth7", "--extend-to", "all"];
        let reason = "10.79.0.9 is in use on the network";
        unchanged(&lab, &create, &[reason, "claims it on eth7 of host3"])?;
        stranger.ip("addr del 10.79.0.9/24 dev eth7p")?;
        lab.host(0).vipctl(&[&create[..], &["--no-wait"]].concat())?.done().map(drop)
    })
}

fn deletion() -> Result<()> {
    let lab = pair(&[1, 2])?;
    explained(&lab, || {
        order(&lab, &["depend", WEB, IP])?;
        order(&lab, &["set", WEB, "maintenance=on"])?;
        unchanged(&lab, &["delete", WEB, "--hierarchy"], &["'vipctl set web maintenance=off'"])?;
        unchanged(&lab, &["delete", WEB], &["maintenance=off"])?;
        order(&lab, &["set", WEB, "maintenance=off"])?;
        order(&lab, &["in-service", WEB, "--on", "host2"])?;
        let page = order(&lab, &["status"])?;
        ensure!(page.contains("host2 (chosen)"), "the choice is not shown in\n{page}");
        order(&lab, &["delete", WEB, "--hierarchy"])?;
        let left = lab.host(0).status()?.resources;
        ensure!(left.is_empty(), "it was told to be deleted, and is there: {left:?}");
        Ok(())
    })
}
