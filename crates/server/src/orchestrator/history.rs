//! What a task is doing and has done: one status per task, with a bounded ring of runs.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use model::{Report, Timestamp, config::ScheduleConfig};
use serde::Serialize;

/// What a task is doing now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for its schedule.
    Idle,
    Running,
    /// Failed, and waits for the next try.
    BackingOff,
    /// The driver was stopped; nothing starts it again.
    Stopped,
}

/// Why a run began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wake {
    /// A person or program asked for it.
    Asked,
    /// `every_ms` or `cron`.
    Schedule,
    /// `on_append`: the log moved.
    Append,
    /// A task of `after` did work.
    After,
    /// The last run failed.
    Retry,
}

/// A run that ended. Times are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    pub woken_by: Wake,
    pub started_ms: i64,
    pub ended_ms: i64,
    pub duration_ms: u64,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// `{"report": {…}}` or `{"error": "…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Report(Report),
    Error(String),
}

/// One entry of `/api/tasks`.
#[derive(Clone, Debug, Serialize)]
pub struct TaskStatus {
    pub name: &'static str,
    pub state: State,
    pub schedule: ScheduleConfig,
    pub running_since_ms: Option<i64>,
    /// When the schedule or the retry starts it next; null for a task that waits for a signal.
    pub next_run_ms: Option<i64>,
    pub n_runs: u64,
    pub n_failures: u64,
    pub n_failures_in_a_row: u64,
    pub last_success_ms: Option<i64>,
    /// The newest run of all, whatever came of it.
    pub last_run: Option<Run>,
    /// The newest failure, kept after later successes.
    pub last_error: Option<LastError>,
    /// What the runs of this process reported, added up; without levels.
    pub totals: BTreeMap<&'static str, u64>,
    /// Runs that did work or failed, oldest first.
    pub history: VecDeque<Run>,
    #[serde(skip)]
    max_history_runs: usize,
}

/// Whether a figure says how things stand, as `lag_records` does, and not what a run did;
/// levels of several runs make no sum.
pub(crate) fn is_level(figure: &str) -> bool {
    figure.starts_with("lag_")
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastError {
    pub at_ms: i64,
    pub error: String,
}

impl TaskStatus {
    pub(super) fn new(name: &'static str, schedule: ScheduleConfig, max_history_runs: usize) -> Self {
        Self {
            name,
            state: State::Idle,
            schedule,
            running_since_ms: None,
            next_run_ms: None,
            n_runs: 0,
            n_failures: 0,
            n_failures_in_a_row: 0,
            last_success_ms: None,
            last_run: None,
            last_error: None,
            totals: BTreeMap::new(),
            history: VecDeque::new(),
            max_history_runs,
        }
    }

    pub(super) fn waits(&mut self, next_run: Option<Timestamp>) {
        self.state = if self.n_failures_in_a_row > 0 { State::BackingOff } else { State::Idle };
        self.next_run_ms = next_run.map(|t| t.0);
    }

    pub(super) fn begins(&mut self, at: Timestamp) {
        self.state = State::Running;
        self.running_since_ms = Some(at.0);
        self.next_run_ms = None;
    }

    pub(super) fn ends(&mut self, woken_by: Wake, at: Timestamp, took: Duration, outcome: Outcome) {
        let started_ms = self.running_since_ms.take().unwrap_or(at.0);
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.n_runs += 1;
        let is_remarkable = match &outcome {
            Outcome::Report(report) => {
                self.n_failures_in_a_row = 0;
                self.last_success_ms = Some(at.0);
                for (&figure, &n) in report.figures.iter().filter(|(figure, _)| !is_level(figure)) {
                    let total = self.totals.entry(figure).or_default();
                    *total = total.saturating_add(n);
                }
                report.did_work
            }
            Outcome::Error(error) => {
                self.n_failures += 1;
                self.n_failures_in_a_row += 1;
                self.last_error = Some(LastError { at_ms: at.0, error: error.clone() });
                true
            }
        };
        let run = Run { woken_by, started_ms, ended_ms: at.0, duration_ms, outcome };
        if is_remarkable {
            if self.history.len() >= self.max_history_runs {
                self.history.pop_front();
            }
            self.history.push_back(run.clone());
        }
        self.last_run = Some(run);
    }

    /// What the last run wanted people to see.
    pub(super) fn notices(&self) -> &[String] {
        match self.last_run.as_ref().map(|run| &run.outcome) {
            Some(Outcome::Report(report)) => &report.notices,
            _ => &[],
        }
    }

    pub(super) fn stops(&mut self) {
        self.state = State::Stopped;
        self.running_since_ms = None;
        self.next_run_ms = None;
    }
}
