//! The configuration as a file: applied, verified, exported, refused, and raced for.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use vipd_tests::lab::{Host, Lab, PATIENCE};

use crate::{
    Test,
    operator::{explained, json, refused},
    scene::options,
};

pub const TESTS: &[(&str, Test)] = &[
    ("declare::a_file_makes_the_cluster_and_changes_it", makes_and_changes),
    ("declare::wrong_files_change_nothing", wrong_files),
    ("declare::of_two_at_once_nothing_is_mixed", two_at_once),
    ("declare::what_is_simulated_is_what_happens", simulated),
];

fn resource(tag: &str, addresses: &str, more: &str, hosts: [u8; 3]) -> String {
    let nodes: Vec<String> = hosts
        .iter()
        .enumerate()
        .map(|(rank, host)| {
            format!("host{host} = {{ priority = {}, devices = [\"eth0\"] }}\n", rank * 10 + 1)
        })
        .collect();
    format!(
        "[[resource]]\ntag = \"{tag}\"\naddresses = [\"{addresses}\"]\n{more}\n[resource.nodes]\n{}\n",
        nodes.concat()
    )
}

const APART: &str = "[[constraint]]\nid = \"apart\"\nkind = \"colocation\"\nresource = \"mail\"\nwith = \"web\"\n\
                     score = \"-INFINITY\"\n";

fn three() -> String {
    let all = [
        resource("db", "10.77.0.60/24", "", [1, 2, 3]),
        resource("web", "10.77.0.61-10.77.0.62", "depends = [\"db\"]", [1, 2, 3]),
        resource("mail", "10.77.0.63/24", "switchback = \"automatic\"", [1, 2, 3]),
    ];
    all.concat() + APART
}

/// In a file of that name; answers its path.
fn file(lab: &Lab, name: &str, text: &str) -> Result<String> {
    let path: PathBuf = lab.dir().join(name);
    fs::write(&path, text)?;
    Ok(path.display().to_string())
}

fn formed() -> Result<Lab> {
    let lab = Lab::new(&options())?;
    lab.form_cluster()?;
    Ok(lab)
}

fn makes_and_changes() -> Result<()> {
    let lab = formed()?;
    explained(&lab, || {
        let (one, two) = (lab.host(0), lab.host(1));
        let path = file(&lab, "c.toml", &three())?;
        refused(one, &["verify", &path], 1, "4 differences")?;
        let planned = one.vipctl(&["apply", &path, "--dry-run"])?.done()?.stdout;
        ensure!(
            planned.contains("+ resource mail") && planned.contains("comes in service: db, mail, web"),
            "{planned}"
        );
        ensure!(one.status()?.resources.is_empty(), "a dry run created something");

        let said = one.vipctl(&["apply", &path])?.done()?.stdout;
        ensure!(said.contains("4 differences are applied; 3 of 3 in service"), "{said}");
        for tag in ["db", "web"] {
            lab.check_in_service(tag, 0, 0)?;
        }
        for address in ["10.77.0.60", "10.77.0.61", "10.77.0.62"] {
            ensure!(one.has_address(address)?, "{address} is not there");
        }
        // The constraint held from the first moment on.
        lab.check_in_service("mail", 1, 0)?;
        two.vipctl(&["verify", &path])?.done()?;

        // What is exported says the same, wherever it is applied.
        let exported = two.vipctl(&["export"])?.done()?.stdout;
        let copy = file(&lab, "copy.toml", &exported)?;
        one.vipctl(&["verify", &copy])?.done()?;
        let said = one.vipctl(&["apply", &copy, "--prune", "--yes"])?.done()?.stdout;
        ensure!(said.contains("no differences") && said.contains("nothing was changed"), "{said}");
        lab.check_in_service("mail", 1, 0)?;

        changes(&lab)
    })
}

