//! How long after its acknowledgement a record counts in the merged view, while others come in
//! and with a history behind it. A prober posts one record of a category of its own and asks for
//! the view until that category has one more post.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use serde_json::json;

use super::{
    Arguments,
    figures::{Figures, GOAL, goal, goals},
    history,
    http::Connection,
    load::{self, Pace},
    posts::{Posts, USER_ID, produce::Producer},
    scratch::Scratch,
    spread::quantile_ms,
    usage,
};
use crate::server::{self, Server};

const POSTS: u64 = 1_000_000;
const RECORDS_PER_SECOND: f64 = 20_000.0;
const RECORDS_PER_REQUEST: u64 = 100;
const CONNECTIONS: usize = 4;
const PROBES: u64 = 500;
const SECONDS: u64 = 120;
/// A record that does not count by then is lost.
const PATIENCE: Duration = Duration::from_secs(60);
const VIEW: &str = "/api/views/posts_per_category";
const CATEGORY: &str = "a probe";

pub(super) fn run(arguments: &Arguments) -> Result<Figures> {
    let binary = server::binary(arguments.binary.as_deref())?;
    let n_posts = arguments.posts(POSTS);
    let rate = arguments.rate.unwrap_or(RECORDS_PER_SECOND);
    let time = Duration::from_secs(arguments.seconds(SECONDS));
    let posts = Posts::from_emulator(&binary)?;
    let scratch = Scratch::new("freshness")?;
    history::prepare(&scratch, &binary, &posts, n_posts)?;

    let server = Server::start_in(&scratch, &binary, &[])?;
    let address = server.address.as_str();
    let producer =
        Producer { posts: &posts, address, user_id: USER_ID, first: n_posts + 1, n_per_request: RECORDS_PER_REQUEST };
    let requests_per_second = Some(rate / RECORDS_PER_REQUEST as f64);
    let pace = Pace { n_connections: CONNECTIONS, requests_per_second };
    let next = |number, request: &mut Vec<u8>| Some(producer.write(number, request));
    let (mut latencies, load) = load::beside(address, pace, next, || probe(&producer, time))?;

    let [p50_ms, p99_ms, max_ms] = [0.5, 0.99, 1.0].map(|q| quantile_ms(&mut latencies, q));
    let rate_held = load.records_per_second();
    let peak_mib = usage::memory_mib(server.id())?.peak;
    let met = goals([
        goal("p99 ≤ 250 ms", p99_ms <= 250.0),
        goal("rate held", rate_held >= 0.95 * rate),
        goal("no refusals", load.n_refused == 0),
    ]);
    let mut figures =
        Figures::new(&["posts", "records_per_second", "n_probes", "p50_ms", "p99_ms", "max_ms", "peak_mib", GOAL]);
    figures.push([
        json!(n_posts),
        json!(rate_held),
        json!(latencies.len()),
        json!(p50_ms),
        json!(p99_ms),
        json!(max_ms),
        json!(peak_mib),
        met,
    ]);
    Ok(figures)
}

/// From each probe's acknowledgement to the answer that counts it.
fn probe(producer: &Producer, time: Duration) -> Result<Vec<Duration>> {
    let mut connection = Connection::open(producer.address)?;
    let begin = Instant::now();
    let mut latencies = Vec::new();
    for n_sent in 1..=PROBES {
        if begin.elapsed() > time {
            break;
        }
        // Numbers that no post of the load will get.
        let pin =
            json!({ "index": u64::MAX / 4 + n_sent, "unique_id": format!("probe-{n_sent}"), "category": CATEGORY });
        let body = json!({ "records": [{ "value": pin }] }).to_string();
        let (status, answer) = connection.exchange(&producer.request_of(0, body.as_bytes()))?;
        ensure!(status == 200, "a probe is answered with {status}: {}", String::from_utf8_lossy(answer));
        let acknowledged = Instant::now();
        while count(&mut connection, n_sent)?.is_continue() {
            ensure!(acknowledged.elapsed() < PATIENCE, "probe {n_sent} does not count after {PATIENCE:?}");
        }
        latencies.push(acknowledged.elapsed());
    }
    Ok(latencies)
}

/// Whether so many probes count; more never do.
fn count(connection: &mut Connection, n_sent: u64) -> Result<ControlFlow<()>> {
    let answer = connection.get(VIEW)?;
    let rows = answer["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    let n_counted = rows.iter().find(|row| row["category"] == CATEGORY).and_then(|row| row["number_posts"].as_u64());
    match n_counted.unwrap_or(0) {
        n if n == n_sent => Ok(ControlFlow::Break(())),
        n if n > n_sent => bail!("{n} probes count where {n_sent} were sent"),
        _ => Ok(ControlFlow::Continue(())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::http::tests::answering;

    #[test]
    fn probes_count_as_the_view_says() {
        let answers = [
            r#"{"rows":[{"category":"art","number_posts":9}]}"#,
            r#"{"rows":[{"category":"a probe","number_posts":2}]}"#,
        ];
        let (address, _server) = answering([answers[0], answers[1], answers[1]].map(str::to_owned).to_vec());
        let mut connection = Connection::open(&address).expect("it listens");
        assert!(count(&mut connection, 2).expect("it answers").is_continue());
        assert!(count(&mut connection, 2).expect("it answers").is_break());
        assert!(count(&mut connection, 1).is_err());
    }
}
