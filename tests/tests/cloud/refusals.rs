//! What a refused order says, that it changed nothing, and its remedies carried out.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vipd_tests::netns::run;

use super::scene::Served;

/// All objections of a refusal, each a line: `TAG on HOST: REASON`.
#[derive(Debug)]
pub struct Refused(Vec<String>);

impl Served {
    /// The order is refused by checks (exit code 4), and no host sees anything changed by it.
    pub fn refused(&self, order: &[&str]) -> Result<Refused> {
        let before = self.all_told()?;
        let answer = self.lab().host(0).vipctl(order)?;
        ensure!(answer.code() == 4, "{order:?}: {answer:?}");
        ensure!(answer.stdout.is_empty(), "{answer:?}");
        let after = self.all_told()?;
        ensure!(after == before, "{order:?} changed\n{before:#?}\nto\n{after:#?}");
        Refused::read(&answer.stderr)
    }

    /// What every host tells of resources, and what was configured; without what changes by itself.
    fn all_told(&self) -> Result<Vec<Value>> {
        let told = |host: usize| {
            let host = self.lab().host(host);
            let mut status: Value =
                serde_json::from_str(&host.vipctl(&["--json", "status"])?.done()?.stdout)?;
            let resources = status.get_mut("resources").context("no resources")?;
            steady(resources);
            let hierarchies = status.get("hierarchies").cloned().unwrap_or_default();
            let export = host.vipctl(&["export"])?.done()?.stdout;
            Ok(serde_json::json!([status["resources"], hierarchies, export]))
        };
        (0..3).map(told).collect()
    }

    /// Runs a command as it was printed, as an administrator on the first host.
    pub fn administer(&self, line: &str) -> Result<Output> {
        let moto = &self.cloud().moto;
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let name = format!("operator{}", NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let operator = moto.user(&name, super::scene::ALL)?;
        let mut aws = self.cloud().aws(self.lab().segment.host(0), &operator)?;
        let arguments = line.strip_prefix("aws ").with_context(|| format!("not of AWS: {line}"))?;
        run(aws.args(arguments.split(' '))).with_context(|| format!("'{line}' does not work"))
    }
}

/// Counters and ages go.
fn steady(value: &mut Value) {
    match value {
        Value::Object(all) => {
            all.retain(|key, _| !key.ends_with("_ms") && key != "packets");
            all.values_mut().for_each(steady);
        }
        Value::Array(all) => all.iter_mut().for_each(steady),
        _ => {}
    }
}

impl Refused {
    fn read(text: &str) -> Result<Self> {
        let text = text.trim_end().strip_prefix("vipctl: ").context("who says that?")?;
        if let Some(one) = text.strip_suffix("; nothing was changed") {
            return Ok(Self(vec![one.to_owned()]));
        }
        // Where there is nothing that nodes could be asked about.
        let Some((head, lines)) = text.split_once('\n') else { return Ok(Self(vec![text.to_owned()])) };
        let lines: Vec<String> = lines.lines().map(str::to_owned).collect();
        let expected = format!("{} objections, nothing was changed:", lines.len());
        ensure!(head == expected, "'{head}' is not '{expected}'");
        Ok(Self(lines))
    }

    /// There are these objections, and no others. Each is told by all its parts, one of which names its host.
    pub fn check(&self, expected: &[&[&str]]) -> Result<()> {
        let mut left = self.0.clone();
        for parts in expected {
            let found = left.iter().position(|line| parts.iter().all(|part| line.contains(part)));
            let found = found.with_context(|| format!("nothing says {parts:?}: {:#?}", self.0))?;
            left.remove(found);
        }
        ensure!(left.is_empty(), "these are too many: {left:#?}");
        Ok(())
    }

    /// The one line that says all this.
    pub fn line(&self, parts: &[&str]) -> Result<&str> {
        let mut found = self.0.iter().filter(|line| parts.iter().all(|part| line.contains(part)));
        let line = found.next().with_context(|| format!("nothing says {parts:?}: {:#?}", self.0))?;
        ensure!(found.next().is_none(), "{parts:?} is said twice: {:#?}", self.0);
        Ok(line)
    }
}

/// The commands in a line, as printed.
pub fn commands<'a>(line: &'a str, of: &str) -> Vec<&'a str> {
    line.split('\'').filter(|part| part.starts_with(&format!("{of} "))).collect()
}

/// The statement that a line says to add to the policy.
pub fn statement(line: &str) -> Result<Value> {
    let (_, rest) = line.split_once("add to the policy of the node's role ").context("no remedy")?;
    serde_json::from_str(rest).with_context(|| format!("no statement: {rest}"))
}
