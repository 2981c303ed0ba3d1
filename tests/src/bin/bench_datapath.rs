//! How fast requests are answered: vipd's XDP program, the kernel's stack and XDP_DROP (the limit of the
//! path), all in one run on one veth pair. Requests are made inside the kernel by live BPF_PROG_TEST_RUN
//! frames; generator, answering and counting share one processor. Printing is its purpose.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{programs::loaded_programs, sys::Stats};
use clap::Parser;
use serde::Serialize;
use vipd::{
    act::datapath::{self, Attachment, Datapath as _, KernelDatapath},
    config::{DatapathConfig, DatapathMode},
    model::Ranges,
    observe::clock,
};
use vipd_tests::{
    bpf::{Assembler, Attached, Program, XDP_DROP, XDP_TX},
    netns::{NetNs, veth},
    packets::{
        Arp, BROADCAST, ETHERTYPE_ARP, ETHERTYPE_IPV4, ICMP, V4, checksum, echo_id, ethernet, icmp, padded,
    },
};

/// Measures answers per second beside the kernel's stack.
#[derive(Parser)]
struct Options {
    /// Write the figures there too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Runs of each measurement; the median is shown.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Length of one run.
    #[arg(long, default_value_t = 400)]
    millis: u64,
}

/// (addresses, distance of each to the next): neighbours share pages, scattered ones stand alone.
const SETS: [(u32, u32); 5] = [(1, 1), (256, 1), (65_536, 1), (10_000, SCATTERED), (MOST, SCATTERED)];
/// Two or three to a page.
const SCATTERED: u32 = 127;
const MOST: u32 = 65_536;
const GROUP: u64 = 1;
/// 10.128.0.0 and on.
const FIRST_VIP: u32 = 0x0a80_0000;
/// 10.64.0.1 and on.
const FIRST_ASKER: u32 = 0x0a40_0001;
const MANY_ASKERS: u32 = 65_536;
const ASKER_MAC: [u8; 6] = [0x02, 0x99, 0, 0, 0, 1];
/// Between two looks at the clock.
const CHUNK: u32 = 8192;
const FRAME: usize = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Request {
    Arp,
    Echo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Subject {
    XdpDrop,
    VipdNative,
    VipdGeneric,
    Kernel,
}

#[derive(Debug, Serialize)]
struct Measurement {
    subject: Subject,
    request: Request,
    vips: u32,
    /// Between neighbouring addresses: 1 for dense sets.
    stride: u32,
    askers: u32,
    /// Answers (for XDP_DROP: frames dropped) per second.
    per_second_min: f64,
    per_second_median: f64,
    per_second_max: f64,
    /// The whole path: made, answered, counted.
    ns_per_frame: f64,
    /// Inside the program alone, less what measuring an empty program shows; None without a program.
    program_ns: Option<f64>,
}

#[derive(Serialize)]
struct Report {
    kernel: String,
    frame_bytes: usize,
    note: &'static str,
    measurements: Vec<Measurement>,
    operations: Vec<Operation>,
}

/// What user space pays for a set of addresses.
#[derive(Debug, Serialize)]
struct Operation {
    name: &'static str,
    vips: u32,
    stride: u32,
    micros_median: f64,
}

const NOTE: &str = "veth between two namespaces; the client's end runs a native XDP_DROP program, which counts \
answers and lets native XDP_TX arrive; VIPs are asked for at random; the kernel's side has one local route \
(anyip) for all VIPs instead of addresses, because assigning 65,536 takes minutes; GRO on the host's end gives \
kernel and generic mode the same NAPI path";

fn main() -> Result<()> {
    let options = Options::parse();
    let bench = Bench::new(&options)?;
    println!("{NOTE}\n");
    println!(
        "{:<13} {:<5} {:>6} {:>9} {:>7} {:>12} {:>25} {:>9} {:>11}",
        "subject", "asked", "VIPs", "", "askers", "answers/s", "(min .. max)", "ns/frame", "program ns"
    );
    let measurements = bench.run()?;
    let operations = bench.operations()?;
    if let Some(path) = &options.json {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
        let report = Report { kernel, frame_bytes: FRAME, note: NOTE, measurements, operations };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("\nwritten to {}", path.display());
    }
    Ok(())
}

struct Bench {
    host: NetNs,
    client: NetNs,
    pins: PathBuf,
    host_mac: [u8; 6],
    host_index: u32,
    client_index: u32,
    rounds: usize,
    length: Duration,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = datapath::unload(&self.pins);
    }
}

