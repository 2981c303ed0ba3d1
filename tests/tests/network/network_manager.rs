//! Stopping and starting interfaces with a real NetworkManager beside us.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tokio::sync::Barrier;
use vipd::{
    act::{
        bounce::Bouncer,
        executor::Executor,
        network_manager::{NetworkManager, Profile, Unmanaged},
    },
    core::command::{Command, Effect, LinkState, Place, Presence},
    model::Accept,
    observe::network::Network,
};
use vipd_tests::{
    lab::PATIENCE,
    lab::wait_until,
    netns::{NetNs, run},
};

use crate::{
    Tests, executor,
    lab::{carrier_changes, net, on, output},
    managed::{Managed, PROFILE, STUCK},
};

pub const TESTS: Tests = &[
    ("a_managed_device_goes_down_and_up_with_its_connection", a_managed_device),
    ("a_managed_device_without_carrier", without_carrier),
    ("an_activation_that_fails_says_why", an_activation_that_fails),
    ("sequences_share_one_stop_and_start", sequences_share_one_stop_and_start),
    ("a_stop_that_is_broken_off_is_made_good", a_stop_that_is_broken_off),
    ("devices_that_are_not_its_own_go_through_netlink", not_its_own),
    ("a_device_of_the_same_name_elsewhere_is_left_alone", elsewhere),
    ("without_network_manager_it_is_netlink", without_network_manager),
    ("a_network_manager_that_dies_meanwhile", dies_meanwhile),
    ("a_network_manager_that_hangs", hangs),
    ("the_next_life_starts_what_was_stopped", next_life),
    ("what_could_not_be_brought_up_stays_owed", stays_owed),
    ("the_daemon_starts_what_an_earlier_one_stopped", daemon_resumes),
    ("a_daemon_that_ends_leaves_nothing_stopped", settles),
];

const VIP: &str = "192.0.2.50/24";

fn set(device: &str, up: bool) -> Command {
    Command::SetLink { device: device.to_owned(), up }
}

async fn link(executor: &Executor, device: &str) -> Effect {
    executor.perform(&Command::ReadLink { device: device.to_owned() }).await
}

async fn bounce(executor: &Executor, device: &str) {
    for up in [false, true] {
        assert_eq!(executor.perform(&set(device, up)).await, Effect::Done, "up: {up}");
    }
}

/// Runs the closure in the host's namespace with an executor that knows its NetworkManager.
fn with<T: Send>(
    host: &Managed,
    closure: impl AsyncFnOnce(Executor, Network) -> Result<T> + Send,
) -> Result<T> {
    let manager = host.network_manager();
    on(&host.us, async |network| {
        let (executor, _) = executor::executor(network.clone());
        closure(executor.with_bouncer(Bouncer::new(network.clone(), manager)), network).await
    })
}

/// What NetworkManager configured on the device, without the kernel's own.
fn configuration(host: &NetNs, device: &str) -> Result<BTreeSet<String>> {
    let mut lines = BTreeSet::new();
    for command in ["-4 route show", "-6 route show", "-o -4 addr show", "-o -6 addr show"] {
        let shown = host.ip(&format!("{command} dev {device}"))?;
        // Neither whether it has carrier is its configuration, nor its number, nor that an address that
        // was brought back was not looked for again.
        lines.extend(shown.lines().filter(|line| !line.contains("fe80::")).map(|line| {
            let words = line
                .split_whitespace()
                .filter(|word| !word.ends_with(':') && !["linkdown", "nodad"].contains(word));
            words.collect::<Vec<_>>().join(" ")
        }));
    }
    Ok(lines)
}

fn wait_for_configuration(host: &Managed, device: &str, wanted: &BTreeSet<String>) -> Result<()> {
    wait_until(PATIENCE, &format!("the configuration of {device}"), || {
        let now = configuration(&host.us, device)?;
        ensure!(now == *wanted, "wanted {wanted:#?}, there is {now:#?}\n{}", host.log());
        Ok(())
    })
}

