//! What an operator does in a day, and who may not be one.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vipd_tests::lab::{Host, Lab, Options};

use crate::{Test, scene::options};

pub const TESTS: &[(&str, Test)] = &[
    ("operator::a_day_with_two_hosts_and_a_witness", a_day_with_two_hosts_and_a_witness),
    ("operator::without_quorum_nothing_changes_and_the_exit_code_says_so", without_quorum),
    ("operator::another_user_may_not_ask", another_user_may_not_ask),
];

/// With what the hosts say and logged where it fails.
pub fn explained(lab: &Lab, test: impl FnOnce() -> Result<()>) -> Result<()> {
    test().map_err(|error| lab.explain(error))
}

pub fn json(host: &Host, arguments: &[&str]) -> Result<Value> {
    let answer = host.vipctl(&[&["--json"], arguments].concat())?.done()?;
    serde_json::from_str(&answer.stdout).with_context(|| format!("not one document: {}", answer.stdout))
}

/// Refused with this exit code, and a reason that has this in it.
pub fn refused(host: &Host, arguments: &[&str], code: i32, reason: &str) -> Result<()> {
    let answer = host.vipctl(arguments)?;
    ensure!(answer.code() == code, "vipctl {arguments:?}: {code} expected: {answer:?}");
    ensure!(answer.stderr.contains(reason), "vipctl {arguments:?}: '{reason}' expected: {answer:?}");
    Ok(())
}

fn a_day_with_two_hosts_and_a_witness() -> Result<()> {
    let lab = Lab::new(&Options { witness: Some(2), ..options() })?;
    lab.form_cluster()?;
    explained(&lab, || {
        let (one, two, witness) = (lab.host(0), lab.host(1), lab.host(2));
        create_in_every_form(&lab)?;
        refused(witness, &["create", "ip", "10.77.0.59/24"], 4, "witness")?;

        // Settings and ping lists are the same wherever they are asked for.
        let tag = "ip-10.77.0.51";
        two.vipctl(&["set", tag, "priority=5", "switchback=automatic", "--node", two.name()])?.done()?;
        let list = ["ping-list", "add", "10.77.0.0/24", "10.77.0.100", "--node", "all"];
        ensure!(
            json(one, &list)?.as_array().is_some_and(|l| l.len() == 2),
            "a list for each but the witness"
        );
        for host in &lab.hosts {
            lab.wait(vipd_tests::lab::PATIENCE, "settings are known everywhere", || {
                let shown = json(host, &["show", tag])?;
                ensure!(shown["resource"]["switchback"] == "automatic", "{shown}");
                let priorities: Vec<_> = shown["status"]["nodes"]
                    .as_array()
                    .context("no nodes")?
                    .iter()
                    .map(|n| (n["node"].as_str(), n["priority"].as_u64()))
                    .collect();
                ensure!(priorities == [(Some("host1"), Some(1)), (Some("host2"), Some(5))], "{priorities:?}");
                ensure!(shown["ping_lists"].as_array().is_some_and(|l| l.len() == 2), "{shown}");
                Ok(())
            })?;
        }
        refused(
            one,
            &["set", tag, "restore-and-recover=disable", "priority=1", "--node", two.name()],
            4,
            "",
        )?;
        ensure!(
            json(one, &["show", tag])?["resource"]["nodes"]["2"]["restore_and_recover"] == true,
            "half set"
        );

        refused(one, &["in-service", "ip-10.77.0.5"], 4, "'ip-10.77.0.51'")?;
        refused(one, &["in-service", tag, "--on", witness.name()], 4, "witness")?;
        one.vipctl(&["in-service", tag, "--on", two.name()])?.done()?;
        lab.wait_in_service(tag, 1)?;

        // For people: everything on a page.
        let page = one.vipctl(&["status"])?.done()?.stdout;
        for fact in ["cluster  lab, quorum", "host3", "witness", "4 resources: 4 ISP", "host2", "eth0"] {
            ensure!(page.contains(fact), "'{fact}' is missing in\n{page}");
        }
        one.vipctl(&["delete", tag])?.done()?;
        refused(one, &["show", tag], 4, "no resource")
    })
}

