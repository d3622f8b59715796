//! When a task is due by itself: its period, counted from the start of its last run on a
//! clock that nobody sets, and its cron pattern, read on the wall clock in UTC.

use std::time::Duration;

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use model::{
    Timestamp,
    config::{ScheduleConfig, TasksConfig},
};

/// Whether all schedules can be kept, as the driver will ask.
pub fn check(tasks: &TasksConfig) -> anyhow::Result<()> {
    tasks.each().into_iter().try_for_each(|(task, config)| Schedule::parse(task, config, Timestamp::now()).map(drop))
}

pub(super) struct Schedule {
    every: Option<Duration>,
    cron: Option<Cron>,
}

impl Schedule {
    /// Errors name the setting, as `tasks.<task>.<key>`.
    pub(super) fn parse(task: &str, config: &ScheduleConfig, now: Timestamp) -> anyhow::Result<Self> {
        ensure!(config.every_ms != Some(0), "tasks.{task}.every_ms is 0; it must be at least 1");
        ensure!(!config.after.iter().any(|t| t == task), "tasks.{task}.after names the task itself");
        let cron = config.cron.as_deref().map(|pattern| {
            parse_cron(pattern, now).with_context(|| format!("tasks.{task}.cron is {pattern:?}, which cannot be used"))
        });
        Ok(Self { every: config.every_ms.map(Duration::from_millis), cron: cron.transpose()? })
    }

    /// How long from `now` until the task is due; None when only a signal starts it.
    /// `since_last_start` is None before the first run, for which a period does not wait;
    /// a cron time counts when it comes after `cron_after`, so that one which passes during
    /// a run is made up for, once.
    pub(super) fn due_in(
        &self,
        since_last_start: Option<Duration>,
        cron_after: Timestamp,
        now: Timestamp,
    ) -> Option<Duration> {
        let by_period = self.every.map(|every| match since_last_start {
            None => Duration::ZERO,
            Some(elapsed) => every.saturating_sub(elapsed),
        });
        let by_cron = self.cron.as_ref().and_then(|cron| {
            let next = next_after(cron, cron_after)?;
            Some(Duration::from_millis(u64::try_from(next.0 - now.0).unwrap_or(0)))
        });
        by_period.into_iter().chain(by_cron).min()
    }
}

fn parse_cron(pattern: &str, now: Timestamp) -> anyhow::Result<Cron> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    let cron = parser.parse(pattern)?;
    next_after(&cron, now).context("no such time comes")?;
    Ok(cron)
}

fn next_after(cron: &Cron, after: Timestamp) -> Option<Timestamp> {
    let after: DateTime<Utc> = DateTime::from_timestamp_millis(after.0)?;
    cron.find_next_occurrence(&after, false).ok().map(|t| Timestamp(t.timestamp_millis()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn at(text: &str) -> Timestamp {
        Timestamp(DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis())
    }

    fn config(every_ms: Option<u64>, cron: Option<&str>) -> ScheduleConfig {
        ScheduleConfig { every_ms, cron: cron.map(str::to_owned), ..ScheduleConfig::default() }
    }

    #[test]
    fn cron_times_are_utc_and_strictly_after() {
        for (pattern, after, expected) in [
            ("0 0 * * *", "2026-02-27T23:59:59.999Z", "2026-02-28T00:00:00Z"),
            ("0 0 * * *", "2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z"),
            ("0 0 29 2 *", "2026-03-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("*/15 * * * *", "2026-02-28T10:14:59Z", "2026-02-28T10:15:00Z"),
            ("0 10 * * MON", "2026-02-28T00:00:00Z", "2026-03-02T10:00:00Z"),
            ("@daily", "2026-12-31T12:00:00Z", "2027-01-01T00:00:00Z"),
            // Clocks in Europe and America go forward on these nights; UTC does not.
            ("30 2 * * *", "2026-03-29T00:00:00Z", "2026-03-29T02:30:00Z"),
            ("30 2 * * *", "2026-03-08T00:00:00Z", "2026-03-08T02:30:00Z"),
        ] {
            let cron = parse_cron(pattern, at(after)).unwrap();
            assert_eq!(next_after(&cron, at(after)), Some(at(expected)), "{pattern} after {after}");
        }
    }

    #[test]
    fn errors_name_the_setting() {
        let itself = ScheduleConfig { after: vec!["batch".to_owned()], ..ScheduleConfig::default() };
        for (config, words) in [
            (config(Some(0), None), "tasks.batch.every_ms"),
            (config(None, Some("")), "tasks.batch.cron"),
            (config(None, Some("61 * * * *")), "tasks.batch.cron"),
            (config(None, Some("0 0 0 * * *")), "tasks.batch.cron"),
            (config(None, Some("0 0 30 2 *")), "tasks.batch.cron"),
            (itself, "tasks.batch.after"),
        ] {
            let error = Schedule::parse("batch", &config, Timestamp(0)).err().expect(words);
            assert!(format!("{error:#}").starts_with(words), "{error:#}");
        }
    }

    #[test]
    fn the_earlier_of_period_and_cron_counts() {
        let s = Duration::from_secs;
        let noon = Timestamp(at("2026-02-28T00:00:00Z").0 + DAY_MS / 2);
        for (config, since_last_start, now, expected) in [
            (config(None, None), None, noon, None),
            (config(Some(5000), None), None, noon, Some(s(0))),
            (config(Some(5000), None), Some(s(2)), noon, Some(s(3))),
            (config(Some(5000), None), Some(s(9)), noon, Some(s(0))),
            (config(None, Some("0 0 * * *")), None, noon, Some(s(12 * 3600))),
            (config(Some(60_000), Some("0 0 * * *")), Some(s(0)), noon, Some(s(60))),
            (config(Some(90_000_000), Some("0 0 * * *")), Some(s(0)), noon, Some(s(12 * 3600))),
            // Midnight passed while the task ran: it is due at once.
            (config(None, Some("0 0 * * *")), None, Timestamp(noon.0 + DAY_MS), Some(s(0))),
        ] {
            let schedule = Schedule::parse("batch", &config, noon).unwrap();
            assert_eq!(schedule.due_in(since_last_start, noon, now), expected, "{config:?}");
        }
    }
}