fn a_managed_device() -> Result<()> {
    let host = Managed::new()?;
    let before = configuration(&host.us, "eth0")?;
    assert!(before.iter().any(|line| line.contains("default via 192.0.2.254")), "{before:#?}");
    assert!(before.iter().any(|line| line.contains("2001:db8::1/64")), "{before:#?}");
    with(&host, async |executor, network| {
        network.add_address(&network.link("eth0").await?, net(VIP)).await?;
        // Where programs of the traffic control hang on older kernels.
        run(host.us.command("tc").args(["qdisc", "add", "dev", "eth0", "clsact"]))?;
        host.us.ip("link set eth0 down")?;
        assert_eq!(link(&executor, "eth0").await, Effect::Link(LinkState::Down));
        assert_eq!(executor.perform(&set("eth0", false)).await, Effect::Done);
        let (state, connection) = host.device("eth0")?;
        assert!(connection.is_empty() && state != "connected", "{state} {connection}");
        assert!(configuration(&host.us, "eth0")?.is_disjoint(&before));
        assert_eq!(executor.perform(&set("eth0", true)).await, Effect::Done);
        assert_eq!(host.device("eth0")?, ("connected".to_owned(), PROFILE.to_owned()));
        wait_for_configuration(&host, "eth0", &before)?;
        assert_eq!(link(&executor, "eth0").await, Effect::Link(LinkState::Up));
        let kept = output(host.us.command("tc").args(["qdisc", "show", "dev", "eth0"]))?;
        assert!(kept.contains("clsact"), "NetworkManager took the guard's place away: {kept}");
        // It went with the connection. Where it is to be in service, its check finds that out.
        let place =
            Place { addresses: Arc::new(net(VIP).into()), device: "eth0".to_owned(), accept: Accept::Assign };
        let read = Command::ReadAddresses { place };
        assert_eq!(executor.perform(&read).await, Effect::Presence(Presence::default()));
        Ok(())
    })
}

fn without_carrier() -> Result<()> {
    let host = Managed::new()?;
    let before = configuration(&host.us, "eth0")?;
    with(&host, async |executor, _| {
        host.peer.ip("link set eth0 down")?;
        assert_eq!(link(&executor, "eth0").await, Effect::Link(LinkState::NoCarrier));
        let activations = host.activations()?;
        bounce(&executor, "eth0").await;
        assert_eq!(host.activations()?, activations + 1);
        host.peer.ip("link set eth0 up")?;
        // The test's own waiting must not keep the runtime from NetworkManager's answers.
        host.wait_for_state("eth0", "connected")?;
        wait_for_configuration(&host, "eth0", &before)
    })
}

/// The stop and start is a success all the same: the link is up, and that is what it was for.
fn an_activation_that_fails() -> Result<()> {
    let host = Managed::new()?;
    // Nobody serves DHCP here.
    host.nmcli("connection modify wired ipv4.method auto ipv4.dhcp-timeout 2 ipv4.may-fail no")?;
    let uuid = host.nmcli("-g connection.uuid connection show wired")?;
    with(&host, async |executor, _| {
        bounce(&executor, "eth0").await;
        assert_eq!(link(&executor, "eth0").await, Effect::Link(LinkState::Up));
        let profile = Profile { uuid, id: PROFILE.to_owned() };
        let up = host.network_manager().up("eth0", &profile).await;
        let reason = up.expect_err("there is no DHCP server").to_string();
        assert!(reason.contains("no IP configuration could be had"), "{reason}");
        assert!(reason.contains("nmcli connection up"), "{reason}");
        let unknown = Profile { uuid: "d0d0d0d0-0000-4000-8000-000000000000".to_owned(), id: "x".to_owned() };
        let reason = host.network_manager().up("eth0", &unknown).await.expect_err("no such profile");
        assert!(reason.to_string().contains("find the connection 'x'"), "{reason}");
        // NetworkManager has taken it on again, and is not kept from trying by itself.
        host.nmcli("connection modify wired ipv4.method manual")?;
        host.wait_for_state("eth0", "connected")
    })
}

