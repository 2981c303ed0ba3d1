//! Many hierarchies on one host that all go elsewhere at once: because the host is lost, because its daemon is
//! killed, or because an operator wants it.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use vipd_tests::{
    capture::Capture,
    frames::Mac,
    interrupt,
    lab::{Lab, Options},
    measure::Spread,
    prober::{Prober, Targets},
    table::Table,
    timeline::Moment,
};

use crate::all_answered;

/// Thousands of addresses take their time, in a debug build above all.
const PATIENCE: Duration = Duration::from_secs(180);

/// How often each sampled address is asked for: what is measured is true to this.
const INTERVAL: Duration = Duration::from_millis(20);

/// What makes them go.
#[derive(Clone, Copy, Debug)]
enum Cause {
    NodeLoss,
    DaemonKill,
    PlannedMove,
}

const CAUSES: [Cause; 3] = [Cause::NodeLoss, Cause::DaemonKill, Cause::PlannedMove];

impl Cause {
    fn name(self) -> &'static str {
        match self {
            Self::NodeLoss => "node loss (daemon killed, cables cut)",
            Self::DaemonKill => "daemon kill (SIGKILL)",
            Self::PlannedMove => "planned move (node standby)",
        }
    }
}

/// A hierarchy answers when all of its sampled addresses do.
#[derive(Clone, Copy, Debug, Serialize)]
struct Run {
    first_ms: f64,
    median_ms: f64,
    last_ms: f64,
    /// Between two answers for the same address, at the client, for whichever address it was longest.
    longest_silence_ms: f64,
    /// Frames of the former owner after the new one's first, for the same address.
    double_answers: usize,
}

#[derive(Debug, Serialize)]
pub struct Case {
    cause: String,
    hierarchies: usize,
    addresses: usize,
    /// Of them the client asked for so many.
    sampled: usize,
    runs: Vec<Run>,
}

pub struct Size {
    pub hierarchies: usize,
    /// Two at least: the parent has one, the child the rest.
    pub each: usize,
}

struct Stage {
    // The prober and the capture end before the network below them.
    _prober: Prober,
    capture: Capture,
    lab: Lab,
    /// By hierarchy.
    samples: Vec<Vec<IpAddr>>,
    all: Vec<IpAddr>,
}

/// Those of the three cases whose name contains `only`, one after another in one cluster.
pub fn run(size: &Size, runs: usize, only: Option<&str>) -> Result<Vec<Case>> {
    let name = |cause: Cause| format!("vipd, {} hierarchies, {}", size.hierarchies, cause.name());
    let wanted: Vec<Cause> =
        CAUSES.into_iter().filter(|c| only.is_none_or(|only| name(*c).contains(only))).collect();
    if wanted.is_empty() || runs == 0 {
        return Ok(Vec::new());
    }
    eprint!("vipd, {} hierarchies of {} addresses ", size.hierarchies, size.each);
    let stage = Stage::new(size)?;
    eprintln!("are in service");
    let mut cases = Vec::new();
    for cause in wanted {
        let name = name(cause);
        eprint!("{name} ");
        let all = (0..runs).map(|_| stage.once(cause)).collect::<Result<Vec<_>>>();
        let runs = all.map_err(|e| stage.lab.explain(e)).with_context(|| name.clone())?;
        eprintln!();
        let (hierarchies, addresses) = (size.hierarchies, size.hierarchies * size.each);
        cases.push(Case { cause: name, hierarchies, addresses, sampled: stage.all.len(), runs });
    }
    Ok(cases)
}

impl Stage {
    /// All in service on the first host.
    fn new(size: &Size) -> Result<Self> {
        ensure!(size.each >= 2 && size.hierarchies >= 1, "a hierarchy has two addresses at least");
        let lab = Lab::new(&Options::default())?;
        lab.add_wide_subnet()?;
        let vips = Lab::wide_addresses(size.hierarchies * size.each);
        let samples: Vec<Vec<IpAddr>> = vips.chunks(size.each).map(sample).collect();
        let all = samples.concat();
        let capture = lab.capture(&all)?;
        let targets = vec![Targets { addresses: all.clone(), interval: INTERVAL }];
        // By ARP alone: who answers is asked for by broadcast, so every host that would answer does.
        let prober = Prober::start(lab.segment.client(), "eth0", lab.segment.asker(), Vec::new(), targets)?;
        lab.form_cluster()?;
        let mut resources = Vec::new();
        for (n, chunk) in vips.chunks(size.each).enumerate() {
            if let [parent, first, .., last] = chunk {
                resources.push((format!("top-{n:03}"), format!("{parent}/15")));
                resources.push((format!("set-{n:03}"), format!("{first}-{last}/15")));
            } else if let [parent, child] = chunk {
                resources.push((format!("top-{n:03}"), format!("{parent}/15")));
                resources.push((format!("set-{n:03}"), format!("{child}/15")));
            }
        }
        lab.create_many(0, &resources)?;
        for n in 0..size.hierarchies {
            interrupt::check()?;
            let (parent, child) = (format!("top-{n:03}"), format!("set-{n:03}"));
            lab.host(0).vipctl(&["depend", &parent, &child])?.done().map_err(|e| lab.explain(e))?;
        }
        Ok(Self { _prober: prober, capture, lab, samples, all })
    }

