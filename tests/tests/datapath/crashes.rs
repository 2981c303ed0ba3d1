//! Row DP-12: what a process that was killed on its way leaves behind, and what other tools do to the
//! interface meanwhile.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use datapath_common::LAYOUT_VERSION;
use vipd::{
    act::datapath::{self, Attachment, Datapath as _, KernelDatapath},
    config::DatapathConfig,
};
use vipd_tests::{
    bpf::{Program, XDP_PASS, detach_link},
    netns::run,
};

use crate::{
    live::{GROUP4, GROUP6, Pair, VIP4, VIP6, vipd_load},
    pins::program_id,
};

const STRANGER: &str = "somebody_elses";

fn dir(pair: &Pair) -> PathBuf {
    pair.pins.join(format!("v{LAYOUT_VERSION}"))
}

fn expect_generic(attachment: &Attachment) -> Result<()> {
    ensure!(matches!(attachment, Attachment::Generic { .. }), "{attachment:?}");
    Ok(())
}

fn expect_refusal(attachment: Attachment, id: &str) -> Result<()> {
    let Attachment::None { reason } = attachment else { bail!("attached in spite of it: {attachment:?}") };
    ensure!(reason.contains(&format!("'{STRANGER}' (id {id})")) && reason.contains("left alone"), "{reason}");
    Ok(())
}

/// In our mount namespace, where the pin is: `ip -n` would have a /sys of its own.
fn set_xdp(pair: &Pair, pin: &Path) -> Command {
    let mut ip = pair.host.command("ip");
    ip.args(["link", "set", "dev", "left", "xdpgeneric", "pinned"]).arg(pin);
    ip
}

/// Another tool's program, attached with netlink as `ip link` does: named, kept whatever we do, and followed by
/// ours when it has left.
pub fn another_tools_program_is_refused() -> Result<()> {
    let pair = Pair::new("foreign")?;
    let datapath = pair.open()?;
    let pin = pair.pins.join(STRANGER);
    Program::always(XDP_PASS, STRANGER)?.pin(&pin)?;
    let result = (|| -> Result<()> {
        run(&mut set_xdp(&pair, &pin))?;
        let id = program_id(&pair)?;
        expect_refusal(pair.attach(&datapath)?, &id)?;
        ensure!(datapath.unguarded().is_none(), "other interfaces are guarded");
        // Neither asked again, nor by the next process, nor told to leave the interface.
        drop(datapath);
        let datapath = pair.open()?;
        expect_refusal(pair.attach(&datapath)?, &id)?;
        datapath.detach(pair.index()?)?;
        ensure!(program_id(&pair)? == id, "the stranger's program was detached");
        pair.host.ip("link set dev left xdpgeneric off")?;
        expect_generic(&pair.attach(&datapath)?)
    })();
    fs::remove_file(&pin)?;
    result
}

/// While ours is there no other tool can replace it. If it is detached by force and another takes its
/// place, that one stays until it leaves by itself.
pub fn a_program_put_in_our_place() -> Result<()> {
    let pair = Pair::new("forced")?;
    let datapath = pair.serving()?;
    let ours = program_id(&pair)?;
    let pin = pair.pins.join(STRANGER);
    let stranger = Program::always(XDP_PASS, STRANGER)?;
    stranger.pin(&pin)?;
    let result = (|| -> Result<()> {
        let error = run(&mut set_xdp(&pair, &pin)).err().context("the kernel let our program be replaced")?;
        ensure!(error.to_string().contains("replace active"), "{error}");
        ensure!(program_id(&pair)? == ours, "our program was replaced");
        let index = pair.index()?;
        detach_link(&dir(&pair).join(format!("xdp-{index}-generic")))?;
        let theirs = pair.host.enter(|| stranger.attach(index, false))?;
        let id = program_id(&pair)?;
        expect_refusal(pair.attach(&datapath)?, &id)?;
        ensure!(program_id(&pair)? == id, "the stranger's program was replaced");
        drop(theirs);
        expect_generic(&pair.attach(&datapath)?)?;
        pair.expect_all(true)
    })();
    fs::remove_file(&pin)?;
    result
}