fn sequences_share_one_stop_and_start() -> Result<()> {
    const SEQUENCES: usize = 8;
    let host = Managed::new()?;
    let before = configuration(&host.us, "eth0")?;
    with(&host, async |executor, _| {
        let (activations, carrier) = (host.activations()?, carrier_changes(&host.us)?);
        let barrier = Arc::new(Barrier::new(SEQUENCES));
        let mut sequences = tokio::task::JoinSet::new();
        for _ in 0..SEQUENCES {
            let (executor, barrier) = (executor.clone(), Arc::clone(&barrier));
            sequences.spawn(async move {
                barrier.wait().await;
                let down = executor.perform(&set("eth0", false)).await;
                executor.perform(&Command::Wait { duration: Duration::from_millis(300) }).await;
                (down, executor.perform(&set("eth0", true)).await)
            });
        }
        while let Some(done) = sequences.join_next().await {
            assert_eq!(done?, (Effect::Done, Effect::Done));
        }
        assert_eq!(host.activations()?, activations + 1);
        // One that comes late, when the others look at the link, does not take it from them.
        bounce(&executor, "eth0").await;
        assert_eq!(host.activations()?, activations + 1);
        assert_eq!(carrier_changes(&host.us)?, carrier, "it was set down through netlink too");
        wait_for_configuration(&host, "eth0", &before)
    })
}

/// A sequence that reaches its limit drops what it does and asks for what it owes.
fn a_stop_that_is_broken_off() -> Result<()> {
    let host = Managed::new()?;
    let before = configuration(&host.us, "eth0")?;
    for patience in [0, 1, 2, 5, 10, 20, 50].map(Duration::from_millis) {
        with(&host, async |executor, _| {
            // Whether it was in time does not matter.
            let _ = tokio::time::timeout(patience, executor.perform(&set("eth0", false))).await;
            assert_eq!(executor.perform(&set("eth0", true)).await, Effect::Done);
            host.wait_for_state("eth0", "connected").with_context(|| format!("{patience:?}"))?;
            wait_for_configuration(&host, "eth0", &before)
        })?;
    }
    Ok(())
}

fn not_its_own() -> Result<()> {
    let host = Managed::new()?;
    host.us.ip("addr add 198.51.100.1/24 dev eth1")?;
    // Made by NetworkManager, which would delete it with its connection.
    host.nmcli("connection add type bridge ifname br0 con-name br0 stp no ipv4.method manual ipv4.addresses 203.0.113.1/24 ipv4.gateway 203.0.113.2 ipv6.method manual ipv6.addresses 2001:db8:9::1/64 ipv6.gateway 2001:db8:9::2")?;
    host.nmcli("connection up br0")?;
    // Made by somebody else; NetworkManager only shows it.
    host.us.ip("link add br1 type bridge")?;
    host.us.ip("addr add 203.0.113.129/28 dev br1")?;
    host.us.ip("link set br1 up")?;
    wait_until(PATIENCE, "br1 is shown", || {
        ensure!(host.device("br1")?.0.contains("externally"), "{:?}", host.device("br1")?);
        Ok(())
    })?;
    with(&host, async |executor, network| {
        let manager = host.network_manager();
        for (device, reason) in [("eth1", "does not manage eth1"), ("br0", "'br0'"), ("br1", "only shows it")]
        {
            let (before, number) = (configuration(&host.us, device)?, network.link(device).await?.index);
            let unmanaged = manager.managed(&network.link(device).await?).await.expect_err(device);
            assert!(unmanaged.to_string().contains(reason), "{device}: {unmanaged}");
            let state = host.device(device)?;
            assert_eq!(executor.perform(&set(device, false)).await, Effect::Done);
            assert_eq!(link(&executor, device).await, Effect::Link(LinkState::Down), "{device}");
            assert_eq!(executor.perform(&set(device, true)).await, Effect::Done);
            assert_eq!(network.link(device).await?.index, number, "{device}");
            assert!(network.link(device).await?.admin_up, "{device}");
            wait_for_configuration(&host, device, &before)?;
            assert_eq!(host.device(device)?, state);
        }
        Ok(())
    })
}

