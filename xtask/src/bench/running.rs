//! What a running server is asked over its API: answers, how its tasks stand, how far its log goes.

use std::{
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    batch::{self, Answers},
    http::Connection,
};

/// How long a task may take.
const PATIENCE: Duration = Duration::from_secs(1800);
const POLL: Duration = Duration::from_millis(50);

/// One view's answer with its boundary.
pub(super) fn answer(connection: &mut Connection, view: &str, scope: &str) -> Result<Value> {
    let answer = connection.get(&format!("/api/views/{view}?scope={scope}"))?;
    ensure!(answer["complete"] == true, "{view} does not reach to the end of the log");
    Ok(answer)
}

pub(super) fn answers(connection: &mut Connection, scope: &str) -> Result<Answers> {
    let rows = |view: String| Ok((view.clone(), answer(connection, &view, scope)?["rows"].take()));
    batch::views()?.into_iter().map(rows).collect()
}

/// A task's status, as `/api/tasks` shows it.
pub(super) fn task(connection: &mut Connection, name: &str) -> Result<Value> {
    let mut tasks = connection.get("/api/tasks")?;
    let tasks = tasks["tasks"].as_array_mut().context("there is no list of tasks")?;
    let task = tasks.iter_mut().find(|task| task["name"] == name);
    task.map(Value::take).with_context(|| format!("there is no task {name}"))
}

/// Waits until all that is acknowledged has landed, and a batch run has taken it.
pub(super) fn batch_all(connection: &mut Connection) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    let now_ms = i64::try_from(now.as_millis())?;
    wait_for(connection, "landing", |landing| {
        let run = &landing["last_run"];
        run["started_ms"].as_i64() > Some(now_ms) && run["report"]["figures"]["lag_records"] == 0
    })?;
    let n_runs = task(connection, "batch")?["n_runs"].as_u64();
    connection.post("/api/tasks/batch/run")?;
    let batch =
        wait_for(connection, "batch", |batch| batch["n_runs"].as_u64() > n_runs && batch["state"] != "running")?;
    ensure!(batch["last_run"]["error"].is_null(), "the batch run failed: {}", batch["last_run"]["error"]);
    Ok(())
}

fn wait_for(connection: &mut Connection, name: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
    let begin = Instant::now();
    loop {
        let status = task(connection, name)?;
        if is_so(&status) {
            return Ok(status);
        }
        ensure!(begin.elapsed() < PATIENCE, "the task {name} does not get there: {status}");
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::http::tests::answering;

    #[test]
    fn an_answer_that_ends_too_early_is_none() {
        let (address, _server) = answering(vec![
            r#"{"rows":[{"n":1}],"complete":true}"#.to_owned(),
            r#"{"rows":[{"n":1}],"complete":false}"#.to_owned(),
        ]);
        let mut connection = Connection::open(&address).expect("it listens");
        assert_eq!(answer(&mut connection, "v", "merged").expect("it is complete")["rows"][0]["n"], 1);
        assert!(answer(&mut connection, "v", "merged").is_err());
    }

    #[test]
    fn a_batch_run_is_waited_for_once_all_has_landed() {
        let tasks = |landing: &str, batch: &str| {
            format!(r#"{{"tasks":[{{"name":"landing",{landing}}},{{"name":"batch",{batch}}}]}}"#)
        };
        let landed = |started_ms: i64, lag| {
            format!(r#""last_run":{{"started_ms":{started_ms},"report":{{"figures":{{"lag_records":{lag}}}}}}}"#)
        };
        let batch = |n_runs, state| format!(r#""n_runs":{n_runs},"state":"{state}","last_run":{{"report":{{}}}}"#);
        let (address, server) = answering(vec![
            tasks(&landed(5, 0), &batch(1, "idle")),
            tasks(&landed(i64::MAX, 7), &batch(1, "idle")),
            tasks(&landed(i64::MAX, 0), &batch(1, "idle")),
            tasks(&landed(i64::MAX, 0), &batch(1, "idle")),
            "{}".to_owned(),
            tasks(&landed(i64::MAX, 0), &batch(1, "running")),
            tasks(&landed(i64::MAX, 0), &batch(2, "idle")),
        ]);
        batch_all(&mut Connection::open(&address).expect("it listens")).expect("it gets there");
        assert_eq!(server.join().expect("all was asked")[4], "POST /api/tasks/batch/run HTTP/1.1");
    }
}