impl Bench {
    fn new(options: &Options) -> Result<Self> {
        let (host, client) = (NetNs::new("vipd-bench-h")?, NetNs::new("vipd-bench-c")?);
        veth(&host, "left", &client, "right")?;
        host.ip("addr add 10.0.0.1/8 dev left")?;
        let mac = ASKER_MAC.map(|byte| format!("{byte:02x}")).join(":");
        // The kernel's echo replies go to one asker, whom it need not ask for.
        host.ip(&format!("neigh add 10.64.0.1 lladdr {mac} dev left nud permanent"))?;
        gro(&host, "left")?;
        let left = host.enter(|| datapath::facts("left", 0))?;
        let right = client.enter(|| datapath::facts("right", 0))?;
        Ok(Self {
            host,
            client,
            pins: format!("/sys/fs/bpf/vipd-bench-{}", std::process::id()).into(),
            host_mac: left.mac,
            host_index: left.index,
            client_index: right.index,
            rounds: options.rounds.max(1),
            length: Duration::from_millis(options.millis.max(50)),
        })
    }

    fn run(&self) -> Result<Vec<Measurement>> {
        let drop_all = Program::always(XDP_DROP, "bench_drop")?;
        let counter = Program::always(XDP_DROP, "bench_count")?;
        let _counter = self.client.enter(|| counter.attach(self.client_index, true))?;
        let mut all = Vec::new();
        let requests = [Request::Arp, Request::Echo];

        let attached = self.host.enter(|| drop_all.attach(self.host_index, true))?;
        let overhead = self.program_ns("bench_drop", Request::Arp)?;
        for request in requests {
            all.push(self.measure((Subject::XdpDrop, request, SETS[0], 1), Some(0.0))?);
        }
        drop(attached);

        for (mode, subject) in
            [(DatapathMode::Native, Subject::VipdNative), (DatapathMode::Generic, Subject::VipdGeneric)]
        {
            let datapath = self.host.enter(|| KernelDatapath::open(&self.config(mode)))?;
            let attachment = self.host.enter(|| datapath.attach(&datapath::facts("left", 0)?))?;
            ensure!(!matches!(attachment, Attachment::None { .. }), "{attachment:?}");
            datapath.set_lease(1, clock::now().after(Duration::from_secs(3600)))?;
            for vips in SETS {
                let addresses = addresses(vips);
                datapath.program(GROUP, self.host_index, &addresses)?;
                datapath.open_gate(GROUP, 1, 1)?;
                for request in requests {
                    let spent = self.program_ns_with("vipd_xdp", request, vips)? - overhead;
                    all.push(self.measure((subject, request, vips, 1), Some(spent.max(0.0)))?);
                }
                if vips == (MOST, 1) {
                    all.push(self.measure((subject, Request::Arp, vips, MANY_ASKERS), None)?);
                }
                datapath.unprogram(GROUP, &addresses)?;
            }
            datapath.detach(self.host_index)?;
            drop(datapath);
            datapath::unload(&self.pins)?;
        }

        for vips in SETS.into_iter().filter(|(_, stride)| *stride == 1) {
            let prefix = 32 - vips.0.next_power_of_two().trailing_zeros();
            self.host.ip(&format!("route replace local 10.128.0.0/{prefix} dev left"))?;
            for request in requests {
                all.push(self.measure((Subject::Kernel, request, vips, 1), None)?);
            }
        }
        all.push(self.measure((Subject::Kernel, Request::Arp, (MOST, 1), MANY_ASKERS), None)?);
        Ok(all)
    }

    fn config(&self, mode: DatapathMode) -> DatapathConfig {
        DatapathConfig { mode, pin_dir: self.pins.clone(), ..DatapathConfig::default() }
    }

