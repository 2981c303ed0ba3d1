//! Rows DP-11 and DP-12: pins are adopted, replaced and removed, strangers left alone.

use std::{fs, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use datapath_common::LAYOUT_VERSION;
use vipd::{
    act::datapath::{self, Attachment, Datapath as _, DatapathError, KernelDatapath},
    config::{DatapathConfig, DatapathMode},
};

use crate::{
    bench,
    live::{GROUP4, GROUP6, Pair, VIP4, VIP6, set},
};

/// Program ids of the interface, as `ip` shows them.
fn program_id(pair: &Pair) -> Result<String> {
    let shown = pair.host.ip("link show dev left")?;
    let (_, rest) = shown.split_once("prog/xdp id ").with_context(|| format!("no XDP program: {shown}"))?;
    Ok(rest.split_whitespace().next().unwrap_or_default().to_owned())
}

/// A restart exchanges the programs under running traffic, and not one request stays unanswered.
pub fn restarts_lose_no_answer() -> Result<()> {
    let pair = Pair::new("restart")?;
    drop(pair.serving()?);
    let before = program_id(&pair)?;
    let mut ping = pair.client.command("ping");
    ping.args(["-q", "-i", "0.002", "-c", "1000", "-W", "1", VIP4]).stdout(Stdio::piped());
    let ping = ping.spawn()?;
    let mut opened = None;
    for _ in 0..3 {
        drop(opened.take());
        let datapath = pair.open()?;
        pair.attach(&datapath)?;
        opened = Some(datapath);
    }
    let output = ping.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.contains("1000 packets transmitted, 1000 received"), "{said}");
    ensure!(program_id(&pair)? != before, "the program was not exchanged");

    // The allocation survives too: a new address gets a gate of its own, the old ones keep theirs.
    let datapath = opened.context("it was opened")?;
    let index = pair.index()?;
    datapath.program(GROUP6 + 1, index, &set("10.9.0.50")?)?;
    datapath.close_gate(GROUP6 + 1)?;
    pair.expect_all(true)
}

/// Another capacity: the maps are made anew, with all that the old ones hold, while traffic runs.
pub fn another_capacity_carries_all_over() -> Result<()> {
    let pair = Pair::new("capacity")?;
    let datapath = pair.serving()?;
    let index = pair.index()?;
    let many = set("10.9.1.0-10.9.1.199")?;
    // 64 are the limit; a larger one keeps all, and a page becomes one.
    ensure!(matches!(datapath.program(9, index, &many), Err(DatapathError::Full(64))));
    drop(datapath);
    let before = program_id(&pair)?;
    let with = |max_vips| DatapathConfig { max_vips, ..pair.config() };
    let mut ping = pair.client.command("ping");
    ping.args(["-q", "-i", "0.002", "-c", "700", "-W", "1", VIP4]).stdout(Stdio::piped());
    let ping = ping.spawn()?;
    let datapath = pair.host.enter(|| KernelDatapath::open(&with(1000)))?;
    let vip = datapath.vip_activity(VIP4.parse()?)?;
    ensure!(program_id(&pair)? != before, "the program was not exchanged");
    datapath.program(9, index, &many)?;
    drop(datapath);
    let datapath = pair.host.enter(|| KernelDatapath::open(&with(2000)))?;
    let output = ping.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.contains("700 packets transmitted, 700 received"), "{said}");
    ensure!(datapath.vip_activity(VIP4.parse()?)?.packets >= vip.packets, "what was counted is lost");
    let programmed = datapath.programmed()?;
    let groups: Vec<_> =
        programmed.iter().map(|p| (p.group, p.gate_active, p.lease_epoch, p.epoch)).collect();
    ensure!(groups == [(GROUP4, true, 1, 1), (GROUP6, true, 1, 1), (9, false, 0, 0)], "{programmed:?}");
    ensure!(
        programmed[2].addresses == many && programmed.iter().all(|p| p.ifindex == index),
        "{programmed:?}"
    );
    pair.attach(&datapath)?;
    pair.expect_all(true)?;
    drop(datapath);

    // Too small for all: what fits is carried, and nothing is taken from the old programs before the caller
    // has had time to take the rest's addresses away.
    let datapath = pair.host.enter(|| KernelDatapath::open(&with(2)))?;
    let groups: Vec<_> = datapath.programmed()?.iter().map(|p| p.group).collect();
    ensure!(groups == [GROUP4, GROUP6], "{groups:?}");
    ensure!(version_dirs(&pair) == 2, "the old programs were taken away at once");
    pair.expect_all(true)?;
    pair.attach(&datapath)?;
    ensure!(version_dirs(&pair) == 1, "the old pins are still there");
    pair.expect_all(true)
}

