//! Many addresses, ping lists and tunables, as an operator types and sees them.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vipd_tests::{
    lab::{Host, Lab, Options, PATIENCE},
    netns,
};

use crate::{
    Test,
    operator::{explained, json, refused},
    scene::{TUNABLES, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("create::sets_files_and_groups", sets_files_and_groups),
    ("create::a_change_that_the_owner_cannot_make_is_told", unmakeable_change),
    ("create::two_hundred_separate_resources", two_hundred_separate_resources),
    ("create::ping_lists_have_a_life_of_their_own", ping_lists),
    ("create::tunables_are_read_at_each_action_and_mistakes_told_once", tunables),
];

fn two_and_a_witness() -> Result<Lab> {
    let lab = Lab::new(&Options { witness: Some(2), ..options() })?;
    lab.form_cluster()?;
    Ok(lab)
}

fn create(host: &Host, arguments: &[&str]) -> Result<String> {
    Ok(host.vipctl(&[&["create", "ip"], arguments].concat())?.done()?.stdout)
}

fn says(text: &str, facts: &[&str]) -> Result<()> {
    for fact in facts {
        ensure!(text.contains(fact), "'{fact}' is missing in\n{text}");
    }
    Ok(())
}

fn listed(host: &Host, tag: &str) -> Result<Vec<String>> {
    let page = json(host, &["list", tag])?;
    let all = page["addresses"].as_array().context("no list")?;
    ensure!(page["total"] == all.len(), "{page}");
    Ok(all.iter().filter_map(|a| a["address"].as_str()).map(str::to_owned).collect())
}

fn sets_files_and_groups() -> Result<()> {
    let lab = two_and_a_witness()?;
    explained(&lab, || {
        let (one, two) = (lab.host(0), lab.host(1));
        let said =
            create(one, &["10.77.0.60-10.77.0.67", "10.77.0.69", "--tag", "shop", "--extend-to", "all"])?;
        says(
            &said,
            &["shop is in service on host1", "9 addresses 10.77.0.60-10.77.0.67/24 and 1 more ranges"],
        )?;
        for address in ["10.77.0.60", "10.77.0.67", "10.77.0.69"] {
            ensure!(one.has_address(address)?, "{address} is not there");
        }
        says(
            &one.vipctl(&["status"])?.done()?.stdout,
            &["1 resource: 1 ISP", "9 addresses 10.77.0.60-10.77.0.67/24"],
        )?;
        let shown = one.vipctl(&["show", "shop"])?.done()?.stdout;
        says(
            &shown,
            &[
                "assign (by default: at most 64 addresses)",
                "in 10.77.0.0/24",
                "10.77.0.60-10.77.0.67 10.77.0.69",
            ],
        )?;

        // A set moves as one.
        one.vipctl(&["in-service", "shop", "--on", two.name()])?.done()?;
        lab.wait_in_service("shop", 1)?;
        ensure!(two.has_address("10.77.0.69")? && !one.has_address("10.77.0.69")?, "half moved");

        from_files(&lab)?;
        refusals(one)?;

        // A group is there already: it grows and shrinks, and stays where it is.
        says(
            &create(two, &["10.77.0.70-10.77.0.71", "--group", "shop"])?,
            &["shop has 2 more", "now 11 in all"],
        )?;
        refused(
            two,
            &["create", "ip", "10.77.0.75", "--group", "shop", "--dev", "eth0"],
            2,
            "vipctl set shop devices",
        )?;
        let said =
            two.vipctl(&["delete", "shop", "--address", "10.77.0.61-10.77.0.67,10.77.0.69"])?.done()?.stdout;
        says(&said, &["8 fewer", "and 3 addresses 10.77.0.60/24 and 1 more ranges left"])?;
        lab.wait(PATIENCE, "both hosts know the addresses that are left", || {
            for host in [one, two] {
                let now = listed(host, "shop")?;
                ensure!(now == ["10.77.0.60/24", "10.77.0.70/24", "10.77.0.71/24"], "{now:?}");
            }
            Ok(())
        })?;
        refused(one, &["delete", "shop", "--address", "10.77.0.61"], 4, "not among the addresses of 'shop'")?;
        refused(
            one,
            &["delete", "shop", "--address", "10.77.0.60,10.77.0.70-10.77.0.71"],
            4,
            "vipctl delete shop",
        )
    })
}

/// The order is given on another host than the owner's, which alone can see what is in the way.
fn unmakeable_change() -> Result<()> {
    let lab = two_and_a_witness()?;
    explained(&lab, || {
        let (one, two) = (lab.host(0), lab.host(1));
        let on_one =
            |script: &str| -> Result<()> { netns::run(one.command("sh")?.args(["-ec", script])).map(drop) };
        create(one, &["10.77.0.60-10.77.0.61", "--tag", "shop", "--extend-to", "all"])?;
        // No answers for what is on another interface: nobody else can know. It is asked, and objects.
        on_one(
            "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore
             ip address add 10.77.0.71/32 dev lo",
        )?;
        let grow = ["create", "ip", "10.77.0.70-10.77.0.71", "--group", "shop"];
        refused(two, &grow, 4, "shop on host1: these addresses are stationary: 10.77.0.71")?;
        on_one("ip address del 10.77.0.71/32 dev lo")?;
        two.vipctl(&grow)?.done()?;

        // No check sees that the kernel will not take it.
        on_one("echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6")?;
        let grow = ["create", "ip", "fd77::70/64", "--group", "shop"];
        let reason = "'shop' is in service without all of its addresses on host1: ";
        let answer = two.vipctl(&grow)?;
        ensure!(answer.code() == 1, "{answer:?}");
        says(&answer.stderr, &[reason, "fd77::70", "tried again"])?;
        for host in [one, two] {
            lab.wait(PATIENCE, "the status warns", || {
                let status = host.status()?;
                ensure!(status.warnings.iter().any(|w| w.contains(reason)), "{:?}", status.warnings);
                let shop = status.resources.iter().find(|r| r.tag.as_str() == "shop").context("no shop")?;
                ensure!(shop.state == "ISP" && shop.owner.as_deref() == Some("host1"), "{shop:?}");
                let noted = shop.nodes.iter().find(|n| n.node == "host1").and_then(|n| n.reason.clone());
                ensure!(noted.is_some_and(|r| r.contains("fd77::70")), "{shop:?}");
                Ok(())
            })?;
        }
        for address in ["10.77.0.60", "10.77.0.61"] {
            ensure!(one.has_address(address)?, "{address} is not in service any more");
        }

        on_one("echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6")?;
        lab.wait(PATIENCE, "the owner tries again by itself", || {
            let status = two.status()?;
            ensure!(!status.warnings.iter().any(|w| w.contains("shop")), "{:?}", status.warnings);
            Ok(())
        })?;
        for address in ["10.77.0.60", "10.77.0.61", "10.77.0.70", "10.77.0.71", "fd77::70"] {
            ensure!(one.has_address(address)?, "{address} is not in service");
        }
        says(&two.vipctl(&grow)?.done()?.stdout, &["shop has these addresses already"])?;

        // What is taken away is gone when it is said to be.
        two.vipctl(&["delete", "shop", "--address", "10.77.0.70-10.77.0.71"])?.done()?;
        ensure!(!one.has_address("10.77.0.70")? && !one.has_address("10.77.0.71")?, "still there");
        Ok(())
    })
}

fn from_files(lab: &Lab) -> Result<()> {
    let one = lab.host(0);
    let list = lab.dir().join("addresses");
    let argument = format!("@{}", list.display());
    fs::write(&list, "# the new ones\n10.77.0.80\n10.77.0.81-10.77.0.83/24 # a range\n\nfd77::80/64\n")?;
    says(&create(one, &[&argument, "--tag", "filed"])?, &["filed is in service on host1", "5 addresses"])?;
    let now = listed(one, "filed")?;
    ensure!(now.len() == 5 && now.contains(&"fd77::80/64".to_owned()), "{now:?}");
    fs::write(&list, "10.77.0.90\n10.77.0.300\n\n10.77.0.255\nno-such-host.invalid\n")?;
    let answer = one.vipctl(&["create", "ip", &argument])?;
    ensure!(answer.code() == 2, "{answer:?}");
    says(
        &answer.stderr,
        &["3 mistakes, nothing was changed", "addresses:2: ", "addresses:4: ", "addresses:5: "],
    )?;
    fs::remove_file(&list)?;
    refused(one, &["create", "ip", &argument], 2, "cannot read")
}

fn refusals(host: &Host) -> Result<()> {
    for (arguments, code, reason) in [
        // Stationary addresses are named, and how to leave them out.
        (&["10.77.0.0/29", "--each"][..], 4, "10.77.0.2 of node 'host2'"),
        (&["10.77.0.0/29", "--each"][..], 4, "--except 10.77.0.1-10.77.0.3"),
        // The client's own.
        (&["10.77.0.99-10.77.0.101"][..], 4, "10.77.0.100 is in use on the network: "),
        (&["10.77.0.60-10.77.0.62"][..], 4, "belongs to the resource 'shop'"),
        (&["10.77.0.250-10.77.1.5/24"][..], 4, "beyond its subnet 10.77.0.0/24"),
        (&["10.77.0.101-10.77.0.102", "--dev", "nosuch"][..], 4, "allowed: eth0"),
        (&["10.77.0.101", "--except", "10.77.0.7"][..], 2, "none of the addresses"),
        (&["10.77.0.101", "--group", "g", "--separate"][..], 2, "choose one"),
        (&["10.0.0.0/8", "--each"][..], 4, "1,048,576 are the limit"),
    ] {
        refused(host, &[&["create", "ip"], arguments].concat(), code, reason)?;
    }
    Ok(())
}

fn two_hundred_separate_resources() -> Result<()> {
    let lab = two_and_a_witness()?;
    explained(&lab, || {
        let one = lab.host(0);
        let ranges = ["10.77.0.10-10.77.0.59", "10.77.0.101-10.77.0.250"];
        let said = create(one, &[&ranges[..], &["--separate", "--extend-to", "all"]].concat())?;
        says(&said, &["200 resources are in service: ip-10.77.0.10 to ip-10.77.0.250"])?;

        let page = one.vipctl(&["status"])?.done()?.stdout;
        says(
            &page,
            &[
                "200 resources: 200 ISP",
                "ip-10.77.0.10 .. ip-10.77.0.59 (50)",
                "10.77.0.101 .. 10.77.0.250/24",
            ],
        )?;
        let some =
            one.vipctl(&["status", "--resources", "ip-10.77.0.2?", "--owner", one.name()])?.done()?.stdout;
        says(&some, &["10 resources: 10 ISP", "ip-10.77.0.20 ", "ip-10.77.0.29 "])?;
        ensure!(!some.contains("ip-10.77.0.30") && !some.contains("INTERFACE"), "{some}");
        let none = json(one, &["status", "--state", "OSF"])?;
        ensure!(none["resources"].as_array().is_some_and(Vec::is_empty), "{none}");
        let paged = json(one, &["status", "--limit", "5", "--offset", "198"])?;
        ensure!(paged["resources"].as_array().is_some_and(|r| r.len() == 2), "{paged}");
        ensure!(paged["states"]["ISP"] == 200 && one.status()?.resources.len() == 200, "{paged}");

        let events = json(one, &["events"])?;
        ensure!(events.as_array().is_some_and(|e| e.len() == 50), "50 events unless more are asked for");
        let tag = "ip-10.77.0.30";
        let events = json(one, &["events", "--last", "1000", "--tag", tag, "--kind", "restore"])?;
        let all = events.as_array().context("no list")?;
        ensure!(!all.is_empty() && all.iter().all(|e| e["tag"] == tag), "{events}");

        refused(one, &["create", "ip", "10.77.0.58-10.77.0.61", "--separate"], 4, "belongs to the resource")?;
        says(&one.vipctl(&["list", "--limit", "2"])?.done()?.stdout, &["10.77.0.10/24\tip-10.77.0.10\n"])
    })
}

fn list_of(host: &Host, node: &str) -> Result<Option<Vec<String>>> {
    let lists = json(host, &["ping-list", "show", "10.77.0.0/24", "--node", node])?;
    let Some(list) = lists.get(0) else { return Ok(None) };
    let addresses = list["addresses"].as_array().context("no addresses")?;
    Ok(Some(addresses.iter().filter_map(Value::as_str).map(str::to_owned).collect()))
}

fn ping_lists() -> Result<()> {
    let lab = two_and_a_witness()?;
    explained(&lab, || {
        let (one, two) = (lab.host(0), lab.host(1));
        let change = |host: &Host, how: &str, address: &str| {
            host.vipctl(&["ping-list", how, "10.77.0.0/24", address]).and_then(|a| a.done())
        };
        // Before any resource of the subnet, with a hint.
        says(
            &change(one, "add", "10.77.0.100")?.stdout,
            &["hint: no resource of node 'host1'", "waits for one"],
        )?;
        create(one, &["10.77.0.51", "--tag", "web"])?;
        ensure!(list_of(one, "host2")?.is_none(), "not extended to it yet");

        // Copied where the resource is extended to; then each node's own.
        one.vipctl(&["extend", "web", "--to", two.name()])?.done()?;
        ensure!(list_of(one, "host2")? == Some(vec!["10.77.0.100".into()]), "not copied");
        change(one, "add", "10.77.0.2")?;
        ensure!(list_of(one, "host2")? == Some(vec!["10.77.0.100".into()]), "changed with another's");

        // Shared by all of the subnet.
        create(one, &["10.77.0.52", "--tag", "web2"])?;
        for tag in ["web", "web2"] {
            let shown = json(one, &["show", tag])?;
            ensure!(shown["ping_lists"][0]["addresses"][1] == "10.77.0.2", "{shown}");
        }
        for (address, reason) in [
            ("10.77.0.52", "virtual address itself (resource 'web2')"),
            ("10.77.0.1", "of node 'host1' itself"),
            ("10.77.0.255", "broadcast address"),
            ("10.77.0.0", "network address"),
            ("224.0.0.1", "no other host's address"),
            ("fd77::9", "address family"),
        ] {
            refused(one, &["ping-list", "add", "10.77.0.0/24", address], 4, reason)?;
        }
        refused(one, &["ping-list", "add", "10.77.0.0/24", "10.77.0"], 2, "invalid")?;

        // In any state.
        one.vipctl(&["out-of-service", "web"])?.done()?;
        change(one, "remove", "10.77.0.2")?;
        refused(one, &["ping-list", "remove", "10.77.0.0/24", "10.77.0.2"], 4, "not in the ping list")?;

        // The lists outlive the resources, and serve the next.
        for tag in ["web", "web2"] {
            one.vipctl(&["delete", tag])?.done()?;
        }
        for node in ["host1", "host2"] {
            ensure!(
                list_of(one, node)? == Some(vec!["10.77.0.100".into()]),
                "{node}: gone with the resource"
            );
        }
        create(one, &["10.77.0.53", "--tag", "web3"])?;
        ensure!(json(one, &["show", "web3"])?["ping_lists"][0]["addresses"][0] == "10.77.0.100", "not used");
        Ok(())
    })
}

fn tunables() -> Result<()> {
    let lab = two_and_a_witness()?;
    explained(&lab, || {
        let host = lab.host(0);
        let file = host.state_dir().with_file_name("defaults");
        create(host, &["10.77.0.51", "--tag", "web"])?;
        let shown = || json(host, &["show", "web"]);
        let value = |shown: &Value, name: &str| {
            let all = shown["tunables"].as_array().cloned().unwrap_or_default();
            all.iter().find(|t| t[0] == name).map(|t| t[1].as_str().unwrap_or_default().to_owned())
        };
        let complaints = || host.vipctl(&["--json", "events", "--kind", "tunables.wrong"])?.done();
        let told = |what: &str| -> Result<usize> { Ok(complaints()?.stdout.matches(what).count()) };

        // Four lines, then quotes, export, comments, two of one name, and one that is wrong.
        host.set_tunables(&format!(
            "{TUNABLES}export NOBCASTPING=\"1\" # why\nIP_PINGTRIES=4; IP_PINGTRIES='5'\n\nIP_PINGTIME=never\n"
        ))?;
        let now = shown()?;
        for (name, wanted) in [("NOBCASTPING", "1"), ("IP_PINGTRIES", "5"), ("IP_PINGTIME", "0.3")] {
            ensure!(value(&now, name).as_deref() == Some(wanted), "{name}: {now}");
        }
        let tuned = now["tuned"].as_array().context("no list")?;
        ensure!(
            tuned.iter().any(|t| t == "NOBCASTPING") && !tuned.iter().any(|t| t == "NOIPUNIQUE"),
            "{now}"
        );
        says(now["complaints"][0].as_str().unwrap_or_default(), &["defaults:8: IP_PINGTIME='never'"])?;
        for _ in 0..3 {
            shown()?;
        }
        // Once, whatever has looked at it since: the checks of the resource do as well.
        ensure!(told("defaults:8: IP_PINGTIME='never'")? == 1, "{:?}", complaints()?);
        says(&host.vipctl(&["status"])?.done()?.stdout, &["warning: ", "defaults:8: "])?;
        says(&host.vipctl(&["show", "web"])?.done()?.stdout, &["wrong: ", "IP_PINGTRIES"])?;

        // What is no text spoils no more than its line.
        fs::write(&file, b"IP_PINGTRIES=\xff\xfe\nNOIPUNIQUE=1\n")?;
        let now = shown()?;
        ensure!(value(&now, "IP_PINGTRIES").as_deref() == Some("3"), "{now}");
        ensure!(value(&now, "NOIPUNIQUE").as_deref() == Some("1"), "{now}");
        ensure!(told("defaults:1: IP_PINGTRIES")? == 1, "{:?}", complaints()?);

        // Without the file the defaults hold, and nothing is wrong.
        fs::remove_file(&file)?;
        let now = shown()?;
        ensure!(now["tuned"] == serde_json::json!([]) && now["complaints"] == serde_json::json!([]), "{now}");

        // One that cannot be read is a complaint.
        fs::create_dir(&file)?;
        let now = shown()?;
        ensure!(now["tuned"] == serde_json::json!([]), "{now}");
        says(now["complaints"][0].as_str().unwrap_or_default(), &["cannot be read", "the defaults hold"])?;
        shown()?;
        ensure!(told("cannot be read")? == 1, "{:?}", complaints()?);
        fs::remove_dir(&file)?;

        // Right in between: the same mistake is told again.
        fs::write(&file, "IP_PINGTRIES=many\n")?;
        shown()?;
        fs::write(&file, "IP_PINGTRIES=4\n")?;
        ensure!(value(&shown()?, "IP_PINGTRIES").as_deref() == Some("4"), "not read again");
        fs::write(&file, "IP_PINGTRIES=many\n")?;
        shown()?;
        ensure!(told("IP_PINGTRIES='many'")? == 2, "{:?}", complaints()?);
        ensure!(host.status()?.resources.iter().all(|r| r.state == "ISP"), "the service never suffered");
        Ok(())
    })
}