    /// What it takes user space to hold, open, read and give up the largest sets.
    fn operations(&self) -> Result<Vec<Operation>> {
        let mut all = Vec::new();
        println!("\n{:<28} {:>6} {:>9} {:>12}", "operation", "VIPs", "", "microseconds");
        for (vips, stride) in SETS {
            let addresses = addresses((vips, stride));
            let mut took: Vec<(&'static str, Vec<f64>)> = Vec::new();
            for _ in 0..self.rounds {
                let mut note = |name: &'static str, start: Instant| {
                    let micros = start.elapsed().as_secs_f64() * 1e6;
                    match took.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, all)) => all.push(micros),
                        None => took.push((name, vec![micros])),
                    }
                };
                macro_rules! timed {
                    ($name:literal, $work:expr) => {{
                        let start = Instant::now();
                        let result = $work;
                        note($name, start);
                        result
                    }};
                }
                let config = self.config(DatapathMode::Generic);
                let datapath = self.host.enter(|| KernelDatapath::open(&config))?;
                timed!("program", datapath.program(GROUP, 1, &addresses)?);
                timed!("open the gate", datapath.open_gate(GROUP, 1, 1)?);
                timed!("shut the gate", datapath.close_gate(GROUP)?);
                timed!("move to another interface", datapath.program(GROUP, 2, &addresses)?);
                timed!("activity of all together", datapath.group_activity(GROUP)?);
                timed!("the 1,000 busiest", datapath.busiest(GROUP, 1000)?);
                timed!("what is programmed", datapath.programmed()?);
                drop(datapath);
                let datapath =
                    timed!("open, adopting them", self.host.enter(|| KernelDatapath::open(&config))?);
                drop(datapath);
                let larger = DatapathConfig { max_vips: config.max_vips + 256, ..config };
                let datapath =
                    timed!("open, carrying them over", self.host.enter(|| KernelDatapath::open(&larger))?);
                timed!("unprogram", datapath.unprogram(GROUP, &addresses)?);
                drop(datapath);
                datapath::unload(&self.pins)?;
            }
            for (name, mut micros) in took {
                micros.sort_by(f64::total_cmp);
                let micros_median = micros[micros.len() / 2];
                println!("{name:<28} {vips:>6} {:>9} {micros_median:>12.1}", layout(stride));
                all.push(Operation { name, vips, stride, micros_median });
            }
        }
        Ok(all)
    }

    fn measure(
        &self,
        (subject, request, vips, askers): (Subject, Request, (u32, u32), u32),
        program_ns: Option<f64>,
    ) -> Result<Measurement> {
        let (program, frame) = self.generator(request, vips, askers)?;
        let _resident = self.resident(&program)?;
        let mut rates = Vec::with_capacity(self.rounds);
        for _ in 0..self.rounds {
            rates.push(self.rate(&program, &frame, subject == Subject::XdpDrop)?);
        }
        rates.sort_by(f64::total_cmp);
        let measurement = Measurement {
            subject,
            request,
            vips: vips.0,
            stride: vips.1,
            askers,
            per_second_min: rates[0],
            per_second_median: rates[rates.len() / 2],
            per_second_max: rates[rates.len() - 1],
            ns_per_frame: 1e9 / rates[rates.len() / 2],
            program_ns,
        };
        print(&measurement);
        Ok(measurement)
    }

    /// Answers per second, or frames for the subject that answers nothing.
    fn rate(&self, program: &Program, frame: &[u8], received: bool) -> Result<f64> {
        let count = || -> Result<u64> {
            if received {
                self.host.enter(|| packets("left"))
            } else {
                self.client.enter(|| packets("right"))
            }
        };
        let before = count()?;
        let elapsed = self.client.enter(|| -> Result<Duration> {
            let start = Instant::now();
            while start.elapsed() < self.length {
                program.send(frame, self.client_index, CHUNK)?;
            }
            Ok(start.elapsed())
        })?;
        let answered = count()? - before;
        ensure!(answered > 0, "nothing was answered");
        Ok(answered as f64 / elapsed.as_secs_f64())
    }

    fn program_ns(&self, name: &str, request: Request) -> Result<f64> {
        self.program_ns_with(name, request, SETS[0])
    }

    /// Mean time inside the program of that name, as the kernel's statistics have it; the median of the rounds.
    /// The statistics' own clock waits for what the program loads from memory, which the processor else does
    /// beside other work: cache misses count in full here.
    fn program_ns_with(&self, name: &str, request: Request, vips: (u32, u32)) -> Result<f64> {
        let find = || {
            loaded_programs()
                .flatten()
                .filter(|program| program.name_as_str() == Some(name))
                .max_by_key(|program| program.run_count())
                .with_context(|| format!("no program {name}"))
        };
        let (program, frame) = self.generator(request, vips, 1)?;
        let _resident = self.resident(&program)?;
        let _statistics = aya::sys::enable_stats(Stats::RunTime).context("switching statistics on")?;
        let send = || self.client.enter(|| program.send(&frame, self.client_index, CHUNK));
        send()?;
        let mut means = Vec::with_capacity(self.rounds);
        for _ in 0..self.rounds {
            let before = find()?;
            for _ in 0..16 {
                send()?;
            }
            let after = find()?;
            let runs = after.run_count() - before.run_count();
            ensure!(runs > 0, "{name} did not run");
            means.push((after.run_time() - before.run_time()).as_nanos() as f64 / runs as f64);
        }
        means.sort_by(f64::total_cmp);
        Ok(means[means.len() / 2])
    }

    /// The kernel spends some 20 ms before and after each run of a program that is attached nowhere (it
    /// patches its dispatcher): attached to an idle interface it does not.
    fn resident(&self, program: &Program) -> Result<Attached> {
        self.client.enter(|| program.attach(nix::net::if_::if_nametoindex("lo")?, false))
    }

    /// A program that writes the request anew into each frame (answering has changed it) and sends it.
    fn generator(
        &self,
        request: Request,
        (vips, stride): (u32, u32),
        askers: u32,
    ) -> Result<(Program, Vec<u8>)> {
        let vip = Ipv4Addr::from_bits(FIRST_VIP);
        let asker = Ipv4Addr::from_bits(FIRST_ASKER);
        let frame = match request {
            Request::Arp => {
                let arp = Arp::request(ASKER_MAC, asker, vip);
                ethernet(BROADCAST, ASKER_MAC, &[], ETHERTYPE_ARP, &arp.bytes())
            }
            Request::Echo => {
                let ip = V4::new(asker, vip, ICMP, icmp(8, 0, echo_id(1, 1), &[0x5a; 18]));
                ethernet(self.host_mac, ASKER_MAC, &[], ETHERTYPE_IPV4, &ip.bytes())
            }
        };
        let frame = padded(frame);
        let mut program = Assembler::frame(FRAME as i32);
        program.write(0, &frame);
        if askers > 1 {
            program.random(FIRST_ASKER, askers, 1);
            // Sender's protocol address, and both places of its hardware address.
            program.write_random(28);
            program.write_random(24);
            program.write_random(8);
        }
        match request {
            Request::Arp => {
                program.random(FIRST_VIP, vips, stride);
                program.write_random(38);
            }
            Request::Echo => {
                program.random(FIRST_VIP, vips, stride);
                program.write_random(30);
                let mut rest = frame[14..30].to_vec();
                rest[10..12].fill(0);
                program.write_checksum(24, u32::from(!checksum(&rest)));
            }
        }
        program.end(XDP_TX);
        let program = program.load("bench_send")?;
        Ok((program, frame))
    }
}