/// Pins that are half there: without links, without one of the links, with a link that leads nowhere, without
/// a map. The next process completes them.
pub fn half_of_the_pins() -> Result<()> {
    let pair = Pair::new("half")?;
    let index = pair.index()?;
    let (xdp, egress) = (format!("xdp-{index}-generic"), format!("egress-{index}"));
    let complete = |what: &str| -> Result<KernelDatapath> {
        let datapath = pair.open().map_err(|e| e.context(what.to_owned()))?;
        expect_generic(&pair.attach(&datapath)?)?;
        for pin in [&xdp, &egress] {
            ensure!(dir(&pair).join(pin).exists(), "{what}: {pin} is missing");
        }
        Ok(datapath)
    };
    // Killed while the maps were made.
    drop(pair.open()?);
    for map in ["GATES", "VIP_ACTIVITY", "DIRECTORY"] {
        fs::remove_file(dir(&pair).join(map))?;
    }
    drop(complete("some maps, no links")?);
    drop(pair.serving()?);
    for lost in [vec![&xdp], vec![&egress], vec![&xdp, &egress]] {
        for pin in &lost {
            fs::remove_file(dir(&pair).join(pin))?;
        }
        drop(complete(&format!("without {lost:?}"))?);
        pair.expect_all(true)?;
        for pin in &lost {
            detach_link(&dir(&pair).join(pin))?;
        }
        drop(complete(&format!("{lost:?} pinned, but detached"))?);
        pair.expect_all(true)?;
    }
    // Links whose programs have a map that nobody else can find: they serve until ours take over, which then
    // know of nothing.
    fs::remove_file(dir(&pair).join("VIPS"))?;
    let datapath = pair.open()?;
    ensure!(datapath.programmed()?.is_empty(), "{:?}", datapath.programmed()?);
    pair.expect_all(true)?;
    drop(datapath);
    let datapath = complete("without a map")?;
    pair.expect_all(false)?;
    drop(datapath);
    pair.serving()?;
    pair.expect_all(true)
}

/// Killed after the old directory was set aside, and between pinning a link in the new one and unpinning it in
/// the old: the next process carries all over, under running answers.
pub fn killed_while_carrying_over() -> Result<()> {
    let pair = Pair::new("carrying")?;
    drop(pair.serving()?);
    let aside = pair.pins.join(format!("v{LAYOUT_VERSION}-old-1"));
    for links in [false, true] {
        if links {
            // All is in both: maps are carried, links pinned and not yet unpinned.
            fs::create_dir(&aside)?;
            for pin in fs::read_dir(dir(&pair))?.flatten() {
                fs::hard_link(pin.path(), aside.join(pin.file_name()))?;
            }
        } else {
            fs::rename(dir(&pair), &aside)?;
            fs::create_dir(dir(&pair))?;
        }
        pair.expect_all(true)?;
        let datapath = pair.open()?;
        let groups: Vec<_> = datapath.programmed()?.iter().map(|p| (p.group, p.gate_active)).collect();
        ensure!(groups == [(GROUP4, true), (GROUP6, true)], "{groups:?}");
        let left: Vec<_> = fs::read_dir(&pair.pins)?.flatten().map(|entry| entry.path()).collect();
        ensure!(left == [dir(&pair)], "links in both: {links}: {left:?}");
        expect_generic(&pair.attach(&datapath)?)?;
        pair.expect_all(true)?;
    }
    Ok(())
}

/// Killed again and again, at another moment each time, with another capacity each time, so that maps are set
/// aside and carried over: the next process always completes it.
pub fn killed_at_any_moment() -> Result<()> {
    let pair = Pair::new("anytime")?;
    let args = format!("--vip {VIP4} --vip {VIP6}");
    for moment in 0..24_u32 {
        let mut load = vipd_load(&pair, &args)?.spawn()?;
        // The moment is the point, nothing is waited for.
        std::thread::sleep(Duration::from_millis(20) * moment);
        load.kill()?;
        load.wait()?;
        if moment % 3 == 0 {
            let config = DatapathConfig { max_vips: 64 + moment, ..pair.config() };
            let datapath = pair.host.enter(|| KernelDatapath::open(&config))?;
            expect_generic(&pair.attach(&datapath)?)?;
        }
    }
    drop(pair.serving_anew()?);
    pair.expect_all(true)?;
    datapath::unload(&pair.pins)?;
    ensure!(!pair.pins.exists(), "{} is still there", pair.pins.display());
    ensure!(!pair.host.ip("link show dev left")?.contains("xdp"), "XDP is still attached");
    Ok(())
}