    /// The host that has all of them, once all is as it shall be. What went elsewhere, because a start took too
    /// long, is brought there.
    fn owner(&self) -> Result<usize> {
        self.lab.wait_whole()?;
        self.wait_settled()?;
        let owner = self.lab.owner(0, "top-000")?;
        let host = self.lab.host(owner);
        for resource in host.status()?.resources {
            if resource.tag.as_str().starts_with("top-") && resource.owner.as_deref() != Some(host.name()) {
                interrupt::check()?;
                host.vipctl(&["in-service", resource.tag.as_str(), "--on", host.name()])?.done()?;
            }
        }
        self.wait_settled()?;
        let strays =
            host.status()?.resources.iter().filter(|r| r.owner.as_deref() != Some(host.name())).count();
        ensure!(strays == 0, "{strays} resources are not on {}", host.name());
        Ok(owner)
    }

    fn wait_settled(&self) -> Result<()> {
        self.lab.wait(PATIENCE, "all are in service", || {
            let away = self.lab.host(0).status()?.resources.iter().filter(|r| r.state != "ISP").count();
            ensure!(away == 0, "{away} are not");
            Ok(())
        })
    }

    fn once(&self, cause: Cause) -> Result<Run> {
        let owner = self.owner()?;
        let before = Moment::now();
        all_answered(&self.lab, &self.capture, &self.all, None, before)?;
        let host = self.lab.host(owner);
        let other = self.lab.host((owner + 1) % self.lab.hosts.len());
        let begun = match cause {
            Cause::NodeLoss => {
                let killed = host.sigkill()?;
                self.lab.segment.cut(owner)?;
                killed
            }
            Cause::DaemonKill => host.sigkill()?,
            Cause::PlannedMove => {
                let asked = Moment::now();
                other.vipctl(&["node", "standby", host.name()])?.done()?;
                asked
            }
        };
        let former = host.mac();
        self.lab.wait(PATIENCE, "all addresses are answered by another host", || {
            self.capture.look(|timeline| {
                let later = timeline.records.iter().rev().take_while(|r| r.time > begun);
                let new = later.filter(|r| r.kind.is_answer() && r.mac != former);
                let answered: std::collections::HashSet<IpAddr> = new.map(|r| r.address).collect();
                ensure!(answered.len() == self.all.len(), "{} of {} are", answered.len(), self.all.len());
                Ok(())
            })
        })?;
        match cause {
            Cause::NodeLoss => {
                self.lab.segment.mend(owner)?;
                host.start()?;
            }
            Cause::DaemonKill => host.start()?,
            Cause::PlannedMove => drop(other.vipctl(&["node", "online", host.name()])?.done()?),
        }
        // With what the former owner sends when it is back.
        self.owner()?;
        let run = self.measure(before, begun, former)?;
        eprint!(".");
        Ok(run)
    }

    /// What the client saw.
    fn measure(&self, before: Moment, begun: Moment, former: Mac) -> Result<Run> {
        let seen = self.capture.look(|t| t.between(before, Moment(u64::MAX)));
        let mut firsts: HashMap<IpAddr, Moment> = HashMap::new();
        let mut last: BTreeMap<IpAddr, Moment> = BTreeMap::new();
        let (mut double_answers, mut silence) = (0, Duration::ZERO);
        for record in &seen.records {
            if record.mac != former && record.time >= begun && record.kind.is_answer() {
                firsts.entry(record.address).or_insert(record.time);
            }
            let taken = firsts.get(&record.address).is_some_and(|first| record.time > *first);
            double_answers += usize::from(record.mac == former && taken);
            if record.kind.is_answer()
                && let Some(earlier) = last.insert(record.address, record.time)
            {
                silence = silence.max(record.time.since(earlier));
            }
        }
        let whole = |sample: &Vec<IpAddr>| -> Result<f64> {
            let all = sample.iter().map(|a| firsts.get(a).copied().context("no new owner"));
            let last = all.collect::<Result<Vec<_>>>()?.into_iter().max().context("no sample")?;
            Ok(last.since(begun).as_secs_f64() * 1e3)
        };
        let spread = Spread::of(self.samples.iter().map(whole).collect::<Result<Vec<_>>>()?);
        Ok(Run {
            first_ms: spread.min,
            median_ms: spread.median,
            last_ms: spread.max,
            longest_silence_ms: silence.as_secs_f64() * 1e3,
            double_answers,
        })
    }
}

/// The parent's address, and the first, middle and last of the child's.
fn sample(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut picked = vec![0, 1, addresses.len() / 2, addresses.len().saturating_sub(1)];
    picked.dedup();
    let mut all: Vec<IpAddr> = picked.into_iter().filter_map(|i| addresses.get(i).copied()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The table, and an error where two hosts answered for one address.
pub fn print(cases: &[Case]) -> Result<()> {
    if cases.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[
        "until hierarchies answer elsewhere; ms, min / median / max of the runs",
        "addresses",
        "first",
        "median",
        "last",
        "longest silence",
        "double answers",
    ]);
    for case in cases {
        let of = |pick: fn(&Run) -> f64| Spread::of(case.runs.iter().map(pick)).to_string();
        table.row([
            case.cause.clone(),
            case.addresses.to_string(),
            of(|r| r.first_ms),
            of(|r| r.median_ms),
            of(|r| r.last_ms),
            of(|r| r.longest_silence_ms),
            case.runs.iter().map(|r| r.double_answers).sum::<usize>().to_string(),
        ]);
    }
    println!("\n{table}");
    println!(
        "  a hierarchy answers when {} of its addresses do; each is asked for every {} ms",
        cases.first().map_or(0, |c| c.sampled / c.hierarchies.max(1)),
        INTERVAL.as_millis()
    );
    let double: usize = cases.iter().flat_map(|c| &c.runs).map(|r| r.double_answers).sum();
    ensure!(double == 0, "{double} answers of a former owner after the new one's: this must never be");
    Ok(())
}
