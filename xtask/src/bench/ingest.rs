//! How many records per second become durable through the Kafka REST door, by number of
//! connections and records per request, as `corkboard emulate` drives it. The first rows are
//! requests that do nothing, over as many connections: what HTTP alone costs here.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Arguments, Figures, http, server};

/// A post is a record in each of three topics.
const RECORDS_PER_POST: u64 = 3;

struct Setting {
    n_connections: usize,
    n_records_per_request: usize,
    n_posts: u64,
}

impl Setting {
    const fn new(n_connections: usize, n_records_per_request: usize, n_posts: u64) -> Self {
        Self { n_connections, n_records_per_request, n_posts }
    }
}

/// Long enough that the emulator's start, which is part of the time, does not count.
const SETTINGS: [Setting; 5] = [
    Setting::new(1, 1, 3_000),
    Setting::new(16, 1, 30_000),
    Setting::new(64, 1, 60_000),
    Setting::new(16, 100, 300_000),
    Setting::new(64, 500, 500_000),
];

const BASELINE: &str = "GET /healthz";
const BASELINE_CONNECTIONS: [usize; 3] = [1, 16, 64];
const BASELINE_REQUESTS: f64 = 100_000.0;

pub(super) fn run(arguments: &Arguments) -> Result<Figures> {
    ensure!(arguments.scale > 0.0, "--scale is a positive number");
    let binary = server::binary(arguments.binary.as_deref())?;
    let server = server::Server::start(&binary)?;
    let mut rows = Vec::new();
    for n_connections in BASELINE_CONNECTIONS {
        let n_requests = (BASELINE_REQUESTS * arguments.scale).ceil() as usize;
        let load = http::get(&server.address, "/healthz", n_connections, n_requests)?;
        let figures = [load.requests_per_second, load.p50_ms, load.p99_ms].map(Value::from);
        rows.push([vec![json!(BASELINE), json!(n_connections), Value::Null, Value::Null], figures.into()].concat());
    }
    drop(server);
    for setting in &SETTINGS {
        // A server of its own for each: what one leaves behind does not slow the next.
        let server = server::Server::start(&binary)?;
        rows.push(emulate(&binary, &server.url(), setting, arguments.scale)?);
    }
    let columns = vec!["what", "connections", "batch", "records_per_second", "requests_per_second", "p50_ms", "p99_ms"];
    Ok(Figures { columns, rows })
}

fn emulate(binary: &Path, url: &str, setting: &Setting, scale: f64) -> Result<Vec<Value>> {
    let n_posts = (setting.n_posts as f64 * scale).ceil() as u64;
    let mut command = Command::new(binary);
    command.args(["emulate", "--url", url, "--user-id", "bench"]);
    command.args(["--count", &n_posts.to_string()]);
    command.args(["--connections", &setting.n_connections.to_string()]);
    command.args(["--batch", &setting.n_records_per_request.to_string()]);
    let begin = Instant::now();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {}", binary.display()))?;
    let seconds = begin.elapsed().as_secs_f64();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    ensure!(output.status.success(), "`corkboard emulate` failed: {}\n{}", output.status, said.concat());
    // Its own account: latencies, retries, errors.
    eprintln!("{}", said.iter().flat_map(|text| text.lines()).next_back().unwrap_or_default());
    let records_per_second = (n_posts * RECORDS_PER_POST) as f64 / seconds;
    Ok(vec![
        json!("emulate"),
        json!(setting.n_connections),
        json!(setting.n_records_per_request),
        json!(records_per_second),
        Value::Null,
        Value::Null,
        Value::Null,
    ])
}
