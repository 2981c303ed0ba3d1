//! `cargo xtask test [FILTER]`: every test there is, and one line that sums them up.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use anyhow::{Context, Result, bail};

use crate::{
    build,
    setup::{self, Part},
    shell::{cargo, is_root, say, shown},
};

/// What the test programs said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
    /// Why each of the failed ones failed, and what its test program told about that: repeated at the end, where a
    /// reader looks who has thousands of lines (or, of a log that was cut, the last ones only).
    reasons: Vec<Reason>,
    /// Whether the lines that are read now belong to the last of the reasons.
    in_reason: bool,
    /// From the summary lines, as a check on the names.
    failed_count: usize,
    skipped_count: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Reason {
    test: String,
    lines: Vec<String>,
}

/// So many lines of each reason are repeated.
const BEGINNING: usize = 40;
const END: usize = 3;

impl Tally {
    /// Takes in a line of a test program's output (libtest's format, which libtest-mimic shares).
    fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            let count = |what: &str| {
                counts
                    .split(['.', ';'])
                    .filter_map(|part| part.trim().strip_suffix(what))
                    .find_map(|n| n.trim().parse::<usize>().ok())
                    .unwrap_or(0)
            };
            self.passed += count(" passed");
            self.failed_count += count(" failed");
            self.skipped_count += count(" ignored");
        } else if let Some(rest) = line.strip_prefix("test ")
            && let Some((name, outcome)) = rest.rsplit_once(" ... ")
        {
            let name = name.trim().to_owned();
            if outcome.starts_with("FAILED") {
                self.failed.push(name);
            } else if outcome.starts_with("ignored") {
                let reason = outcome.strip_prefix("ignored, ").map(|r| format!(" ({r})")).unwrap_or_default();
                self.skipped.push(name + &reason);
            }
        } else if let Some(test) = self.headed(line) {
            self.reasons.push(Reason { test, lines: Vec::new() });
            self.in_reason = true;
        } else if line == "failures:" {
            self.in_reason = false;
        } else if self.in_reason
            && let Some(reason) = self.reasons.last_mut()
            && !(line.is_empty() && reason.lines.is_empty())
        {
            reason.lines.push(line.to_owned());
        }
    }

    /// The failed test that the line is the heading of. What a test tells may have headings of its own.
    fn headed(&self, line: &str) -> Option<String> {
        let test = line.strip_prefix("---- ")?.strip_suffix(" ----")?;
        let test = test.strip_suffix(" stdout").unwrap_or(test);
        self.failed.iter().find(|failed| *failed == test).cloned()
    }
}

impl Reason {
    /// The beginning, which is the error itself, and the end, which says how the machine did.
    fn repeated(&self) -> Vec<String> {
        let told = self.lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
        let lines = &self.lines[..told];
        if told <= BEGINNING + END {
            return lines.to_vec();
        }
        let between = format!("({} more lines above)", told - BEGINNING - END);
        [&lines[..BEGINNING], &[between], &lines[told - END..]].concat()
    }
}

pub fn run(filter: Option<&str>) -> Result<()> {
    let root = is_root();
    let mut tally = Tally::default();
    let mut test = cargo();
    test.args(["test", "--workspace", "--no-fail-fast"]);
    setup::ensure(&[Part::Build])?;
    if root {
        setup::ensure(&[Part::Bpf, Part::Peers, Part::Cloud])?;
        build::packages(&["vipd", "vipd-tests"], false)?;
    } else {
        say("not root: tests with network namespaces and BPF programs are skipped (run as root for all)");
        test.args(["--exclude", "vipd-tests"]);
        tally.skipped.push("everything in vipd-tests (needs root)".into());
        tally.skipped_count += 1;
    }
    if let Some(filter) = filter {
        test.args(["--", filter]);
    }

    let line = shown(&test);
    say(&line);
    let mut child = test.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run `{line}`"))?;
    let output = child.stdout.take().context("the output was asked for")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what the tests print")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.read(&line);
    }
    let status = child.wait().with_context(|| format!("`{line}` was lost"))?;
    if !status.success() && tally.failed_count == 0 {
        // A program that does not compile or dies says nothing in libtest's words.
        tally.failed.push(format!("`{line}` ({status})"));
        tally.failed_count += 1;
    }
    finish(&tally)
}

fn finish(tally: &Tally) -> Result<()> {
    for reason in &tally.reasons {
        println!("\n{} failed:", reason.test);
        for line in reason.repeated() {
            println!("    {line}");
        }
    }
    println!();
    for name in &tally.failed {
        println!("failed:  {name}");
    }
    for name in &tally.skipped {
        println!("skipped: {name}");
    }
    let (failed, skipped) = (tally.failed_count, tally.skipped_count);
    println!("{} passed, {failed} failed, {skipped} skipped", tally.passed);
    if failed > 0 {
        bail!("{failed} of the tests failed");
    }
    if tally.passed == 0 {
        bail!("no test ran: does the filter match anything?");
    }
    if skipped > 0 && std::env::var("CI").is_ok_and(|ci| ci == "true") {
        bail!("{skipped} of the tests were skipped, which CI=true forbids");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_up_what_several_programs_say() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test core::time::tests::after ... ok",
            "test a::b ... FAILED",
            "test slow ... ignored, needs a real NIC",
            "",
            "failures:",
            "",
            "---- a::b stdout ----",
            "",
            "thread 'a::b' panicked at a.rs:1:1:",
            "",
            "left is not right",
            "---- host1 ----",
            "",
            "failures:",
            "    a::b",
            "",
            "test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 1.20s",
        ] {
            tally.read(line);
        }
        let expected = Tally {
            passed: 13,
            failed: vec!["a::b".into()],
            skipped: vec!["slow (needs a real NIC)".into()],
            reasons: vec![Reason {
                test: "a::b".into(),
                lines: [
                    "thread 'a::b' panicked at a.rs:1:1:",
                    "",
                    "left is not right",
                    "---- host1 ----",
                    "",
                ]
                .map(String::from)
                .to_vec(),
            }],
            in_reason: false,
            failed_count: 1,
            skipped_count: 1,
        };
        assert_eq!(tally, expected);
    }

    #[test]
    fn of_long_reasons_the_beginning_and_the_end_are_repeated() {
        let reason = |lines: usize| {
            let lines = (0..lines).map(|n| n.to_string()).chain([String::new()]).collect();
            Reason { test: "a".into(), lines }.repeated()
        };
        assert_eq!(reason(BEGINNING + END).len(), BEGINNING + END);
        let cut = reason(100);
        assert_eq!(cut.len(), BEGINNING + 1 + END);
        assert_eq!(cut[BEGINNING - 1..], ["39", "(57 more lines above)", "97", "98", "99"]);
    }
}