/// Other priorities for a hierarchy, no constraint any more, and one resource less.
fn changes(lab: &Lab) -> Result<()> {
    let (one, two) = (lab.host(0), lab.host(1));
    one.vipctl(&["create", "ip", "10.77.0.69/24", "--tag", "extra"])?.done()?;
    let text = [
        resource("db", "10.77.0.60/24", "on-conflict = \"report\"", [3, 1, 2]),
        resource("web", "10.77.0.61/24", "depends = [\"db\"]", [3, 1, 2]),
        resource("mail", "10.77.0.63/24", "state = \"out-of-service\"", [1, 2, 3]),
    ]
    .concat();
    let path = file(lab, "d.toml", &text)?;
    let planned = two.vipctl(&["apply", &path, "--dry-run"])?.done()?.stdout;
    for part in [
        "on host3: priority 21, eth0 -> priority 1, eth0",
        "addresses: 10.77.0.61-10.77.0.62/24 -> 10.77.0.61/24",
        "GOES OUT OF SERVICE: mail (on host2)",
        "stays as it is (--prune deletes it): constraint apart, resource extra",
    ] {
        ensure!(planned.contains(part), "'{part}' is missing in\n{planned}");
    }
    two.vipctl(&["apply", &path])?.done()?;
    lab.check_in_service("extra", 0, 1)?;
    refused(two, &["verify", &path], 1, "2 differences")?;
    let said = two.vipctl(&["apply", &path, "--prune"])?.done()?.stdout;
    ensure!(
        said.contains("- resource extra") && said.contains("GOES OUT OF SERVICE: extra (on host1)"),
        "{said}"
    );
    lab.wait(PATIENCE, "the cluster is as the file says, on each host", || {
        for host in &lab.hosts {
            host.vipctl(&["verify", &path])?.done()?;
            let states: Vec<(String, String)> =
                host.status()?.resources.iter().map(|r| (r.tag.to_string(), r.state.clone())).collect();
            let wanted = [("db", "ISP"), ("mail", "OSU"), ("web", "ISP")];
            ensure!(states == wanted.map(|(t, s)| (t.to_owned(), s.to_owned())), "{states:?}");
        }
        for (host, address) in [(one, "10.77.0.62"), (one, "10.77.0.69"), (two, "10.77.0.63")] {
            ensure!(!host.has_address(address)?, "{address} is still there");
        }
        Ok(())
    })
}

fn wrong_files() -> Result<()> {
    let lab = formed()?;
    explained(&lab, || {
        let one = lab.host(0);
        let path = file(&lab, "c.toml", &three())?;
        one.vipctl(&["apply", &path])?.done()?;
        let before = one.vipctl(&["export"])?.done()?.stdout;
        let wrong = [
            (three().replace("host3", "host9").replace("depends", "dependz"), 2, "4 mistakes"),
            (three().replace("host3", "host9"), 2, ":8: resource.db.nodes.host9: there is no node 'host9'"),
            (three().replace("\"db\"]", "\"gone\"]"), 4, "resource.web: it depends on 'gone'"),
            (three().replacen("\"eth0\"", "\"eth7\"", 1), 4, "db on host1: "),
            (three().replace("10.77.0.63/24", "10.77.0.60/24"), 4, "belongs to the resource 'db'"),
            (
                three().replace("[\"10.77.0.63/24", "[\"10.77.0.100/24\", \"10.77.0.63/24"),
                4,
                "is in use on the network",
            ),
            (three().replacen("priority = 11", "priority = 1", 1), 4, "resource.web: it is one hierarchy"),
        ];
        for (text, code, reason) in &wrong {
            let path = file(&lab, "wrong.toml", text)?;
            for arguments in [&["apply", path.as_str()][..], &["apply", path.as_str(), "--dry-run"]] {
                refused(one, arguments, *code, reason)?;
            }
        }
        refused(one, &["apply", "/nonexistent/c.toml"], 2, "cannot read /nonexistent/c.toml")?;
        let after = one.vipctl(&["export"])?.done()?.stdout;
        ensure!(before == after, "a refused file changed something:\n{before}\n{after}");
        let planned = json(one, &["apply", &path, "--dry-run"])?;
        ensure!(planned["differences"].as_array().is_some_and(Vec::is_empty), "{planned}");
        Ok(())
    })
}

