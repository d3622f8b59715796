//! The driver, on tokio's paused clock: time passes when every task waits, so the times
//! below are exact and no test takes long.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use model::{
    Report, Stop, Task, Timestamp,
    config::{DriverConfig, ScheduleConfig},
};
use server::{
    metrics::Metrics,
    orchestrator::{Driver, Handle, Outcome, RunNowError, State, TaskStatus, Wake},
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

/// What one run of a task does.
#[derive(Clone, Copy)]
enum Step {
    Works(u64),
    FindsNothing,
    Fails,
    Panics,
    WorksUntilStopped,
    NeverReturns,
}
use Step::*;

type Starts = Arc<Mutex<Vec<(&'static str, u64)>>>;

/// Does one step per run; the last one again and again.
struct Scripted {
    name: &'static str,
    steps: Vec<Step>,
    n_runs: usize,
    started_at: Instant,
    starts: Starts,
}

#[async_trait]
impl Task for Scripted {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn run(&mut self, stop: &Stop) -> anyhow::Result<Report> {
        self.starts.lock().unwrap().push((self.name, self.started_at.elapsed().as_millis() as u64));
        let step = self.steps[self.n_runs.min(self.steps.len() - 1)];
        self.n_runs += 1;
        let mut worked = Report { did_work: true, ..Report::default() };
        worked.add("n_records", 10);
        match step {
            Works(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            FindsNothing => return Ok(Report::default()),
            Fails => anyhow::bail!("the disk is full"),
            Panics => panic!("an offset went backwards"),
            WorksUntilStopped => stop.cancelled().await,
            NeverReturns => std::future::pending().await,
        }
        Ok(worked)
    }
}

/// A driver with scripted tasks, a log signal, and a wall clock that starts a minute
/// before midnight.
struct Stage {
    driver: Option<Driver>,
    handle: Handle,
    moved: watch::Sender<u64>,
    started_at: Instant,
    starts: Starts,
    stop: Stop,
    abort: Stop,
}

const CONFIG: DriverConfig =
    DriverConfig { backoff_min_ms: 1000, backoff_max_ms: 4000, min_pause_ms: 100, history_runs: 3 };

impl Stage {
    fn new() -> Self {
        let moved = watch::Sender::new(0);
        let started_at = Instant::now();
        // 2026-02-28T23:59:00Z
        let clock = move || Timestamp(1_772_323_140_000 + started_at.elapsed().as_millis() as i64);
        let driver = Driver::new(&CONFIG, moved.subscribe(), Arc::new(Metrics::new())).with_clock(clock);
        let (stop, abort) = (Stop::new(), Stop::new());
        let handle = driver.handle();
        Self { driver: Some(driver), handle, moved, started_at, starts: Starts::default(), stop, abort }
    }

    fn with(mut self, name: &'static str, schedule: &ScheduleConfig, steps: &[Step]) -> Self {
        let (started_at, starts) = (self.started_at, self.starts.clone());
        let task = Scripted { name, steps: steps.to_vec(), n_runs: 0, started_at, starts };
        self.driver.as_mut().unwrap().add(Box::new(task), schedule).unwrap();
        self
    }

    fn begin(&mut self) -> JoinHandle<()> {
        let driver = self.driver.take().unwrap();
        tokio::spawn(driver.run(self.stop.clone(), self.abort.clone()))
    }

    /// Lets the clock run until `ms` after the start.
    async fn until(&self, ms: u64) {
        tokio::time::sleep_until(self.started_at + Duration::from_millis(ms)).await;
    }

    fn starts_of(&self, name: &str) -> Vec<u64> {
        self.starts.lock().unwrap().iter().filter(|(task, _)| *task == name).map(|(_, ms)| *ms).collect()
    }

    fn status(&self, name: &str) -> TaskStatus {
        self.handle.statuses().into_iter().find(|s| s.name == name).unwrap()
    }
}

fn every(ms: u64) -> ScheduleConfig {
    ScheduleConfig { every_ms: Some(ms), ..ScheduleConfig::default() }
}

fn on_append() -> ScheduleConfig {
    ScheduleConfig { on_append: true, ..ScheduleConfig::default() }
}

fn after(task: &str) -> ScheduleConfig {
    ScheduleConfig { after: vec![task.to_owned()], ..ScheduleConfig::default() }
}

#[tokio::test(start_paused = true)]
async fn a_period_counts_from_start_to_start_and_runs_never_overlap() {
    for (run_ms, expected) in
        [(0, vec![0, 1000, 2000, 3000]), (300, vec![0, 1000, 2000, 3000]), (1500, vec![0, 1500, 3000])]
    {
        let mut stage = Stage::new().with("speed", &every(1000), &[Works(run_ms)]);
        stage.begin();
        stage.until(3500).await;
        assert_eq!(stage.starts_of("speed"), expected, "runs of {run_ms} ms");
        stage.abort.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn a_cron_time_that_passes_during_a_run_is_made_up_for_once() {
    const DAY_MS: u64 = 86_400_000;
    let midnight = ScheduleConfig { cron: Some("0 0 * * *".to_owned()), ..ScheduleConfig::default() };
    let mut stage = Stage::new().with("batch", &midnight, &[Works(10)]);
    stage.begin();
    stage.until(2 * DAY_MS).await;
    assert_eq!(stage.starts_of("batch"), [60_000, 60_000 + DAY_MS]);

    // This run begins a second before midnight and takes two.
    stage.until(2 * DAY_MS + 59_000).await;
    let mut stage = Stage::new().with("batch", &midnight, &[Works(61_000), Works(10)]);
    stage.handle.run_now("batch").unwrap();
    stage.begin();
    stage.until(DAY_MS).await;
    assert_eq!(stage.starts_of("batch"), [0, 61_000]);
}

#[tokio::test(start_paused = true)]
async fn signals_during_a_run_bring_exactly_one_more() {
    let mut stage = Stage::new().with("landing", &on_append(), &[Works(500)]);
    stage.begin();
    for ms in [100, 150, 200, 499] {
        stage.until(ms).await;
        stage.moved.send_modify(|n| *n += 1);
    }
    stage.until(10_000).await;
    assert_eq!(stage.starts_of("landing"), [0, 500], "one for what was there at the start, one for all that came");
}

#[tokio::test(start_paused = true)]
async fn a_busy_log_does_not_start_runs_more_often_than_the_pause_allows() {
    let mut stage = Stage::new().with("landing", &on_append(), &[Works(0)]);
    stage.begin();
    for ms in (5..500).step_by(5) {
        stage.until(ms).await;
        stage.moved.send_modify(|n| *n += 1);
    }
    assert_eq!(stage.starts_of("landing"), [0, 100, 200, 300, 400]);
}

#[tokio::test(start_paused = true)]
async fn a_task_follows_only_runs_that_did_work() {
    let mut stage = Stage::new()
        .with("compact", &after("batch"), &[Works(100)])
        .with("batch", &every(1000), &[FindsNothing, Works(200), FindsNothing])
        .with("vacuum", &after("compact"), &[FindsNothing])
        .with("trim", &after("vacuum"), &[Works(0)]);
    stage.begin();
    stage.until(5000).await;
    assert_eq!(stage.starts_of("compact"), [1200]);
    assert_eq!(stage.starts_of("vacuum"), [1300]);
    assert_eq!(stage.starts_of("trim"), [0; 0]);
    assert_eq!(stage.status("compact").last_run.unwrap().woken_by, Wake::After);
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_up_to_the_maximum_and_a_success_ends_that() {
    let mut stage = Stage::new().with("speed", &every(50), &[Fails, Fails, Fails, Fails, Works(0)]);
    stage.begin();
    stage.until(1).await;
    let status = stage.status("speed");
    assert_eq!((status.state, status.n_failures, status.n_failures_in_a_row), (State::BackingOff, 1, 1));
    assert_eq!(status.last_error.unwrap().error, "the disk is full");

    stage.until(20_000).await;
    let starts = stage.starts_of("speed");
    let waits: Vec<u64> = starts.windows(2).map(|w| w[1] - w[0]).collect();
    for (wait, (least, most)) in waits.iter().zip([(500, 1000), (1000, 2000), (2000, 4000), (2000, 4000), (100, 100)]) {
        assert!((least..=most + 1).contains(wait), "{waits:?}");
    }
    let status = stage.status("speed");
    assert_eq!((status.state, status.n_failures, status.n_failures_in_a_row), (State::Idle, 4, 0));
    assert!(status.last_error.is_some(), "what went wrong is still told");
}

#[tokio::test(start_paused = true)]
async fn while_a_task_backs_off_only_a_wish_starts_it() {
    let mut stage = Stage::new().with("speed", &on_append(), &[Fails, Works(0)]);
    stage.begin();
    stage.until(150).await;
    stage.moved.send_modify(|n| *n += 1);
    stage.until(200).await;
    assert_eq!(stage.starts_of("speed"), [0]);
    stage.handle.run_now("speed").unwrap();
    stage.until(10_000).await;
    assert_eq!(stage.starts_of("speed"), [0, 200], "the run that was asked for answered the signal, too");
}

#[tokio::test(start_paused = true)]
async fn asking_during_a_run_queues_exactly_one_more() {
    let mut stage = Stage::new().with("batch", &ScheduleConfig::default(), &[Works(1000)]);
    stage.handle.run_now("batch").unwrap();
    stage.begin();
    for ms in [100, 200, 300] {
        stage.until(ms).await;
        stage.handle.run_now("batch").unwrap();
    }
    stage.until(10_000).await;
    assert_eq!(stage.starts_of("batch"), [0, 1000]);
    let error = stage.handle.run_now("btch").unwrap_err();
    assert_eq!(error, RunNowError::UnknownTask { name: "btch".to_owned(), known: "batch".to_owned() });
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure_of_its_task_alone() {
    let mut stage =
        Stage::new().with("speed", &every(5000), &[Panics, Works(0)]).with("landing", &every(1000), &[Works(0)]);
    stage.begin();
    stage.until(4500).await;
    let status = stage.status("speed");
    assert_eq!(status.last_error.unwrap().error, "panicked: an offset went backwards");
    assert_eq!((status.n_runs, status.n_failures, status.state), (2, 1, State::Idle));
    assert_eq!(stage.starts_of("landing").len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_the_next_durable_position_and_starts_nothing_more() {
    let mut stage = Stage::new()
        .with("batch", &every(100), &[WorksUntilStopped])
        .with("landing", &every(100), &[Works(1000)])
        .with("vacuum", &every(100), &[Fails]);
    let driver = stage.begin();
    stage.until(300).await;
    stage.stop.cancel();
    driver.await.unwrap();
    assert_eq!(stage.started_at.elapsed().as_millis(), 1000, "landing came to the end of its run");
    assert_eq!(stage.starts_of("landing"), [0]);
    for name in ["batch", "landing", "vacuum"] {
        assert_eq!(stage.status(name).state, State::Stopped);
        assert_eq!(stage.status(name).n_runs, 1);
        assert_eq!(stage.handle.run_now(name), Err(RunNowError::Stopped { name }));
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_drops_what_does_not_stop() {
    let mut stage = Stage::new().with("batch", &every(100), &[NeverReturns]);
    let driver = stage.begin();
    stage.until(300).await;
    assert_eq!(stage.status("batch").state, State::Running);
    stage.stop.cancel();
    stage.until(60_000).await;
    assert!(!driver.is_finished());
    stage.abort.cancel();
    driver.await.unwrap();
    stage.until(60_001).await;
    assert_eq!(stage.status("batch").state, State::Stopped);
    assert_eq!(stage.status("batch").running_since_ms, None);
}

#[tokio::test(start_paused = true)]
async fn the_history_keeps_the_newest_runs_that_did_work_or_failed() {
    let steps = [Works(1), Works(2), FindsNothing, Fails, Works(4), FindsNothing];
    let mut stage = Stage::new().with("speed", &every(5000), &steps);
    stage.begin();
    stage.until(60_000).await;
    let status = stage.status("speed");
    let kept: Vec<(u64, bool)> =
        status.history.iter().map(|r| (r.duration_ms, matches!(r.outcome, Outcome::Error(_)))).collect();
    assert_eq!(kept, [(2, false), (0, true), (4, false)]);
    assert_eq!(status.totals["n_records"], 30);
    assert!(status.n_runs > 6);
    assert_eq!(status.last_run.unwrap().outcome, Outcome::Report(Report::default()));
    let shown = serde_json::to_value(stage.status("speed")).unwrap();
    assert_eq!(shown["history"][1]["error"], "the disk is full");
    assert_eq!(shown["history"][2]["report"]["figures"]["n_records"], 10);
    assert_eq!(shown["history"][2]["woken_by"], "retry");
    assert_eq!(shown["state"], "idle");
    assert_eq!(shown["next_run_ms"], 1_772_323_140_000_i64 + status_next(&stage));
}

fn status_next(stage: &Stage) -> i64 {
    *stage.starts_of("speed").last().unwrap() as i64 + 5000
}

#[tokio::test(start_paused = true)]
async fn settings_that_cannot_be_meant_are_refused_by_name() {
    let moved = watch::Sender::new(0);
    let mut driver = Driver::new(&CONFIG, moved.subscribe(), Arc::new(Metrics::new()));
    let task = || {
        let starts = Starts::default();
        Box::new(Scripted { name: "batch", steps: vec![FindsNothing], n_runs: 0, started_at: Instant::now(), starts })
    };
    let cron = ScheduleConfig { cron: Some("at midnight".to_owned()), ..ScheduleConfig::default() };
    for (schedule, words) in
        [(every(0), "tasks.batch.every_ms"), (cron, "tasks.batch.cron"), (after("batch"), "tasks.batch.after")]
    {
        let error = driver.add(task(), &schedule).unwrap_err();
        assert!(format!("{error:#}").contains(words), "{error:#}");
    }
    driver.add(task(), &every(1)).unwrap();
    assert!(driver.add(task(), &every(1)).unwrap_err().to_string().contains("batch"));
}
