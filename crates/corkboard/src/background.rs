//! Tasks that may wait: they run on threads of their own, which yield to those that take records in
//! and answer questions.

use std::sync::Arc;

use anyhow::{Context, Result};
use async_trait::async_trait;
use model::{Report, Stop, Task};
use tokio::{runtime::Runtime, sync::Mutex, task::JoinSet};

/// A sixth of the weight of other threads. With two fifths, answers wait for tens of seconds while a batch
/// run works on what a busy minute brought.
const NICE: i32 = 8;

/// The threads. They end with the last task that has them.
pub struct Background(Option<Runtime>);

impl Background {
    pub fn new() -> Result<Arc<Self>> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.thread_name("background").enable_all().on_thread_start(|| {
            // Without it they compete as equals, which is no reason not to work.
            if let Err(e) = rustix::process::setpriority_process(None, NICE) {
                tracing::debug!("background threads keep their priority: {e}");
            }
        });
        Ok(Arc::new(Self(Some(builder.build().context("cannot start threads")?))))
    }

    /// The same task, on these threads.
    pub fn task(self: &Arc<Self>, task: impl Task + 'static) -> Box<dyn Task> {
        let name = task.name();
        Box::new(Later { name, task: Arc::new(Mutex::new(Box::new(task))), background: self.clone() })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

struct Later {
    name: &'static str,
    task: Arc<Mutex<Box<dyn Task>>>,
    background: Arc<Background>,
}

#[async_trait]
impl Task for Later {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn run(&mut self, stop: &Stop) -> Result<Report> {
        let runtime = self.background.0.as_ref().context("the threads are there until they are dropped")?;
        let (task, stop) = (self.task.clone(), stop.clone());
        // Given up with the wait for it.
        let mut running = JoinSet::new();
        running.spawn_on(async move { task.lock().await.run(&stop).await }, runtime.handle());
        match running.join_next().await.context("one task runs")? {
            Ok(report) => report,
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nice(u64);

    #[async_trait]
    impl Task for Nice {
        fn name(&self) -> &'static str {
            "nice"
        }

        async fn run(&mut self, _: &Stop) -> Result<Report> {
            let spawned = tokio::task::spawn_blocking(|| rustix::process::getpriority_process(None));
            let own = rustix::process::getpriority_process(None)?;
            self.0 += 1;
            assert!(self.0 < 3, "the third run");
            let mut report = Report::default();
            report.add("nice", own.min(spawned.await??) as u64);
            report.add("runs", self.0);
            Ok(report)
        }
    }

    #[tokio::test]
    async fn a_task_runs_on_threads_that_yield_and_keeps_its_state() {
        let mut task = Background::new().expect("threads").task(Nice(0));
        assert_eq!(task.name(), "nice");
        for n_runs in 1..3 {
            let report = task.run(&Stop::new()).await.expect("a report");
            assert_eq!((report.get("nice"), report.get("runs")), (NICE as u64, n_runs));
        }
        assert_eq!(rustix::process::getpriority_process(None).expect("a priority"), 0);
    }

    #[tokio::test]
    #[should_panic(expected = "the third run")]
    async fn a_task_that_panics_does_so_where_it_is_waited_for() {
        let mut task = Background::new().expect("threads").task(Nice(2));
        drop(task.run(&Stop::new()).await);
    }
}