fn version_dirs(pair: &Pair) -> usize {
    fs::read_dir(&pair.pins).into_iter().flatten().count()
}

/// Pins of a layout that this version cannot read: their programs go on, under the lease that they know,
/// until the first call that depends on ours; then their links are taken over, and the directory goes. So an
/// address that we do not know of is never the kernel's alone while it is assigned.
pub fn pins_of_another_version_are_replaced() -> Result<()> {
    let pair = Pair::new("version")?;
    pair.host.ip(&format!("addr add {VIP4}/32 dev left"))?;
    let datapath = pair.serving()?;
    datapath.close_gate(GROUP4)?;
    drop(datapath);
    let before = program_id(&pair)?;
    let ours = pair.pins.join(format!("v{LAYOUT_VERSION}"));
    let other = pair.pins.join(format!("v{}", LAYOUT_VERSION + 1000));
    fs::rename(&ours, &other)?;
    let arping = format!("-c 1 -w 1 -I right {VIP4}");
    for _ in 0..2 {
        // Also if this process is killed before it comes to anything.
        let datapath = pair.open()?;
        ensure!(datapath.programmed()?.is_empty(), "maps of an unknown layout were read");
        ensure!(datapath.lease()?.deadline_ns == 0, "{:?}", datapath.lease()?);
        ensure!(program_id(&pair)? == before, "the old programs are gone too early");
        pair.expect(false, "arping", &arping)?;
        pair.expect(true, "ping", &format!("-c 1 -W 1 {VIP6}"))?;
    }
    let datapath = pair.open()?;
    pair.host.ip(&format!("addr del {VIP4}/32 dev left"))?;
    let attachment = pair.attach(&datapath)?;
    ensure!(matches!(attachment, Attachment::Generic { .. }), "{attachment:?}");
    ensure!(!other.exists(), "{} is still there", other.display());
    ensure!(program_id(&pair)? != before, "the old program is still attached");
    pair.expect_all(false)
}

/// A pinned link of an interface that is gone, or that another one has replaced under the same number.
pub fn pins_of_lost_interfaces_are_removed() -> Result<()> {
    let pair = Pair::new("lost")?;
    drop(pair.serving()?);
    let index = pair.index()?;
    pair.host.ip("link delete left")?;
    drop(pair.open()?);
    let ours = pair.pins.join(format!("v{LAYOUT_VERSION}"));
    let left = |ours: &std::path::Path| -> Result<Vec<String>> {
        Ok(fs::read_dir(ours)?
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("xdp-") || name.starts_with("egress-"))
            .collect())
    };
    ensure!(left(&ours)?.is_empty(), "{:?}", left(&ours)?);

    pair.link()?;
    drop(pair.serving()?);
    let index_now = pair.index()?;
    pair.host.ip("link delete left")?;
    pair.host.ip(&format!("link add left index {index_now} type veth peer name right2"))?;
    pair.host.ip("link set left up")?;
    let datapath = pair.open()?;
    ensure!(left(&ours)?.is_empty(), "{:?}", left(&ours)?);
    let attachment = pair.attach(&datapath)?;
    ensure!(matches!(attachment, Attachment::Generic { .. }), "{attachment:?} (was index {index})");
    ensure!(left(&ours)?.len() == 2, "{:?}", left(&ours)?);
    Ok(())
}

/// While a process lives, its interface is deleted and made again.
pub fn an_interface_comes_back_under_its_number() -> Result<()> {
    let pair = Pair::new("again")?;
    let datapath = pair.serving()?;
    let index = pair.index()?;
    pair.host.ip("link delete left")?;
    pair.host.ip(&format!("link add left index {index} type veth peer name right"))?;
    let client = pair.client.name();
    pair.host.ip(&format!("link set right netns {client}"))?;
    pair.host.ip("link set left up")?;
    pair.client.ip("link set right up")?;
    pair.host.ip("addr add 10.9.0.1/24 brd + dev left")?;
    pair.client.ip("addr add 10.9.0.2/24 brd + dev right")?;
    pair.client.ip("addr add fd09::2/64 dev right nodad")?;
    let attachment = pair.attach(&datapath)?;
    ensure!(matches!(attachment, Attachment::Generic { .. }), "{attachment:?}");
    pair.expect_all(true)
}

