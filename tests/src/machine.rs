//! How the machine did while a test ran. Daemons whose leases last two seconds rightly fail over when nothing runs for
//! as long: of a test that failed, this tells whether that is what happened.

use std::{
    fs,
    sync::{LazyLock, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use libtest_mimic::Failed;

/// Between two looks at the clock.
const PULSE: Duration = Duration::from_millis(20);

/// Less is ordinary.
const STANDSTILL: Duration = Duration::from_millis(200);

/// When this process was to run and did not, for how long.
static STANDSTILLS: LazyLock<Mutex<Vec<(Instant, Duration)>>> = LazyLock::new(|| {
    thread::spawn(|| {
        let mut last = Instant::now();
        loop {
            thread::sleep(PULSE);
            let (now, late) = (Instant::now(), last.elapsed().saturating_sub(PULSE));
            if late >= STANDSTILL {
                STANDSTILLS.lock().unwrap_or_else(PoisonError::into_inner).push((last, late));
            }
            last = now;
        }
    });
    Mutex::default()
});

/// Runs the test; the error of one that failed says how the machine did meanwhile.
pub fn watched(test: fn() -> Result<()>) -> Result<(), Failed> {
    LazyLock::force(&STANDSTILLS);
    let (began, stolen) = (Instant::now(), stolen());
    test().map_err(|error| format!("{error:#}\n---- the machine ----\n{}", report(began, stolen)).into())
}

fn report(began: Instant, stolen_before: u64) -> String {
    let all = STANDSTILLS.lock().unwrap_or_else(PoisonError::into_inner);
    let told: Vec<String> = all
        .iter()
        .filter(|(at, _)| *at >= began)
        .map(|(at, late)| format!("{late:.1?} at {:.1?}", at.duration_since(began)))
        .collect();
    let told = if told.is_empty() { "none".to_owned() } else { told.join(", ") };
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "standstills of more than {STANDSTILL:?}: {told}; after {:.1?}: load {}; taken by the hypervisor: {} ticks",
        began.elapsed(),
        load.trim(),
        stolen().saturating_sub(stolen_before)
    )
}

/// Ticks in which the machine wanted to run and the hypervisor did not let it: the eighth figure of /proc/stat, see
/// proc_stat(5).
fn stolen() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let figure = stat.lines().next().and_then(|line| line.split_ascii_whitespace().nth(8));
    figure.and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}
