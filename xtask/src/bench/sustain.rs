//! Everything at once for a long time: posts at a rate, landing, the speed layer, a batch run
//! every minute, a view asked for every second, and the load on the same machine. Whether each
//! layer keeps up shows in how far it is behind the end of the log, in the first and in the second
//! half of the time.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    Arguments, batch,
    behind::Behind,
    figures::{Figures, GOAL, goal},
    http::Connection,
    load::{self, Outcome, Pace},
    posts::{Posts, USER_ID, produce::Producer},
    scratch::Scratch,
    spread::quantile_ms,
    usage,
};
use crate::server::{self, Server};

const SECONDS: u64 = 600;
/// A little more than the goal, of which one record in a hundred may fail to come in time.
const RECORDS_PER_SECOND: f64 = 101_000.0;
const GOAL_RECORDS_PER_SECOND: f64 = 100_000.0;
const RECORDS_PER_REQUEST: u64 = 500;
const CONNECTIONS: usize = 8;
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How far the layers are is asked after so many views.
const VIEWS_PER_LOOK: usize = 5;
const MAX_MIB: f64 = 1024.0;
/// A layer that is behind by at most so many times what it was before has kept up.
const MOST_GROWTH: f64 = 1.25;
/// Layers that are behind by less than what comes in within this time have kept up anyhow.
const SECONDS_BEHIND: f64 = 10.0;

const SETTINGS: [(&str, &str); 2] = [
    ("CORKBOARD__TASKS__BATCH__CRON", "* * * * *"),
    // The disk need not hold all of it twice: what every layer has taken may go.
    ("CORKBOARD__LOG__RETENTION_BYTES", "1073741824"),
];

pub(super) fn run(arguments: &Arguments) -> Result<Figures> {
    let binary = server::binary(arguments.binary.as_deref())?;
    let posts = Posts::from_emulator(&binary)?;
    let rate = arguments.rate.unwrap_or(RECORDS_PER_SECOND);
    let time = Duration::from_secs(arguments.seconds(SECONDS));
    let scratch = Scratch::new("sustain")?;
    let server = Server::start_in(&scratch, &binary, &SETTINGS)?;
    let address = server.address.as_str();
    let producer = Producer { posts: &posts, address, user_id: USER_ID, first: 0, n_per_request: RECORDS_PER_REQUEST };
    let requests_per_second = (rate > 0.0).then_some(rate / RECORDS_PER_REQUEST as f64);
    let pace = Pace { n_connections: CONNECTIONS, requests_per_second };
    let next = |number, request: &mut Vec<u8>| Some(producer.write(number, request));
    let mine = usage::cpu_seconds(std::process::id())?;
    let (mut watched, mut load) = load::beside(address, pace, next, || watch(&binary, &server, time))?;
    let client_cores = (usage::cpu_seconds(std::process::id())? - mine) / load.seconds;
    let server_cores = usage::cpu_seconds(server.id())? / load.seconds;
    Ok(figures(&mut watched, &mut load, [server_cores, client_cores]))
}

#[derive(Default)]
struct Watched {
    behind: Vec<Behind>,
    view_latencies: Vec<Duration>,
    peak_mib: f64,
    /// Runs of tasks that failed.
    n_failures: u64,
    n_batch_runs: u64,
}

/// Asks for one view a second, all in turn, and looks now and then how far the layers are.
fn watch(binary: &Path, server: &Server, time: Duration) -> Result<Watched> {
    let begin = Instant::now();
    let mut connection = Connection::open(&server.address)?;
    let views = batch::views()?;
    let mut watched = Watched::default();
    for (n, view) in views.iter().cycle().enumerate() {
        let asked = Instant::now();
        connection.get(&format!("/api/views/{view}"))?;
        watched.view_latencies.push(asked.elapsed());
        if n % VIEWS_PER_LOOK == VIEWS_PER_LOOK - 1 {
            watched.behind.push(Behind::look(binary, &server.folder)?);
        }
        if begin.elapsed() >= time {
            break;
        }
        thread::sleep((asked + ASK_EVERY).saturating_duration_since(Instant::now()));
    }
    watched.peak_mib = usage::memory_mib(server.id())?.peak;
    let tasks = connection.get("/api/tasks")?;
    for task in tasks["tasks"].as_array().into_iter().flatten() {
        watched.n_failures += task["n_failures"].as_u64().unwrap_or(0);
        if task["name"] == "batch" {
            watched.n_batch_runs = task["n_runs"].as_u64().unwrap_or(0);
        }
    }
    Ok(watched)
}