/// Another program on the interface stays, and is named.
pub fn a_strangers_program_is_left_alone() -> Result<()> {
    let pair = Pair::new("stranger")?;
    let pins = bench::pin_dir("stranger-other");
    let stranger = DatapathConfig { pin_dir: pins.clone(), ..pair.config() };
    let result = (|| -> Result<()> {
        let stranger = pair.host.enter(|| KernelDatapath::open(&stranger))?;
        pair.attach(&stranger)?;
        let before = program_id(&pair)?;
        let datapath = pair.open()?;
        let Attachment::None { reason } = pair.attach(&datapath)? else {
            anyhow::bail!("attached in spite of it")
        };
        ensure!(reason.contains("'vipd_xdp'") && reason.contains("left"), "{reason}");
        ensure!(program_id(&pair)? == before, "the stranger's program was replaced");
        // Once it has left, there is room.
        stranger.detach(pair.index()?)?;
        let attachment = pair.attach(&datapath)?;
        ensure!(matches!(attachment, Attachment::Generic { .. }), "{attachment:?}");
        Ok(())
    })();
    datapath::unload(&pins)?;
    result
}

/// Two processes must not share pins: the second would drop what the first has attached elsewhere.
pub fn pins_have_one_owner() -> Result<()> {
    let pair = Pair::new("owner")?;
    let first = pair.serving()?;
    let second = pair.client.enter(|| datapath::open(&pair.config()));
    let reason = second.unguarded().context("it claims to be guarded")?;
    ensure!(reason.contains("another running"), "{reason}");
    pair.expect_all(true)?;
    drop(first);
    pair.open()?;
    Ok(())
}

/// Modes change with the configuration; what cannot be had is said.
pub fn modes_follow_the_configuration() -> Result<()> {
    let pair = Pair::new("modes")?;
    let with = |mode| DatapathConfig { mode, ..pair.config() };
    let attach = |mode| -> Result<Attachment> {
        let datapath = pair.host.enter(|| KernelDatapath::open(&with(mode)))?;
        pair.attach(&datapath)
    };
    let expect = |mode, native: bool| -> Result<()> {
        let attachment = attach(mode)?;
        let right = match attachment {
            Attachment::Native => native,
            Attachment::Generic { .. } => !native,
            Attachment::None { .. } => false,
        };
        ensure!(right, "{mode:?}: {attachment:?}");
        let shown = pair.host.ip("link show dev left")?;
        ensure!(shown.contains("xdpgeneric") != native && shown.contains("prog/xdp"), "{shown}");
        Ok(())
    };
    expect(DatapathMode::Auto, false)?;
    expect(DatapathMode::Native, true)?;
    expect(DatapathMode::Native, true)?;
    expect(DatapathMode::Generic, false)?;
    let none = pair.host.enter(|| datapath::open(&with(DatapathMode::None)));
    ensure!(none.unguarded().is_some_and(|reason| reason.contains("switched off")));
    Ok(())
}

/// Switched off, the daemon has only the kernel's addresses: what was pinned keeps the node silent until
/// the daemon is first entitled to speak, and is then out of its way.
pub fn switching_off_frees_the_kernel() -> Result<()> {
    let pair = Pair::new("off")?;
    pair.host.ip(&format!("addr add {VIP4}/32 dev left"))?;
    pair.host.ip(&format!("addr add {VIP6}/128 dev left nodad"))?;
    let kernel = pair.serving()?;
    kernel.set_lease(1, vipd::core::time::BootTime::ZERO)?;
    drop(kernel);
    let config = DatapathConfig { mode: DatapathMode::None, ..pair.config() };
    let datapath = pair.host.enter(|| datapath::open(&config));
    pair.expect_all(false)?;
    datapath.program(GROUP4, pair.index()?, &set(VIP4)?)?;
    pair.expect_all(false)?;
    datapath.open_gate(GROUP4, 2, 2)?;
    pair.expect_all(true)?;
    ensure!(!pair.pins.exists(), "{} is still there", pair.pins.display());
    Ok(())
}

/// Not on a bpffs: an error that says what to do, and a datapath that only remembers.
pub fn a_wrong_pin_dir_is_explained() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = DatapathConfig { pin_dir: dir.path().join("pins"), ..DatapathConfig::default() };
    let datapath = datapath::open(&config);
    let reason = datapath.unguarded().context("it claims to be guarded")?;
    ensure!(reason.contains("bpffs") && reason.contains("mount"), "{reason}");
    Ok(())
}
