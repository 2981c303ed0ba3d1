//! Preferences as numbers, with infinities that decide by themselves (row CL-7).

use std::{fmt, iter::Sum, ops::Add, str::FromStr};

use serde::{Deserialize, Serialize};

/// A preference: more is better. At or beyond one million it is infinite, as in Pacemaker: it then decides
/// whatever else is said, and minus infinity wins against plus infinity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Score(i32);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no score: use a number from -999999 to 999999, INFINITY or -INFINITY")]
pub struct BadScore(String);

impl Score {
    pub const ZERO: Self = Self(0);
    pub const INFINITY: Self = Self(1_000_000);
    pub const MINUS_INFINITY: Self = Self(-1_000_000);

    /// Whatever is beyond the infinities is infinite.
    pub const fn new(value: i32) -> Self {
        if value >= Self::INFINITY.0 {
            Self::INFINITY
        } else if value <= Self::MINUS_INFINITY.0 {
            Self::MINUS_INFINITY
        } else {
            Self(value)
        }
    }

    pub const fn value(self) -> i32 {
        self.0
    }

    /// Never there.
    pub const fn forbids(self) -> bool {
        self.0 == Self::MINUS_INFINITY.0
    }

    /// There or nowhere, where two belong together.
    pub const fn demands(self) -> bool {
        self.0 == Self::INFINITY.0
    }
}

impl Add for Score {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        if self.forbids() || other.forbids() {
            return Self::MINUS_INFINITY;
        }
        if self.demands() || other.demands() {
            return Self::INFINITY;
        }
        // Two finite ones: no overflow. That one reaches an infinity by adding up is meant.
        Self::new(self.0 + other.0)
    }
}

impl Sum for Score {
    /// Whatever the order: minus infinity wins, then plus infinity, then the numbers.
    fn sum<I: Iterator<Item = Self>>(scores: I) -> Self {
        let (mut forbidden, mut demanded, mut sum) = (false, false, 0_i64);
        for score in scores {
            forbidden |= score.forbids();
            demanded |= score.demands();
            sum += i64::from(score.0);
        }
        match (forbidden, demanded) {
            (true, _) => Self::MINUS_INFINITY,
            (false, true) => Self::INFINITY,
            (false, false) => {
                let infinity = i64::from(Self::INFINITY.0);
                Self::new(sum.clamp(-infinity, infinity) as i32)
            }
        }
    }
}

impl FromStr for Score {
    type Err = BadScore;
    fn from_str(text: &str) -> Result<Self, BadScore> {
        let bad = || BadScore(text.to_owned());
        match text.to_ascii_uppercase().as_str() {
            "INFINITY" | "+INFINITY" | "INF" | "+INF" => Ok(Self::INFINITY),
            "-INFINITY" | "-INF" => Ok(Self::MINUS_INFINITY),
            number => {
                let value: i32 = number.parse().map_err(|_| bad())?;
                let finite = value > Self::MINUS_INFINITY.0 && value < Self::INFINITY.0;
                finite.then_some(Self(value)).ok_or_else(bad)
            }
        }
    }
}

impl TryFrom<String> for Score {
    type Error = BadScore;
    fn try_from(text: String) -> Result<Self, BadScore> {
        text.parse()
    }
}

impl From<Score> for String {
    fn from(score: Score) -> Self {
        score.to_string()
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.forbids() {
            f.pad("-INFINITY")
        } else if self.demands() {
            f.pad("INFINITY")
        } else {
            f.pad(&self.0.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinities_decide() {
        let (plus, minus, five) = (Score::INFINITY, Score::MINUS_INFINITY, Score::new(5));
        for (all, sum) in [
            (vec![five, five], Score::new(10)),
            (vec![plus, five], plus),
            (vec![plus, minus, five], minus),
            (vec![Score::new(999_999), Score::new(999_999), Score::new(-999_999)], Score::new(999_999)),
            (vec![], Score::ZERO),
        ] {
            assert_eq!(all.iter().copied().sum::<Score>(), sum, "{all:?}");
        }
        assert_eq!(plus + minus, minus);
        assert_eq!(five + five, Score::new(10));
    }

    #[test]
    fn every_score_reads_as_it_is_written() {
        for text in ["0", "-17", "999999", "INFINITY", "-INFINITY"] {
            assert_eq!(text.parse::<Score>().unwrap().to_string(), text);
        }
        assert_eq!("inf".parse::<Score>().unwrap(), Score::INFINITY);
        for bad in ["", "1000000", "-1000000", "much", "1.5"] {
            assert!(bad.parse::<Score>().is_err(), "{bad}");
        }
    }
}