/// Names, netmasks, default lengths, interfaces and tags.
fn create_in_every_form(lab: &Lab) -> Result<()> {
    let host = lab.host(0);
    for (arguments, tag, address) in [
        (
            &["10.77.0.51", "--netmask", "255.255.255.0", "--extend-to", "all"][..],
            "ip-10.77.0.51",
            "10.77.0.51/24",
        ),
        (&["10.77.0.52"][..], "ip-10.77.0.52", "10.77.0.52/24"),
        (&["fd77::53"][..], "ip-fd77::53", "fd77::53/64"),
        (&["192.0.2.54/32", "--dev", "eth0", "--tag", "other"][..], "other", "192.0.2.54/32"),
    ] {
        host.vipctl(&[&["create", "ip"], arguments].concat())?.done()?;
        let status = &json(host, &["show", tag])?["status"];
        ensure!(status["address"] == address && status["state"] == "ISP", "{tag}: {status}");
        ensure!(status["owner"] == host.name() && status["device"] == "eth0", "{tag}: {status}");
    }
    for (arguments, code, reason) in [
        (&["10.77.0.60", "--netmask", "255.0.255.0"][..], 2, "not contiguous"),
        (&["10.77.0.51"][..], 4, "belongs to the resource 'ip-10.77.0.51'"),
        (&["10.77.0.255"][..], 4, "broadcast address"),
        (&["224.0.0.5/24"][..], 4, "multicast"),
        (&["192.0.2.60"][..], 4, "prefix length is unknown"),
        (&["no-such-host.invalid"][..], 1, "cannot be resolved"),
        (&["10.77.0.60", "--extend-to", "host3"][..], 4, "witness"),
        (&["10.77.0.60", "--extend-to", "host9"][..], 4, "'host1'"),
        (&["10.77.0.2"][..], 4, "of node 'host2' itself"),
    ] {
        refused(host, &[&["create", "ip"], arguments].concat(), code, reason)?;
    }
    Ok(())
}

fn without_quorum() -> Result<()> {
    let lab = Lab::new(&options())?;
    lab.form_cluster()?;
    for host in &lab.hosts[1..] {
        host.sigkill()?;
    }
    explained(&lab, || {
        let host = lab.host(0);
        refused(host, &["create", "ip", "10.77.0.51/24"], 5, "no quorum")?;
        // What is known can still be looked at, and says what is wrong.
        lab.wait(vipd_tests::lab::PATIENCE, "the loss is seen", || {
            let warnings = host.status()?.warnings.join("\n");
            for expected in
                ["no quorum", "node host2 is silent", "node host3 is silent", "lease is not valid"]
            {
                ensure!(warnings.contains(expected), "'{expected}' is not in: {warnings}");
            }
            Ok(())
        })
    })
}

/// Another user is kept out twice: by the socket's mode, and where that is opened wide by the
/// credentials that the kernel vouches for.
fn another_user_may_not_ask() -> Result<()> {
    const NOBODY: u32 = 65534;
    let lab = Lab::new(&Options { hosts: 1, ..options() })?;
    let host = lab.host(0);
    host.start()?;
    host.wait_up()?;
    let open = |path: &std::path::Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    // The binary and the socket may be where nobody else may look.
    let run = host.state_dir().with_file_name("run");
    for dir in [lab.dir(), run.parent().context("a directory")?, &run] {
        open(dir, 0o755)?;
    }
    let vipctl = lab.dir().join("vipctl");
    fs::copy(host.vipctl_command()?.get_program(), &vipctl)?;
    let socket = run.join("vipd.sock");
    ensure!(fs::metadata(&socket)?.permissions().mode() & 0o777 == 0o660, "the socket's mode");
    let refused_with = |reason: &str| -> Result<()> {
        let mut command = std::process::Command::new(&vipctl);
        command.arg("--socket").arg(&socket).arg("status").uid(NOBODY).gid(NOBODY);
        let out = command.output()?;
        let said = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.code() == Some(3) && said.contains(reason), "'{reason}' expected: {out:?}");
        Ok(())
    };
    refused_with("run vipctl as root")?;
    open(&socket, 0o666)?;
    refused_with("'nobody' may not control vipd")
}