fn layout(stride: u32) -> &'static str {
    if stride == 1 { "dense" } else { "scattered" }
}

fn addresses((count, stride): (u32, u32)) -> Ranges {
    (0..count).map(|n| IpAddr::V4(Ipv4Addr::from_bits(FIRST_VIP + n * stride))).collect()
}

fn print(m: &Measurement) {
    let subject = match m.subject {
        Subject::XdpDrop => "XDP_DROP",
        Subject::VipdNative => "vipd native",
        Subject::VipdGeneric => "vipd generic",
        Subject::Kernel => "kernel stack",
    };
    let request = match m.request {
        Request::Arp => "arp",
        Request::Echo => "echo",
    };
    let range = format!("({:.0} .. {:.0})", m.per_second_min, m.per_second_max);
    let program = m.program_ns.map_or_else(|| "-".to_owned(), |ns| format!("{ns:.0}"));
    println!(
        "{subject:<13} {request:<5} {:>6} {:>9} {:>7} {:>12.0} {range:>25} {:>9.0} {program:>11}",
        m.vips,
        layout(m.stride),
        m.askers,
        m.per_second_median,
        m.ns_per_frame
    );
    // A pipe would show nothing until the end.
    let _ = std::io::stdout().flush();
}

/// Frames received by an interface of the calling thread's namespace.
fn packets(name: &str) -> Result<u64> {
    let table = fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = table
        .lines()
        .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))
        .with_context(|| format!("no interface {name}"))?;
    line.split_whitespace().nth(1).context("no packet count")?.parse().context("no number")
}

/// Switches generic receive offload on, which gives a veth NAPI: frames are then taken from XDP.
fn gro(ns: &NetNs, name: &str) -> Result<()> {
    use nix::libc;
    use std::os::fd::AsRawFd as _;
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    const ETHTOOL_SGRO: u32 = 0x2c;
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    ns.enter(|| -> Result<()> {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
        let mut value = Value { command: ETHTOOL_SGRO, data: 1 };
        // SAFETY: an all-zero ifreq is valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: the request and the value that it points to live until the call returns, and are laid
        // out as SIOCETHTOOL with ETHTOOL_SGRO expects.
        let answer = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        nix::errno::Errno::result(answer).context("switching GRO on")?;
        Ok(())
    })
}
