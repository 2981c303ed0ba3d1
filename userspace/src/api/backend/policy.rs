//! Words for policies: of one resource (`set`) and of all (`cluster set`).

use std::time::Duration;

use super::{Context, Result, quorum::check_leaves_out};
use crate::{
    api::{Answer, ApiError},
    core::change::{Change, DefaultSetting, Setting},
    model::{Threshold, TwoNodes},
};

const KNOWN: &str = "known are stickiness=SCORE, migration-threshold=N|unlimited, restarts=N|unlimited, \
                     failure-timeout=SECONDS, maintenance=on|off and two-nodes=off|freeze|tie-breaker";

impl Context {
    pub(super) async fn cluster_set(&self, settings: &[(String, String)]) -> Result<Answer> {
        let member = self.member()?;
        if settings.is_empty() {
            return Err(ApiError::usage(format!("nothing to set: {KNOWN}")));
        }
        let settings = settings.iter().map(|(k, v)| default(k, v)).collect::<Result<Vec<_>>>()?;
        let breaks_ties = settings.contains(&DefaultSetting::TwoNodes(TwoNodes::TieBreaker));
        if breaks_ties {
            check_leaves_out(&member)?;
        }
        member.fresh().await?;
        let only_two = settings.iter().all(|s| matches!(s, DefaultSetting::TwoNodes(_)));
        let maintained = settings.contains(&DefaultSetting::Maintenance(true));
        member.propose(settings.into_iter().map(|setting| Change::SetDefault { setting }).collect()).await?;
        Ok(Answer::done(if maintained {
            "the cluster is in maintenance: nothing is checked, started, stopped or moved; 'vipctl cluster set \
             maintenance=off' ends it"
        } else if breaks_ties {
            "UNSAFE where both nodes may reach the connectivity hosts and not one another: set for when the cluster has \
             two voters; 'vipctl cluster status' says what that means"
        } else if only_two {
            "set for when the cluster has two voters: 'vipctl cluster status' says what that means"
        } else {
            "set for all resources that say nothing else"
        }))
    }
}

fn default(key: &str, value: &str) -> Result<DefaultSetting> {
    if key == "two-nodes" {
        let wrong = || {
            ApiError::usage(format!(
                "two-nodes={value} is not valid: use off (the loss of one of two is silence), freeze (each keeps what it \
                 has) or tie-breaker (who reaches the connectivity hosts goes on alone; UNSAFE, see 'vipctl cluster set \
                 --help')"
            ))
        };
        return TwoNodes::named(value).map(DefaultSetting::TwoNodes).ok_or_else(wrong);
    }
    let setting = match parse(key, value) {
        Some(setting) => setting?,
        None => return Err(ApiError::usage(format!("there is no setting '{key}': {KNOWN}"))),
    };
    Ok(match setting {
        Setting::Stickiness(Some(score)) => DefaultSetting::Stickiness(score),
        Setting::MigrationThreshold(Some(threshold)) => DefaultSetting::MigrationThreshold(threshold),
        Setting::FailureTimeout(Some(timeout)) => DefaultSetting::FailureTimeout(timeout),
        Setting::Maintenance(on) => DefaultSetting::Maintenance(on),
        _ => return Err(ApiError::usage(format!("{key}={value} is nothing for the whole cluster: {KNOWN}"))),
    })
}

/// None for a key that is none of a policy's.
pub(super) fn parse(key: &str, value: &str) -> Option<Result<Setting>> {
    let wrong = |wanted: &str| ApiError::usage(format!("{key}={value} is not valid: use {wanted}"));
    let switch = || match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(wrong("on or off")),
    };
    let is_default = value == "default";
    Some(match key {
        "stickiness" if is_default => Ok(Setting::Stickiness(None)),
        "stickiness" => match value.parse() {
            Ok(score) => Ok(Setting::Stickiness(Some(score))),
            Err(_) => Err(wrong("a number from -999999 to 999999, INFINITY, -INFINITY, or default")),
        },
        "migration-threshold" | "restarts" if is_default => Ok(Setting::MigrationThreshold(None)),
        "migration-threshold" | "restarts" if value == "unlimited" => {
            Ok(Setting::MigrationThreshold(Some(Threshold::Unlimited)))
        }
        "migration-threshold" => match value.parse::<u32>() {
            Ok(n @ 1..) => Ok(Setting::MigrationThreshold(Some(Threshold::Failures(n)))),
            Ok(_) | Err(_) => Err(wrong("a number of failures from 1, unlimited, or default")),
        },
        // So many restarts in place, and the next failure is one too many.
        "restarts" => match value.parse::<u32>() {
            Ok(n) if n < u32::MAX => Ok(Setting::MigrationThreshold(Some(Threshold::Failures(n + 1)))),
            Ok(_) | Err(_) => Err(wrong("a number of local restarts from 0, unlimited, or default")),
        },
        "failure-timeout" if is_default => Ok(Setting::FailureTimeout(None)),
        "failure-timeout" => match value.parse::<u64>() {
            Ok(seconds @ 1..) => Ok(Setting::FailureTimeout(Some(Duration::from_secs(seconds)))),
            Ok(_) | Err(_) => Err(wrong("whole seconds from 1, or default")),
        },
        "service-failfast" => switch().map(Setting::ServiceFailfast),
        "node-failfast" => switch().map(Setting::NodeFailfast),
        "maintenance" => switch().map(Setting::Maintenance),
        "connectivity" => match value {
            "use" => Ok(Setting::IgnoresConnectivity(false)),
            "ignore" => Ok(Setting::IgnoresConnectivity(true)),
            _ => Err(wrong("use or ignore")),
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_and_threshold_are_one_value() {
        let threshold = |n| Some(Ok(Setting::MigrationThreshold(Some(Threshold::Failures(n)))));
        assert_eq!(parse("migration-threshold", "3"), threshold(3));
        assert_eq!(parse("restarts", "2"), threshold(3));
        assert_eq!(parse("restarts", "0"), threshold(1));
        assert_eq!(parse("restarts", "default"), Some(Ok(Setting::MigrationThreshold(None))));
        assert_eq!(parse("priority", "3"), None);
        for (key, value) in [
            ("migration-threshold", "0"),
            ("restarts", "-1"),
            ("failure-timeout", "0"),
            ("stickiness", "1000000"),
            ("service-failfast", "yes"),
            ("connectivity", "off"),
        ] {
            assert!(parse(key, value).is_some_and(|r| r.is_err()), "{key}={value}");
        }
        assert_eq!(default("maintenance", "on"), Ok(DefaultSetting::Maintenance(true)));
        assert!(default("node-failfast", "on").is_err() && default("colour", "red").is_err());
        assert!(default("stickiness", "default").is_err());
    }
}
