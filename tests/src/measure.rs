//! What the benchmarks share: spreads of measured values, and results as JSON.

use std::{fmt, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

/// Least, middle and most.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// NaN where there are no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut all: Vec<f64> = values.into_iter().collect();
        all.sort_by(f64::total_cmp);
        let at = |index: usize| all.get(index).copied().unwrap_or(f64::NAN);
        Self { min: at(0), median: at(all.len() / 2), max: at(all.len().saturating_sub(1)) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} / {:.0} / {:.0}", self.min, self.median, self.max)
    }
}

/// Writes results beside those of other benchmarks.
///
/// # Errors
/// When the file or its directory can't be written.
pub fn write_json(path: &Path, results: &impl Serialize) -> Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let text = serde_json::to_string_pretty(results).context("the results cannot be written as JSON")?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("\n  written to {}", path.display());
    Ok(())
}