/// A bus knows nothing of network namespaces: there may be another eth0 behind it.
fn elsewhere() -> Result<()> {
    let host = Managed::new()?;
    let activations = host.activations()?;
    let manager = host.network_manager();
    on(&host.peer, async |network| {
        let link_there = network.link("eth0").await?;
        let unmanaged = manager.managed(&link_there).await.expect_err("it is another host's");
        assert!(matches!(unmanaged, Unmanaged::Stranger { .. }), "{unmanaged}");
        let (executor, _) = executor::executor(network.clone());
        let executor = executor.with_bouncer(Bouncer::new(network, manager));
        assert_eq!(executor.perform(&set("eth0", false)).await, Effect::Done);
        assert_eq!(link(&executor, "eth0").await, Effect::Link(LinkState::Down));
        assert_eq!(executor.perform(&set("eth0", true)).await, Effect::Done);
        Ok(())
    })?;
    host.wait_for_state("eth0", "connected")?;
    assert_eq!(host.activations()?, activations);
    Ok(())
}

fn without_network_manager() -> Result<()> {
    let host = Managed::without_network_manager()?;
    let nowhere = NetworkManager::at(format!("{}-missing", host.address()));
    for (manager, no_bus) in [(host.network_manager(), false), (nowhere, true)] {
        on(&host.us, async |network| {
            match manager.managed(&network.link("eth0").await?).await {
                Err(Unmanaged::NoBus(_)) => assert!(no_bus),
                Err(Unmanaged::NotRunning) => assert!(!no_bus),
                other => panic!("{other:?}"),
            }
            let (executor, _) = executor::executor(network.clone());
            let executor = executor.with_bouncer(Bouncer::new(network, manager));
            assert_eq!(executor.perform(&set("eth0", false)).await, Effect::Done);
            assert_eq!(link(&executor, "eth0").await, Effect::Link(LinkState::Down));
            assert_eq!(executor.perform(&set("eth0", true)).await, Effect::Done);
            assert_ne!(link(&executor, "eth0").await, Effect::Link(LinkState::Down));
            Ok(())
        })?;
    }
    Ok(())
}

/// The link does not stay down, and what NetworkManager took down is brought up in its next life.
fn dies_meanwhile() -> Result<()> {
    let host = Managed::new()?;
    let before = configuration(&host.us, "eth0")?;
    with(&host, async |executor, _| {
        assert_eq!(executor.perform(&set("eth0", false)).await, Effect::Done);
        assert_ne!(host.device("eth0")?.0, "connected");
        host.kill()?;
        assert_eq!(executor.perform(&set("eth0", true)).await, Effect::Done);
        assert_eq!(link(&executor, "eth0").await, Effect::Link(LinkState::Up));
        host.start()?;
        host.wait_for_state("eth0", "connected")?;
        wait_for_configuration(&host, "eth0", &before)
    })
}

fn hangs() -> Result<()> {
    let host = Managed::new()?;
    let before = configuration(&host.us, "eth0")?;
    with(&host, async |executor, _| {
        host.signal(Signal::SIGSTOP)?;
        let bounced = async {
            assert_eq!(executor.perform(&set("eth0", false)).await, Effect::Done);
            assert_eq!(link(&executor, "eth0").await, Effect::Link(LinkState::Down));
            assert_eq!(executor.perform(&set("eth0", true)).await, Effect::Done);
            assert_ne!(link(&executor, "eth0").await, Effect::Link(LinkState::Down));
        };
        let result = tokio::time::timeout(STUCK, bounced).await;
        host.signal(Signal::SIGCONT)?;
        result.context("it waited for a NetworkManager that hangs")?;
        host.wait_for_state("eth0", "connected")?;
        wait_for_configuration(&host, "eth0", &before)
    })
}