fn two_at_once() -> Result<()> {
    let lab = formed()?;
    explained(&lab, || {
        let way = |way: &str| {
            let more = format!("on-conflict = \"{way}\"");
            let all = [("x", "10.77.0.64/24"), ("y", "10.77.0.65/24"), ("z", "10.77.0.66/24")];
            all.map(|(tag, address)| resource(tag, address, &more, [1, 2, 3])).concat()
        };
        let paths = [file(&lab, "report.toml", &way("report"))?, file(&lab, "yield.toml", &way("yield"))?];
        let first = file(&lab, "first.toml", &way("defend"))?;
        lab.host(2).vipctl(&["apply", &first])?.done()?;
        for _ in 0..5 {
            let answers: Vec<_> = std::thread::scope(|scope| {
                let one = |(index, path)| {
                    let host = lab.host(index);
                    scope.spawn(move || host.vipctl(&["apply", path, "--no-wait"]))
                };
                let running: Vec<_> = paths.iter().map(String::as_str).enumerate().map(one).collect();
                running.into_iter().map(|r| r.join()).collect()
            });
            let mut done = 0;
            for answer in answers {
                let answer = answer.map_err(|_| anyhow::anyhow!("the thread of an apply panicked"))??;
                match answer.code() {
                    0 => done += 1,
                    4 => ensure!(answer.stderr.contains("changed by somebody else"), "{answer:?}"),
                    _ => anyhow::bail!("{answer:?}"),
                }
            }
            ensure!(done > 0, "both were refused");
            let codes = paths.each_ref().map(|path| lab.host(2).vipctl(&["verify", path]).map(|a| a.code()));
            let [a, b] = codes;
            let codes = (a?, b?);
            ensure!(
                codes == (0, 1) || codes == (1, 0),
                "the cluster is as neither says, or as both: {codes:?}"
            );
        }
        ["x", "y", "z"].iter().try_for_each(|tag| lab.check_in_service(tag, 0, 2))
    })
}

/// Where everything is, as the host sees it.
fn places(host: &Host) -> Result<BTreeMap<String, Option<String>>> {
    Ok(host.status()?.resources.into_iter().map(|r| (r.tag.to_string(), r.owner)).collect())
}

fn simulated() -> Result<()> {
    let lab = formed()?;
    explained(&lab, || {
        let (one, two) = (lab.host(0), lab.host(1));
        // Others than by priority: the constraints decide.
        let likes = "[[constraint]]\nid = \"likes\"\nkind = \"location\"\nresource = \"other\"\nnode = \"host3\"\n\
                     score = 5\n[[constraint]]\nid = \"stays\"\nkind = \"location\"\nresource = \"other\"\n\
                     node = \"host1\"\nscore = 9\n";
        let text = three() + likes + &resource("other", "10.77.0.67/24", "", [1, 2, 3]);
        one.vipctl(&["apply", &file(&lab, "c.toml", &text)?])?.done()?;
        let before = places(two)?;
        let at = |place: &BTreeMap<String, Option<String>>, tag: &str| place.get(tag).cloned().flatten();
        for tag in ["db", "web", "other"] {
            ensure!(at(&before, tag).as_deref() == Some("host1"), "{tag} is elsewhere: {before:?}");
        }

        let foreseen = json(two, &["simulate", "--fail", "host1"])?;
        let mut expected = before.clone();
        for moved in foreseen.as_array().context("no list")? {
            let tag = moved["tag"].as_str().context("no tag")?;
            ensure!(moved["from"].as_str().map(str::to_owned) == at(&before, tag), "{moved}");
            ensure!(moved["reason"].as_str().is_some_and(|r| !r.is_empty()), "{moved}");
            expected.insert(tag.to_owned(), moved["to"].as_str().map(str::to_owned));
        }
        let moves: Vec<&String> =
            expected.keys().filter(|tag| expected.get(*tag) != before.get(*tag)).collect();
        ensure!(["db", "web", "other"].iter().all(|tag| moves.iter().any(|m| m == tag)), "{foreseen}");
        ensure!(places(two)? == before, "a simulation moved something");

        one.sigkill()?;
        lab.wait(PATIENCE, "everything is where it was foreseen, in service", || {
            let now = places(two)?;
            ensure!(now == expected, "{now:?}, foreseen was {expected:?}");
            let status = two.status()?;
            ensure!(status.resources.iter().all(|r| r.state == "ISP"), "{:?}", status.states);
            Ok(())
        })
    })
}
