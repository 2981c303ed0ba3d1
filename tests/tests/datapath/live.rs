//! The programs on real links, asked by the ordinary tools.

use std::{
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use datapath_common::Verdict;
use vipd::{
    act::datapath::{self, Attachment, Datapath as _, KernelDatapath},
    config::{DatapathConfig, DatapathMode},
    model::{Ranges, ResourceId},
    observe::clock,
};
use vipd_tests::{
    netns::{NetNs, run, veth},
    packets::{Arp, BROADCAST, ETHERTYPE_ARP, ethernet, padded},
};

use crate::bench;

pub const VIP4: &str = "10.9.0.9";
pub const VIP6: &str = "fd09::9";
/// The resources of both.
pub const GROUP4: ResourceId = 4;
pub const GROUP6: ResourceId = 6;

pub fn set(address: &str) -> Result<Ranges> {
    Ok([address.parse::<vipd::model::Range>()?].into_iter().collect())
}
const LONG: Duration = Duration::from_secs(600);

/// A host whose interface `left` takes the programs, and a client on the other end, `right`. Pins are
/// removed at the end.
pub struct Pair {
    pub host: NetNs,
    pub client: NetNs,
    pub pins: PathBuf,
}

impl Pair {
    pub fn new(name: &str) -> Result<Self> {
        let host = NetNs::new("vipd-dp-host")?;
        let client = NetNs::new("vipd-dp-client")?;
        let pair = Self { host, client, pins: bench::pin_dir(name) };
        pair.link()?;
        Ok(pair)
    }

    /// Makes the link and its stationary addresses.
    pub fn link(&self) -> Result<()> {
        veth(&self.host, "left", &self.client, "right")?;
        self.host.ip("addr add 10.9.0.1/24 brd + dev left")?;
        self.client.ip("addr add 10.9.0.2/24 brd + dev right")?;
        self.host.ip("addr add fd09::1/64 dev left nodad")?;
        self.client.ip("addr add fd09::2/64 dev right nodad")?;
        Ok(())
    }

    pub fn config(&self) -> DatapathConfig {
        DatapathConfig { max_vips: 64, pin_dir: self.pins.clone(), ..DatapathConfig::default() }
    }

    pub fn open(&self) -> Result<KernelDatapath> {
        Ok(self.host.enter(|| KernelDatapath::open(&self.config()))?)
    }

    pub fn attach(&self, datapath: &KernelDatapath) -> Result<Attachment> {
        Ok(self.host.enter(|| datapath.attach(&datapath::facts("left", 1000)?))?)
    }

    /// Attached, both addresses programmed and open for long.
    pub fn serving(&self) -> Result<KernelDatapath> {
        let datapath = self.open()?;
        let attachment = self.attach(&datapath)?;
        ensure!(matches!(attachment, Attachment::Generic { .. }), "{attachment:?}");
        let index = self.index()?;
        datapath.set_lease(1, clock::now().after(LONG))?;
        for (group, vip) in [(GROUP4, VIP4), (GROUP6, VIP6)] {
            datapath.program(group, index, &set(vip)?)?;
            datapath.open_gate(group, 1, 1)?;
        }
        Ok(datapath)
    }

    /// The same after others have programmed the addresses for resources of their own.
    pub fn serving_anew(&self) -> Result<KernelDatapath> {
        let datapath = self.open()?;
        for programmed in datapath.programmed()? {
            datapath.unprogram(programmed.group, &programmed.addresses)?;
        }
        drop(datapath);
        self.serving()
    }

    pub fn index(&self) -> Result<u32> {
        Ok(self.host.enter(|| datapath::facts("left", 0))?.index)
    }

    /// Whether the client's command succeeds.
    pub fn client_says(&self, program: &str, args: &str) -> Result<bool> {
        let mut command = self.client.command(program);
        let output = command.args(args.split_whitespace()).output().with_context(|| program.to_owned())?;
        Ok(output.status.success())
    }

    pub fn expect(&self, answers: bool, program: &str, args: &str) -> Result<()> {
        ensure!(self.client_says(program, args)? == answers, "`{program} {args}`: expected {answers}");
        Ok(())
    }

    /// ARP, echo, neighbour discovery: all answered, or none.
    pub fn expect_all(&self, answers: bool) -> Result<()> {
        // Entries of earlier answers would let pings out that nobody asked ARP for.
        self.client.ip("neigh flush all")?;
        self.expect(answers, "arping", &format!("-c 1 -w 1 -I right {VIP4}"))?;
        self.expect(answers, "ping", &format!("-c 1 -W 1 {VIP4}"))?;
        self.expect(answers, "ndisc6", &format!("-1 -r 1 -w 500 {VIP6} right"))?;
        self.expect(answers, "ping", &format!("-c 1 -W 1 {VIP6}"))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = datapath::unload(&self.pins);
    }
}

pub fn counted(datapath: &KernelDatapath, wanted: Verdict) -> Result<u64> {
    let counts = datapath.verdicts()?;
    Ok(counts.into_iter().find(|(verdict, _)| *verdict == wanted).map_or(0, |(_, count)| count))
}

/// The tools are answered for addresses that no kernel has, in generic mode, until the gate closes.
pub fn ordinary_tools_are_answered() -> Result<()> {
    let pair = Pair::new("tools")?;
    let datapath = pair.serving()?;
    pair.expect_all(true)?;
    // A duplicate probe from 0.0.0.0: arping -D fails when somebody answers.
    pair.expect(false, "arping", &format!("-D -c 1 -w 1 -I right {VIP4}"))?;
    pair.expect(true, "ping", &format!("-c 1 -W 1 -s 1472 -M do {VIP4}"))?;
    pair.expect(true, "ping", &format!("-c 1 -W 1 -s 0 {VIP4}"))?;
    pair.expect(true, "ping", &format!("-c 1 -W 1 -s 1452 {VIP6}"))?;
    pair.expect(true, "ping", "-b -c 1 -W 1 10.9.0.255")?;
    pair.expect(true, "ping", "-b -c 1 -W 1 -I right 255.255.255.255")?;
    pair.expect(true, "ping", "-c 1 -W 1 ff02::1%right")?;
    for verdict in [
        Verdict::AnsweredArp,
        Verdict::AnsweredNd,
        Verdict::AnsweredEcho4,
        Verdict::AnsweredEcho6,
        Verdict::AnsweredBroadcastPing4,
        Verdict::AnsweredAllNodesPing6,
    ] {
        ensure!(counted(&datapath, verdict)? > 0, "{verdict:?} was not counted");
    }
    // The kernel has nothing to do with it: it knows no such address.
    datapath.close_gate(GROUP4)?;
    datapath.close_gate(GROUP6)?;
    pair.expect_all(false)?;
    datapath.open_gate(GROUP4, 1, 2)?;
    datapath.open_gate(GROUP6, 1, 2)?;
    pair.expect_all(true)?;
    datapath.detach(pair.index()?)?;
    pair.expect_all(false)?;
    ensure!(!pair.host.ip("link show dev left")?.contains("xdp"), "XDP is still attached");
    Ok(())
}

/// vipd-load, as built beside this test.
pub fn vipd_load(pair: &Pair, args: &str) -> Result<Command> {
    let exe = std::env::current_exe()?;
    let dir = exe.parent().and_then(Path::parent).context("tests lie in target/PROFILE/deps")?;
    let program = dir.join("vipd-load");
    ensure!(program.exists(), "{} is not built: cargo build -p vipd", program.display());
    let mut command = pair.host.command(program);
    command.args(["--iface", "left", "--pin-dir"]).arg(&pair.pins).args(args.split_whitespace());
    command.stdout(Stdio::piped());
    Ok(command)
}

/// Killed on drop.
pub struct Running(pub Child);

impl Running {
    /// Waits for the line that says the last address is served.
    pub fn start(mut command: Command) -> Result<Self> {
        let mut running = Self(command.spawn().context("starting vipd-load")?);
        let stdout = running.0.stdout.take().context("it is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut said = Vec::new();
        for line in &mut lines {
            let line = line?;
            if line == format!("answering for {VIP4},{VIP6}") {
                // The rest must be read, or the writer would fail.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(running);
            }
            said.push(line);
        }
        bail!("vipd-load ended early: {said:?}")
    }

    pub fn kill(&mut self) -> Result<Instant> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(Instant::now())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Linux answers ARP for an address of one interface on every other one. Where such an interface leads to
/// the same network, a closed gate must hold there too.
pub fn other_interfaces_keep_silent_too() -> Result<()> {
    let pair = Pair::new("other")?;
    veth(&pair.host, "other", &pair.client, "second")?;
    pair.host.ip("addr add 10.8.0.1/24 dev other")?;
    pair.client.ip("addr add 10.8.0.2/24 dev second")?;
    let datapath = pair.serving()?;
    pair.host.ip(&format!("addr add {VIP4}/24 dev left"))?;
    datapath.close_gate(GROUP4)?;
    let asked = format!("-c 2 -w 2 -I second {VIP4}");
    pair.expect(true, "arping", &asked)?;
    for _ in 0..2 {
        pair.host.enter(|| datapath.guard_egress(&datapath::facts("other", 0)?))?;
    }
    pair.expect(false, "arping", &asked)?;
    ensure!(counted(&datapath, Verdict::DroppedEgress)? > 0, "nothing was dropped");
    // Also while it is open: it lives on its own interface alone, and that one's answers are unhindered.
    datapath.open_gate(GROUP4, 1, 2)?;
    pair.expect(false, "arping", &asked)?;
    pair.expect(true, "arping", &format!("-c 2 -w 2 -I right {VIP4}"))
}

/// SIGKILL: the kernel goes on answering until the lease runs out, and is silent from then on although
/// the addresses are assigned: inbound is dropped, and nothing leaves in their name. The next process
/// adopts all of it.
pub fn a_killed_process_goes_silent_at_the_deadline() -> Result<()> {
    /// As vipd-load has it, and some time to look.
    const LEASE: Duration = Duration::from_secs(3);
    const SLACK: Duration = Duration::from_secs(3);

    let pair = Pair::new("kill")?;
    pair.host.ip(&format!("addr add {VIP4}/32 dev left"))?;
    pair.host.ip(&format!("addr add {VIP6}/128 dev left nodad"))?;
    let args = format!("--vip {VIP4} --vip {VIP6}");
    let mut load = Running::start(vipd_load(&pair, &args)?)?;
    pair.expect_all(true)?;
    let killed = load.kill()?;
    pair.expect(true, "ping", &format!("-c 1 -W 1 {VIP4}"))?;

    let arping = format!("-c 1 -w 1 -I right {VIP4}");
    while pair.client_says("arping", &arping)? {
        ensure!(killed.elapsed() < LEASE + SLACK, "still answering {:?} after its death", killed.elapsed());
    }
    pair.expect_all(false)?;
    // Known to the client by a static entry, it still gets nothing in: not even a refusal comes back.
    let mac = pair.host.enter(|| datapath::facts("left", 0))?.mac;
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    pair.client.ip(&format!("neigh replace {VIP4} lladdr {mac} dev right"))?;
    pair.expect(false, "ping", &format!("-c 1 -W 1 {VIP4}"))?;
    // And what the host sends in its name does not leave.
    let mut ping = pair.host.command("ping");
    let said = ping.args(["-c", "1", "-W", "1", "-I", VIP4, "10.9.0.2"]).output()?;
    ensure!(!said.status.success(), "a ping from the VIP was answered");

    // Nothing was reset: the counters tell, once the next process has adopted the maps.
    let max_vips = DatapathConfig::default().max_vips;
    let config = DatapathConfig { max_vips, ..pair.config() };
    let datapath = pair.host.enter(|| KernelDatapath::open(&config))?;
    for verdict in [
        Verdict::DroppedClosedArp,
        Verdict::DroppedClosedNd,
        Verdict::DroppedClosedEcho,
        Verdict::DroppedEgress,
    ] {
        ensure!(counted(&datapath, verdict)? > 0, "{verdict:?} was not counted");
    }
    let found = datapath.programmed()?;
    ensure!(found.len() == 1 && found[0].gate_active && found[0].lease_epoch == 1, "{found:?}");
    pair.expect_all(false)?;
    drop(datapath);
    let _load = Running::start(vipd_load(&pair, &args)?)?;
    pair.expect_all(true)
}

/// Row DP-14: 3,000 askers, each with an address of its own, leave no neighbour entry behind.
pub fn many_askers_leave_no_neighbour_entries() -> Result<()> {
    const ASKERS: u16 = 3000;
    let pair = Pair::new("storm")?;
    // So that every asker is a neighbour, and the kernel would make an entry for each.
    pair.host.ip("addr add 10.9.128.1/17 dev left")?;
    let datapath = pair.serving()?;
    let before = pair.host.ip("-4 neigh show")?.lines().count();
    let vip: Ipv4Addr = VIP4.parse()?;
    pair.client.enter(|| -> Result<()> {
        let wire = vipd_wire::Wire::open("right")?;
        for asker in 0..ASKERS {
            let [high, low] = (asker + 256).to_be_bytes();
            let mac = [0x02, 0x99, 0, 0, high, low];
            let arp = Arp::request(mac, Ipv4Addr::new(10, 9, 128 + high, low), vip);
            wire.send(&padded(ethernet(BROADCAST, mac, &[], ETHERTYPE_ARP, &arp.bytes())))?;
        }
        Ok(())
    })?;
    let end = Instant::now() + Duration::from_secs(10);
    while counted(&datapath, Verdict::AnsweredArp)? < u64::from(ASKERS) {
        ensure!(Instant::now() < end, "only {} answered", counted(&datapath, Verdict::AnsweredArp)?);
        std::thread::yield_now();
    }
    let after = pair.host.ip("-4 neigh show")?.lines().count();
    ensure!(after <= before, "{before} neighbour entries before, {after} after");
    Ok(())
}

/// Native mode answers on a veth whose peer runs a native program too.
pub fn native_mode_answers() -> Result<()> {
    let pair = Pair::new("native")?;
    let peer_pins = bench::pin_dir("native-peer");
    let native = |pins: &Path| DatapathConfig {
        mode: DatapathMode::Native,
        pin_dir: pins.into(),
        max_vips: 64,
        log_packets: false,
    };
    let peer = pair.client.enter(|| -> Result<_> {
        let datapath = KernelDatapath::open(&native(&peer_pins))?;
        let attachment = datapath.attach(&datapath::facts("right", 0)?)?;
        Ok((datapath, attachment))
    });
    let result = peer.and_then(|(_peer, attachment)| {
        ensure!(attachment == Attachment::Native, "{attachment:?}");
        let datapath = pair.host.enter(|| KernelDatapath::open(&native(&pair.pins)))?;
        let attachment = pair.attach(&datapath)?;
        ensure!(attachment == Attachment::Native, "{attachment:?}");
        datapath.set_lease(1, clock::now().after(LONG))?;
        for (group, vip) in [(GROUP4, VIP4), (GROUP6, VIP6)] {
            datapath.program(group, pair.index()?, &set(vip)?)?;
            datapath.open_gate(group, 1, 1)?;
        }
        pair.expect_all(true)?;
        pair.expect(true, "ping", &format!("-c 1 -W 1 -s 1472 {VIP4}"))
    });
    datapath::unload(&peer_pins)?;
    result
}

/// Row DP-13: prints, logs frames when asked to, and leaves nothing behind.
pub fn vipd_load_comes_and_goes() -> Result<()> {
    let pair = Pair::new("load")?;
    let output = run(&mut vipd_load(&pair, &format!("--vip {VIP4} --seconds 1 --log-packets"))?)?;
    let said = String::from_utf8_lossy(&output.stdout);
    for words in
        ["attached in generic mode", &format!("answering for {VIP4}"), "frames", "detached from left"]
    {
        ensure!(said.contains(words), "'{words}' is missing in: {said}");
    }
    ensure!(!pair.pins.exists(), "{} is still there", pair.pins.display());
    ensure!(!pair.host.ip("link show dev left")?.contains("xdp"), "XDP is still attached");
    Ok(())
}

/// A process in a time namespace reads another CLOCK_BOOTTIME than the kernel: it must not pretend that
/// the kernel enforces its lease.
pub fn another_clock_is_refused() -> Result<()> {
    let pair = Pair::new("clock")?;
    let load = vipd_load(&pair, "--seconds 1")?;
    let mut unshare = pair.host.command("unshare");
    unshare.args(["--time", "--boottime", "100000", "--fork"]).arg(load.get_program()).args(load.get_args());
    let output = unshare.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("time namespace"), "{said}");
    Ok(())
}

/// Frames out of an interface of the calling thread's namespace.
mod vipd_wire {
    use anyhow::{Context as _, Result};
    use pnet::datalink::{self, Channel, DataLinkSender};

    pub struct Wire(std::cell::RefCell<Box<dyn DataLinkSender>>);

    impl Wire {
        pub fn open(name: &str) -> Result<Self> {
            let interface = datalink::interfaces()
                .into_iter()
                .find(|interface| interface.name == name)
                .with_context(|| format!("no interface {name}"))?;
            match datalink::channel(&interface, datalink::Config::default())? {
                Channel::Ethernet(sender, _) => Ok(Self(sender.into())),
                _ => anyhow::bail!("{name} is no Ethernet"),
            }
        }

        pub fn send(&self, frame: &[u8]) -> Result<()> {
            self.0.borrow_mut().send_to(frame, None).context("no room")?.context("sending a frame")
        }
    }
}