/// A daemon that is killed between the stop and the start.
fn next_life() -> Result<()> {
    let host = Managed::new()?;
    host.us.ip_batch(
        "addr add 198.51.100.1/24 dev eth1\n\
         addr add 2001:db8:5::1/64 dev eth1 nodad\n\
         route add 203.0.113.0/24 via 198.51.100.254 dev eth1\n",
    )?;
    let devices = ["eth0", "eth1"];
    let before = devices.map(|device| configuration(&host.us, device));
    let [before0, before1] = before.map(Result::unwrap);
    let dir = tempfile::tempdir()?;
    let life = async |network: Network| {
        let bouncer = Bouncer::new(network.clone(), host.network_manager());
        let bouncer = bouncer.with_book(dir.path().join("stopped"));
        let (executor, _) = executor::executor(network);
        (bouncer.clone(), executor.with_bouncer(bouncer))
    };
    on(&host.us, async |network| {
        let (_, executor) = life(network).await;
        for device in devices {
            assert_eq!(executor.perform(&set(device, false)).await, Effect::Done);
        }
        Ok(())
    })?;
    assert!(configuration(&host.us, "eth0")?.is_disjoint(&before0));
    assert_ne!(configuration(&host.us, "eth1")?, before1);
    on(&host.us, async |network| {
        let (bouncer, executor) = life(network).await;
        bouncer.resume().await?;
        // Who wants it stopped now waits until it is started, and has had it stopped.
        for device in devices {
            assert_eq!(executor.perform(&set(device, false)).await, Effect::Done);
            assert_eq!(link(&executor, device).await, Effect::Link(LinkState::Up), "{device}");
        }
        Ok(())
    })?;
    wait_for_configuration(&host, "eth0", &before0)?;
    wait_for_configuration(&host, "eth1", &before1)?;
    assert_eq!(std::fs::read_dir(dir.path().join("stopped"))?.count(), 0);
    Ok(())
}

/// What NetworkManager could not bring up, and does not by itself, stays owed.
fn stays_owed() -> Result<()> {
    let host = Managed::new()?;
    host.nmcli("connection modify wired connection.autoconnect no")?;
    let before = configuration(&host.us, "eth0")?;
    let dir = tempfile::tempdir()?;
    on(&host.us, async |network| {
        let bouncer = Bouncer::new(network.clone(), host.network_manager());
        let bouncer = bouncer.with_book(dir.path().to_owned());
        let link = network.link("eth0").await?;
        bouncer.stop(&link).await?;
        host.kill()?;
        Ok(bouncer.start(&link).await?)
    })?;
    host.start()?;
    host.wait_for_state("eth0", "disconnected")?;
    on(&host.us, async |network| {
        let bouncer = Bouncer::new(network.clone(), host.network_manager());
        let bouncer = bouncer.with_book(dir.path().to_owned());
        bouncer.resume().await?;
        Ok(bouncer.stop(&network.link("eth0").await?).await?)
    })?;
    assert_eq!(host.device("eth0")?.0, "connected");
    wait_for_configuration(&host, "eth0", &before)
}

/// The same with the real daemon, which knows the bus from its environment.
fn daemon_resumes() -> Result<()> {
    let host = Managed::new()?;
    let before = configuration(&host.us, "eth0")?;
    let run_dir = tempfile::tempdir()?;
    on(&host.us, async |network| {
        let bouncer = Bouncer::new(network.clone(), host.network_manager());
        let bouncer = bouncer.with_book(run_dir.path().join("stopped"));
        Ok(bouncer.stop(&network.link("eth0").await?).await?)
    })?;
    assert_ne!(host.device("eth0")?.0, "connected");
    let _daemon = host.vipd(run_dir.path())?;
    host.wait_for_state("eth0", "connected")?;
    wait_for_configuration(&host, "eth0", &before)
}

fn settles() -> Result<()> {
    let host = Managed::new()?;
    let before = configuration(&host.us, "eth0")?;
    on(&host.us, async |network| {
        let bouncer = Bouncer::new(network.clone(), host.network_manager());
        let (executor, _) = executor::executor(network);
        let executor = executor.with_bouncer(bouncer.clone());
        let activations = host.activations()?;
        bouncer.settle().await;
        assert_eq!(host.activations()?, activations);
        for device in ["eth0", "eth1"] {
            assert_eq!(executor.perform(&set(device, false)).await, Effect::Done);
        }
        bouncer.settle().await;
        assert_eq!(host.device("eth0")?.0, "connected");
        assert_ne!(link(&executor, "eth1").await, Effect::Link(LinkState::Down));
        wait_for_configuration(&host, "eth0", &before)
    })
}
