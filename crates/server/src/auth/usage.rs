//! Usage plans: how many requests a second, and how many in a day, a week or a month. Counted in
//! this process's memory: a restart begins a quota anew, and each process counts for itself.

use std::{
    fmt,
    str::FromStr,
    sync::{Mutex, PoisonError},
};

use anyhow::{Result, ensure};
use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, Utc};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Requests a second, in the long run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Requests that may come at once after a quiet time; as many as `rate` where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Requests in each `per`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<Period>,
}

/// Of the calendar, in UTC; weeks begin on Monday.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    Day,
    Week,
    Month,
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        })
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Day, Self::Week, Self::Month];
        all.into_iter().find(|p| p.to_string() == text).ok_or_else(|| format!("{text:?} is not day, week or month"))
    }
}

impl Plan {
    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.rate.is_none_or(|rate| rate.is_finite() && rate > 0.0), "rate must be above 0");
        ensure!(self.burst != Some(0), "burst must be at least 1");
        ensure!(self.burst.is_none() || self.rate.is_some(), "burst needs a rate");
        ensure!(self.quota.is_some() == self.per.is_some(), "quota and per (day, week, month) go together");
        Ok(())
    }

    fn most_tokens(&self) -> f64 {
        self.burst.map_or_else(|| self.rate.unwrap_or(1.0).max(1.0), f64::from)
    }
}

impl Period {
    /// The first day of the period that `day` lies in, and of the next one.
    fn bounds(self, day: NaiveDate) -> (NaiveDate, NaiveDate) {
        let first = match self {
            Self::Day => day,
            Self::Week => day - Days::new(day.weekday().num_days_from_monday().into()),
            Self::Month => day.with_day(1).unwrap_or(day),
        };
        let next = match self {
            Self::Day => first + Days::new(1),
            Self::Week => first + Days::new(7),
            Self::Month => {
                let within_next = first + Days::new(31);
                within_next.with_day(1).unwrap_or(within_next)
            }
        };
        (first, next)
    }
}

/// Why a request is not let in now, and when the next one may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    Rate { retry_after_seconds: u64 },
    Quota { retry_after_seconds: u64 },
}

/// What one key has used.
#[derive(Debug)]
pub(super) struct Usage(Mutex<Used>);

#[derive(Debug)]
struct Used {
    /// None: the bucket is full.
    tokens: Option<f64>,
    at: DateTime<Utc>,
    period_start: NaiveDate,
    n_in_period: u64,
}

impl Usage {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Used { tokens: None, at: DateTime::UNIX_EPOCH, period_start: NaiveDate::MIN, n_in_period: 0 }))
    }

    /// Counts one request, unless the plan has no room for it.
    pub(super) fn count(&self, plan: &Plan, now: DateTime<Utc>) -> Result<(), Exceeded> {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(quota), Some(period)) = (plan.quota, plan.per) {
            let (first, next) = period.bounds(now.date_naive());
            if used.period_start != first {
                (used.period_start, used.n_in_period) = (first, 0);
            }
            if used.n_in_period >= quota {
                let left = next.and_time(NaiveTime::MIN).and_utc() - now;
                let retry_after_seconds = u64::try_from(left.num_seconds()).unwrap_or(0) + 1;
                return Err(Exceeded::Quota { retry_after_seconds });
            }
        }
        if let Some(rate) = plan.rate {
            let most = plan.most_tokens();
            // A clock that was set back adds nothing.
            let seconds = (now - used.at).num_microseconds().unwrap_or(i64::MAX).max(0) as f64 / 1e6;
            let tokens = used.tokens.map_or(most, |tokens| (tokens + seconds * rate).min(most));
            (used.at, used.tokens) = (now, Some(tokens));
            if tokens < 1.0 {
                return Err(Exceeded::Rate { retry_after_seconds: ((1.0 - tokens) / rate).ceil() as u64 });
            }
            used.tokens = Some(tokens - 1.0);
        }
        used.n_in_period += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    #[test]
    fn a_rate_refills_up_to_its_burst() {
        let plan = Plan { rate: Some(2.0), burst: Some(3), quota: None, per: None };
        let usage = Usage::new();
        let n_let_in = |time: &str| (0..10).take_while(|_| usage.count(&plan, at(time)).is_ok()).count();
        assert_eq!(n_let_in("2026-01-01T00:00:00Z"), 3);
        assert_eq!(n_let_in("2026-01-01T00:00:00.500Z"), 1);
        assert_eq!(n_let_in("2026-01-01T00:00:01Z"), 1);
        assert_eq!(n_let_in("2025-12-31T00:00:00Z"), 0, "the clock was set back");
        assert_eq!(n_let_in("2026-01-02T00:00:00Z"), 3);
        let refused = usage.count(&plan, at("2026-01-02T00:00:00Z"));
        assert_eq!(refused, Err(Exceeded::Rate { retry_after_seconds: 1 }));
    }

    #[test]
    fn a_quota_begins_anew_with_its_period() {
        for (period, last, next, seconds) in [
            (Period::Day, "2026-02-28T23:59:30Z", "2026-03-01T00:00:00Z", 31),
            (Period::Week, "2026-03-01T23:59:59Z", "2026-03-02T00:00:00Z", 2),
            (Period::Month, "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z", 2),
        ] {
            let plan = Plan { rate: None, burst: None, quota: Some(2), per: Some(period) };
            let usage = Usage::new();
            assert!(usage.count(&plan, at(last)).is_ok() && usage.count(&plan, at(last)).is_ok());
            let exceeded = Exceeded::Quota { retry_after_seconds: seconds };
            assert_eq!(usage.count(&plan, at(last)), Err(exceeded), "{period}");
            assert!(usage.count(&plan, at(next)).is_ok(), "{period}");
        }
    }
}