fn figures(watched: &mut Watched, load: &mut Outcome, cores: [f64; 2]) -> Figures {
    let rate = load.records_per_second();
    let [p50_ms, p99_ms] = load.p50_and_p99_ms();
    let view_p99_ms = quantile_ms(&mut watched.view_latencies, 0.99);
    let mut figures = Figures::new(&["what", "figure", "unit", GOAL]);
    for (what, figure, unit, met) in [
        ("time", load.seconds, "s", Value::Null),
        ("records, every one durable", rate, "/s", goal("≥ 100,000/s", rate >= GOAL_RECORDS_PER_SECOND)),
        ("a day of it", rate * 86_400.0 / 1e9, "billion", Value::Null),
        ("refused", load.n_refused as f64, "requests", goal("0", load.n_refused == 0)),
        ("failed runs of tasks", watched.n_failures as f64, "runs", goal("0", watched.n_failures == 0)),
        ("acknowledgement, p50", p50_ms, "ms", Value::Null),
        ("acknowledgement, p99", p99_ms, "ms", Value::Null),
        ("merged views, p99", view_p99_ms, "ms", Value::Null),
        ("batch runs", watched.n_batch_runs as f64, "runs", Value::Null),
        ("peak memory", watched.peak_mib, "MiB", goal("≤ 1,024 MiB", watched.peak_mib <= MAX_MIB)),
        ("server", cores[0], "cores", Value::Null),
        ("load", cores[1], "cores", Value::Null),
    ] {
        figures.push([json!(what), json!(figure), json!(unit), met]);
    }
    let of_layers = |behind: &Behind| [("landing", behind.landing), ("speed", behind.speed), ("batch", behind.batch)];
    let looks: Vec<_> = watched.behind.iter().map(of_layers).collect();
    for (nth, (layer, _)) in of_layers(&Behind::default()).into_iter().enumerate() {
        let behind: Vec<u64> = looks.iter().map(|layers| layers[nth].1).collect();
        let (before, after) = most_of_halves(&behind);
        let is_bounded = after as f64 <= (before as f64 * MOST_GROWTH).max(rate * SECONDS_BEHIND);
        figures.push([
            json!(format!("{layer} behind, at most, first half")),
            json!(before),
            json!("records"),
            Value::Null,
        ]);
        let met = goal("bounded", is_bounded && !behind.is_empty());
        figures.push([json!(format!("{layer} behind, at most, second half")), json!(after), json!("records"), met]);
    }
    figures
}

fn most_of_halves(behind: &[u64]) -> (u64, u64) {
    let (first, second) = behind.split_at(behind.len() / 2);
    let most = |half: &[u64]| half.iter().copied().max().unwrap_or(0);
    (most(first), most(second))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounded(batch: &[u64]) -> Vec<(String, bool)> {
        let behind = batch.iter().map(|batch| Behind { batch: *batch, ..Behind::default() }).collect();
        let mut watched = Watched { behind, ..Watched::default() };
        let mut load = Outcome { n_records: 1_000, seconds: 10.0, ..Outcome::default() };
        let figures = figures(&mut watched, &mut load, [0.0, 0.0]).to_json("sustain");
        let rows = figures["rows"].as_array().expect("it has rows").iter();
        let halves = rows.filter(|row| row["what"].as_str().is_some_and(|what| what.ends_with("second half")));
        halves.map(|row| (row["what"].to_string(), row["goal"][0]["met"] == true)).collect()
    }

    #[test]
    fn a_layer_that_falls_back_further_and_further_is_found() {
        for (batch, expected) in [
            (&[5_000, 0, 4_000, 100, 6_000, 0][..], true),
            (&[5_000, 10_000, 15_000, 20_000], false),
            (&[0, 0, 0, 900], true),
            (&[], false),
        ] {
            let found = bounded(batch);
            assert_eq!(found.len(), 3);
            assert_eq!(found[2], ("\"batch behind, at most, second half\"".to_owned(), expected), "{batch:?}");
        }
    }
}
