//! The driver: one worker per task, which waits until something wakes it, runs the task,
//! writes down what came of it, and wakes the tasks that come after.
//!
//! A task never overlaps itself, because its worker owns it. Wake-ups are counters in watch
//! channels: any number of them that come before a run begins are answered by that run, and
//! one that comes during a run by exactly one more.

use std::{
    any::Any,
    future::pending,
    hash::{BuildHasher, RandomState},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use anyhow::ensure;
use futures::FutureExt;
use model::{
    Report, Stop, Task, Timestamp,
    config::{DriverConfig, ScheduleConfig},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    history::{Outcome, State, TaskStatus, Wake},
    schedule::Schedule,
};
use crate::metrics::Metrics;

/// The wall clock may be set while a worker sleeps, so it is read at least this often.
const MAX_SLEEP: Duration = Duration::from_secs(30);
/// Of an error's text, and of a report's notices, the status keeps so much.
const MAX_ERROR_CHARS: usize = 4000;
const MAX_NOTICES: usize = 100;

type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
type Slots = Arc<RwLock<Vec<Arc<Slot>>>>;

/// Runs tasks until it is told to stop.
pub struct Driver {
    config: DriverConfig,
    log_moved: watch::Receiver<u64>,
    metrics: Arc<Metrics>,
    clock: Clock,
    slots: Slots,
    added: Vec<(Box<dyn Task>, Schedule)>,
}

/// Asks a driver what its tasks are doing, and to run one now.
#[derive(Clone, Default)]
pub struct Handle {
    slots: Slots,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunNowError {
    #[error("there is no task {name:?}; there are: {known}")]
    UnknownTask { name: String, known: String },
    #[error("the task {name} is stopped, because this process is ending")]
    Stopped { name: &'static str },
}

/// What a task's worker, its handle and the tasks before it share.
struct Slot {
    name: &'static str,
    status: Mutex<TaskStatus>,
    asked: watch::Sender<u64>,
    preceded: watch::Sender<u64>,
}

impl Driver {
    pub fn new(config: &DriverConfig, log_moved: watch::Receiver<u64>, metrics: Arc<Metrics>) -> Self {
        Self {
            config: config.clone(),
            log_moved,
            metrics,
            clock: Arc::new(Timestamp::now),
            slots: Slots::default(),
            added: Vec::new(),
        }
    }

    /// Reads the time for cron patterns and the history from `clock` in place of the system.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Adds a task; its first run is due when [`Driver::run`] begins, if it has a period or
    /// follows the log. Errors name the setting.
    pub fn add(&mut self, task: Box<dyn Task>, schedule: &ScheduleConfig) -> anyhow::Result<()> {
        let name = task.name();
        let parsed = Schedule::parse(name, schedule, (self.clock)())?;
        let mut slots = write(&self.slots);
        ensure!(!slots.iter().any(|s| s.name == name), "there are two tasks named {name}");
        let status = TaskStatus::new(name, schedule.clone(), self.config.history_runs);
        let (asked, preceded) = (watch::Sender::default(), watch::Sender::default());
        slots.push(Arc::new(Slot { name, status: Mutex::new(status), asked, preceded }));
        drop(slots);
        self.added.push((task, parsed));
        Ok(())
    }

    pub fn handle(&self) -> Handle {
        Handle { slots: self.slots.clone() }
    }

    /// Runs the tasks until `stop` is cancelled; then lets those under way come to their next
    /// durable position and returns. `abort` drops them where they are.
    pub async fn run(self, stop: Stop, abort: Stop) {
        let mut workers = JoinSet::new();
        for worker in self.into_workers() {
            workers.spawn(worker.work(stop.clone()));
        }
        let all_ended = async { while workers.join_next().await.is_some() {} };
        tokio::select! {
            () = all_ended => {}
            () = abort.cancelled() => {}
        }
        // What is left is dropped with the set.
    }

    fn into_workers(self) -> Vec<Worker> {
        let slots = read(&self.slots);
        let workers = self.added.into_iter().zip(slots.iter()).map(|((task, schedule), slot)| {
            let config = slot.status().schedule.clone();
            for before in config.after.iter().filter(|name| !slots.iter().any(|s| s.name == *name)) {
                tracing::info!(task = slot.name, after = before, "a task waits for one that does not run here");
            }
            let follows = |s: &&Arc<Slot>| s.status().schedule.after.iter().any(|name| name == slot.name);
            Worker {
                config: self.config.clone(),
                metrics: self.metrics.clone(),
                clock: self.clock.clone(),
                followers: slots.iter().filter(follows).cloned().collect(),
                wakes: Wakes::of(slot, config.on_append.then(|| self.log_moved.clone())),
                slot: slot.clone(),
                schedule,
                cron_after: (self.clock)(),
                last_start: None,
                retry_at: None,
                task,
            }
        });
        workers.collect()
    }
}

impl Handle {
    /// The state of every task, in the order in which they were added.
    pub fn statuses(&self) -> Vec<TaskStatus> {
        read(&self.slots).iter().map(|slot| slot.status().clone()).collect()
    }

    /// Asks for one run, soon. While the task runs, one more is queued, however often it is
    /// asked for; a task that waits after a failure does not wait longer.
    pub fn run_now(&self, name: &str) -> Result<(), RunNowError> {
        let slots = read(&self.slots);
        let Some(slot) = slots.iter().find(|s| s.name == name) else {
            let known = slots.iter().map(|s| s.name).collect::<Vec<_>>().join(", ");
            return Err(RunNowError::UnknownTask { name: name.to_owned(), known });
        };
        if slot.status().state == State::Stopped {
            return Err(RunNowError::Stopped { name: slot.name });
        }
        slot.asked.send_modify(|n| *n += 1);
        Ok(())
    }
}

impl Slot {
    fn status(&self) -> MutexGuard<'_, TaskStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// However a worker ends, also when it is dropped, its status says so.
struct ShownAsStopped(Arc<Slot>);

impl Drop for ShownAsStopped {
    fn drop(&mut self) {
        self.0.status().stops();
    }
}

/// Owns one task and runs it, one run after the other.
struct Worker {
    config: DriverConfig,
    metrics: Arc<Metrics>,
    clock: Clock,
    slot: Arc<Slot>,
    followers: Vec<Arc<Slot>>,
    wakes: Wakes,
    schedule: Schedule,
    task: Box<dyn Task>,
    /// Cron times after this have not been answered by a run.
    cron_after: Timestamp,
    last_start: Option<Instant>,
    /// Set after a failure.
    retry_at: Option<Instant>,
}

impl Worker {
    async fn work(mut self, stop: Stop) {
        let _ended = ShownAsStopped(self.slot.clone());
        while let Some(woken_by) = self.next_wake(&stop).await {
            self.run_once(woken_by, &stop).await;
        }
    }

    /// Waits until the task should run; None once `stop` is cancelled.
    async fn next_wake(&mut self, stop: &Stop) -> Option<Wake> {
        let min_pause = Duration::from_millis(self.config.min_pause_ms);
        let not_before = self.last_start.map_or_else(Instant::now, |t| t + min_pause);
        loop {
            let now = (self.clock)();
            let (due_in, woken_by) = self.due_in(now);
            self.slot.status().waits(due_in.map(|d| Timestamp(now.0 + d.as_millis() as i64)));
            let woken_by = if due_in == Some(Duration::ZERO) {
                woken_by
            } else {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return None,
                    woken_by = self.wakes.next(self.retry_at.is_some()) => woken_by,
                    // Looks again: by the wall clock it may still be early.
                    () = sleep_until_due(due_in) => continue,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                () = sleep_until(not_before) => return Some(woken_by),
            }
        }
    }

    fn due_in(&self, now: Timestamp) -> (Option<Duration>, Wake) {
        match self.retry_at {
            Some(at) => (Some(at.saturating_duration_since(Instant::now())), Wake::Retry),
            None => {
                let since_last_start = self.last_start.map(|t| t.elapsed());
                (self.schedule.due_in(since_last_start, self.cron_after, now), Wake::Schedule)
            }
        }
    }

    async fn run_once(&mut self, woken_by: Wake, stop: &Stop) {
        self.wakes.answered();
        self.cron_after = (self.clock)();
        self.slot.status().begins(self.cron_after);
        let started = Instant::now();
        self.last_start = Some(started);

        // A task keeps nothing between runs that a panic could leave half done: it starts
        // from the stores.
        let result = AssertUnwindSafe(self.task.run(stop)).catch_unwind().await;
        let result = result.unwrap_or_else(|panic| Err(anyhow::anyhow!("panicked: {}", text_of(&*panic))));

        let took = started.elapsed();
        self.metrics.task_ran(self.slot.name, result.as_ref().ok(), took);
        let outcome = match result {
            Ok(report) => self.succeeded(report),
            Err(error) => self.failed(&error),
        };
        self.slot.status().ends(woken_by, (self.clock)(), took, outcome);
    }

    fn succeeded(&mut self, mut report: Report) -> Outcome {
        self.retry_at = None;
        report.notices.truncate(MAX_NOTICES);
        // Told once, not with every run that finds things as they were.
        let told = self.slot.status().notices().to_vec();
        for notice in report.notices.iter().filter(|n| !told.contains(n)) {
            tracing::warn!(task = self.slot.name, "{notice}");
        }
        if report.did_work {
            for follower in &self.followers {
                follower.preceded.send_modify(|n| *n += 1);
            }
        }
        Outcome::Report(report)
    }

    fn failed(&mut self, error: &anyhow::Error) -> Outcome {
        let n_failures = self.slot.status().n_failures_in_a_row + 1;
        let wait = backoff(&self.config, n_failures, RandomState::new().hash_one(n_failures));
        self.retry_at = Some(Instant::now() + wait);
        let text: String = format!("{error:#}").chars().take(MAX_ERROR_CHARS).collect();
        tracing::error!(
            task = self.slot.name,
            n_failures_in_a_row = n_failures,
            retry_in_ms = wait.as_millis() as u64,
            "a task failed and will be tried again: {text}"
        );
        Outcome::Error(text)
    }
}

/// The signals that start a task beside its schedule.
struct Wakes {
    asked: watch::Receiver<u64>,
    preceded: watch::Receiver<u64>,
    /// None for a task that does not follow the log.
    moved: Option<watch::Receiver<u64>>,
}

impl Wakes {
    fn of(slot: &Slot, mut moved: Option<watch::Receiver<u64>>) -> Self {
        // What was appended, or asked for, before the worker began is waiting, too.
        if let Some(moved) = &mut moved {
            moved.mark_changed();
        }
        let mut asked = slot.asked.subscribe();
        if *asked.borrow() > 0 {
            asked.mark_changed();
        }
        Self { asked, preceded: slot.preceded.subscribe(), moved }
    }

    /// After a failure only a person's wish shortens the wait.
    async fn next(&mut self, is_backing_off: bool) -> Wake {
        let Self { asked, preceded, moved } = self;
        tokio::select! {
            biased;
            () = changed(asked) => Wake::Asked,
            () = changed(preceded), if !is_backing_off => Wake::After,
            () = async { match moved { Some(m) => changed(m).await, None => pending().await } }, if !is_backing_off => Wake::Append,
        }
    }

    /// Whatever woke the task until now is answered by the run that begins.
    fn answered(&mut self) {
        for signal in [&mut self.asked, &mut self.preceded].into_iter().chain(&mut self.moved) {
            signal.mark_unchanged();
        }
    }
}

/// Never comes once the sender is gone.
async fn changed(signal: &mut watch::Receiver<u64>) {
    if signal.changed().await.is_err() {
        pending().await
    }
}

async fn sleep_until_due(due_in: Option<Duration>) {
    match due_in {
        Some(due_in) => sleep(due_in.min(MAX_SLEEP)).await,
        None => pending().await,
    }
}

/// Doubled with each further failure up to the maximum; of that, between a half and all, so
/// that tasks which failed together do not come back together.
fn backoff(config: &DriverConfig, n_failures: u64, random: u64) -> Duration {
    let doublings = u32::try_from(n_failures.saturating_sub(1)).unwrap_or(u32::MAX).min(62);
    let full_ms = config.backoff_min_ms.saturating_mul(1 << doublings).min(config.backoff_max_ms);
    Duration::from_millis(full_ms / 2 + random % (full_ms - full_ms / 2 + 1))
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}

fn read(slots: &Slots) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Slot>>> {
    slots.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(slots: &Slots) -> std::sync::RwLockWriteGuard<'_, Vec<Arc<Slot>>> {
    slots.write().unwrap_or_else(PoisonError::into_inner)
}
