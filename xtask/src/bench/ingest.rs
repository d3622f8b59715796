//! How many records per second become durable through the Kafka REST door, by records per request
//! and connections, of a server that does nothing else (`sustain` has everything on). Beside each
//! setting, in the same run: a route of the same listener that only reads the body (the example
//! `noop` of `server`), sent the same requests; and the log alone with appends of the same size.
//! How busy both sides were shows who held whom up.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    Arguments,
    append_rate::AppendRate,
    figures::{Figures, GOAL, goal, goals},
    http,
    load::{self, Loaded},
    posts::{Posts, STREAMS, USER_ID, produce::Producer},
    scratch::Scratch,
};
use crate::{process, server, server::Server, workspace};

const RECORDS_PER_REQUEST: [u64; 4] = [1, 10, 100, 1000];
const CONNECTIONS: [usize; 3] = [1, 8, 64];
const SECONDS: u64 = 5;
/// So many posts' requests are made before the clock starts, and sent over and over.
const POSTS_IN_TURN: u64 = 2000;

pub(super) fn run(arguments: &Arguments) -> Result<Figures> {
    let binary = server::binary(arguments.binary.as_deref())?;
    let noop = build_noop()?;
    let append_rate = AppendRate::build()?;
    let time = Duration::from_secs(arguments.seconds(SECONDS));
    let posts = Posts::from_emulator(&binary)?;
    let mut figures = Figures::new(&[
        "batch",
        "connections",
        "records_per_second",
        "requests_per_second",
        "p50_ms",
        "p99_ms",
        "server_cores",
        "client_cores",
        "noop_requests_per_second",
        "of_noop",
        "log_records_per_second",
        "of_log",
        GOAL,
    ]);
    for n_per_request in RECORDS_PER_REQUEST {
        for n_connections in CONNECTIONS {
            let setting = Setting { n_per_request, n_connections, time };
            // A server of its own for each: what one leaves behind does not slow the next.
            let server = Server::start_doors(&binary)?;
            let mut door = setting.load(&server, &posts, None)?;
            drop(server);
            let scratch = Scratch::new("noop")?;
            let server = Server::spawn(Command::new(&noop), &scratch)?;
            let noop = setting.load(&server, &posts, Some("/noop"))?;
            drop(server);
            let log_rate = setting.append(&append_rate, &posts)?;
            figures.push(setting.row(&mut door, &noop, log_rate));
        }
    }
    Ok(figures)
}

pub(super) fn build_noop() -> Result<PathBuf> {
    process::run(workspace::cargo().args(["build", "--release", "-p", "server", "--example", "noop"]))?;
    Ok(workspace::target_folder()?.join("release/examples/noop"))
}

struct Setting {
    n_per_request: u64,
    n_connections: usize,
    time: Duration,
}

impl Setting {
    fn load(&self, server: &Server, posts: &Posts, path: Option<&str>) -> Result<Loaded> {
        let address = server.address.as_str();
        let producer = Producer { posts, address, user_id: USER_ID, first: 0, n_per_request: self.n_per_request };
        let requests = requests(&producer, path);
        load::over_and_over((address, server.id()), self.n_connections, self.time, &requests)
    }

    /// Records per second of the log alone, with as many appenders as there are connections.
    fn append(&self, append_rate: &AppendRate, posts: &Posts) -> Result<f64> {
        let scratch = Scratch::new("append")?;
        let settings = [
            format!("appenders={}", self.n_connections),
            format!("partitions={}", STREAMS.len()),
            format!("records={}", self.n_per_request),
            format!("bytes={}", record_bytes(posts)),
            format!("seconds={}", self.time.as_secs().max(1)),
        ];
        Ok(append_rate.run(&scratch, &settings)?.figure("records_per_second"))
    }

    fn row(&self, door: &mut Loaded, noop: &Loaded, log_rate: f64) -> Vec<Value> {
        let [p50_ms, p99_ms] = door.outcome.p50_and_p99_ms();
        let (records, requests) = (door.outcome.records_per_second(), door.outcome.requests_per_second());
        let noop_requests = noop.outcome.requests_per_second();
        let (of_noop, of_log) = (requests / noop_requests, records / log_rate);
        let mut met = vec![goal("no refusals", door.outcome.n_refused == 0)];
        if self.n_connections == 64 && self.n_per_request == 1 {
            met.push(goal("≥ 30,000 requests/s", requests >= 30_000.0));
            met.push(goal("≥ 0.30 of no-op", of_noop >= 0.3));
        }
        if self.n_connections == 64 && self.n_per_request == 100 {
            met.push(goal("≥ 300,000 records/s", records >= 300_000.0));
            met.push(goal("≥ 0.60 of the log", of_log >= 0.6));
        }
        let figures = [records, requests, p50_ms, p99_ms, door.server_cores, door.client_cores];
        let beside = [noop_requests, of_noop, log_rate, of_log];
        let mut row = vec![json!(self.n_per_request), json!(self.n_connections)];
        row.extend(figures.into_iter().chain(beside).map(Value::from));
        row.push(goals(met));
        row
    }
}

/// Whole requests and how many records each has; with a path, to there instead of to the topics.
fn requests(producer: &Producer, path: Option<&str>) -> Vec<(Vec<u8>, u64)> {
    let n_requests = (POSTS_IN_TURN / producer.n_per_request).max(1) * STREAMS.len() as u64;
    let request = |number| {
        let mut request = Vec::new();
        let n_records = producer.write(number, &mut request);
        let request = match path {
            Some(path) => http::with_path(&request, path),
            None => request,
        };
        (request, n_records)
    };
    (0..n_requests).map(request).collect()
}

/// Of the usual record.
fn record_bytes(posts: &Posts) -> usize {
    let mut lines = Vec::new();
    for stream in 0..STREAMS.len() {
        for n in 0..POSTS_IN_TURN {
            posts.write(stream, n, &mut lines);
        }
    }
    lines.len() / (POSTS_IN_TURN as usize * STREAMS.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::posts::tests::posts;

    #[test]
    fn the_same_bodies_go_to_both_routes() {
        let posts = posts();
        let producer = Producer { posts: &posts, address: "h:1", user_id: USER_ID, first: 0, n_per_request: 100 };
        let (door, noop) = (requests(&producer, None), requests(&producer, Some("/noop")));
        assert_eq!(door.len(), 60);
        for ((door, n_records), (noop, n_same)) in door.iter().zip(&noop) {
            assert_eq!(n_records, n_same);
            let [door, noop] = [door, noop].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            let (first, rest) = noop.split_once("\r\n").expect("it has a head");
            assert_eq!(first, "POST /noop HTTP/1.1");
            assert_eq!(door.split_once("\r\n").map(|(_, rest)| rest), Some(rest));
        }
    }
}
