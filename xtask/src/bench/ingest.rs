//! How many records per second become durable through the Kafka REST door, by number of
//! connections and records per request, as `corkboard emulate` drives it. The first rows are
//! requests that do nothing, over as many connections: what HTTP alone costs here. A post is a
//! record in each of three topics.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Arguments, figures::Figures, http};
use crate::server;

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
    let binary = server::binary(arguments.binary.as_deref())?;
    let server = server::Server::start(&binary, &[])?;
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
        let server = server::Server::start(&binary, &[])?;
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
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {}", binary.display()))?;
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    ensure!(output.status.success(), "`corkboard emulate` failed: {}\n{said}", output.status);
    let summary = said.lines().find_map(Summary::read).with_context(|| format!("no summary in:\n{said}"))?;
    ensure!(summary.is_clean, "records were given up, so that the figures mean nothing:\n{said}");
    Ok(vec![
        json!("emulate"),
        json!(setting.n_connections),
        json!(setting.n_records_per_request),
        json!(summary.records_per_second),
        json!(summary.records_per_second / setting.n_records_per_request as f64),
        json!(summary.p50_ms),
        json!(summary.p99_ms),
    ])
}

/// The emulator's own account of a run, one line for people:
/// `… 2,000 records/s, latency p50 500 µs p90 … p99 1.25 ms … errors none`.
#[derive(Debug, PartialEq)]
struct Summary {
    records_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    is_clean: bool,
}

impl Summary {
    fn read(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let (before, _) = line.split_once(" records/s")?;
        let latency_ms = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            let ms_per_unit = match *words.get(at + 2)? {
                "µs" => 1e-3,
                "ms" => 1.0,
                "s" => 1e3,
                _ => return None,
            };
            Some(words.get(at + 1)?.parse::<f64>().ok()? * ms_per_unit)
        };
        Some(Self {
            records_per_second: before.rsplit(' ').next()?.replace(',', "").parse().ok()?,
            p50_ms: latency_ms("p50")?,
            p99_ms: latency_ms("p99")?,
            is_clean: line.ends_with("errors none"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn the_emulators_account_is_read() {
        let line = |errors| {
            format!(
                "1,000 posts, 3,000 records in 1.50 s: 12,345 records/s, latency p50 500 µs p90 900 ms \
                 p99 1.25 s p99.9 999 ms max 1.00 s, retries 2, errors {errors}"
            )
        };
        let expected = Summary { records_per_second: 12345.0, p50_ms: 0.5, p99_ms: 1250.0, is_clean: true };
        assert_eq!(Summary::read(&line("none")), Some(expected));
        assert!(Summary::read(&line("1 × HTTP 422")).is_some_and(|summary| !summary.is_clean));
        assert_eq!(Summary::read("posting to http://127.0.0.1:1"), None);
    }
}
