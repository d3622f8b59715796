//! How long the merged answer to each question takes while posts come in, with a history behind
//! it; and, once they have stopped, whether the merged answers are those of a batch run over all.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    Arguments, batch,
    figures::{Figures, GOAL, goal, goals},
    history,
    http::Connection,
    load::{self, Pace},
    posts::{Posts, USER_ID, produce::Producer},
    running,
    scratch::Scratch,
    spread::quantile_ms,
    usage,
};
use crate::server::{self, Server};

const POSTS: u64 = 1_000_000;
/// Posts come in at this rate meanwhile.
const RECORDS_PER_SECOND: f64 = 10_000.0;
const RECORDS_PER_REQUEST: u64 = 100;
const CONNECTIONS: usize = 4;
/// Each view is asked so many times, unless time runs out before.
const ROUNDS: usize = 100;
const LEAST_ROUNDS: usize = 3;
const SECONDS: u64 = 300;

pub(super) fn run(arguments: &Arguments) -> Result<Figures> {
    let binary = server::binary(arguments.binary.as_deref())?;
    let n_posts = arguments.posts(POSTS);
    let rate = arguments.rate.unwrap_or(RECORDS_PER_SECOND);
    let time = Duration::from_secs(arguments.seconds(SECONDS));
    let posts = Posts::from_emulator(&binary)?;
    let scratch = Scratch::new("views")?;
    history::prepare(&scratch, &binary, &posts, n_posts)?;

    let server = Server::start_in(&scratch, &binary, &[])?;
    let address = server.address.as_str();
    let mut connection = Connection::open(address)?;
    let producer =
        Producer { posts: &posts, address, user_id: USER_ID, first: n_posts + 1, n_per_request: RECORDS_PER_REQUEST };
    let requests_per_second = Some(rate / RECORDS_PER_REQUEST as f64);
    let pace = Pace { n_connections: CONNECTIONS, requests_per_second };
    let next = |number, request: &mut Vec<u8>| Some(producer.write(number, request));
    let (mut views, mut load) = load::beside(address, pace, next, || ask_in_turn(&mut connection, time))?;
    let peak_mib = usage::memory_mib(server.id())?.peak;

    let merged = running::answers(&mut connection, "merged")?;
    running::batch_all(&mut connection)?;
    let batch = running::answers(&mut connection, "batch")?;
    batch::ensure_equal(&merged, &batch).context("the merged answers are not those of a batch run")?;

    let mut figures = Figures::new(&["what", "posts", "n", "p50_ms", "p99_ms", "per_second", "peak_mib", GOAL]);
    let mut push = |view: &str, latencies: &mut [Duration]| {
        let [p50_ms, p99_ms] = [0.5, 0.99].map(|q| quantile_ms(latencies, q));
        let met = goal("p99 ≤ 100 ms", p99_ms <= 100.0);
        let head = [json!(view), json!(n_posts), json!(latencies.len()), json!(p50_ms), json!(p99_ms)];
        figures.push([head.as_slice(), &[Value::Null, Value::Null, met]].concat());
    };
    let mut all = Vec::new();
    for (view, latencies) in &mut views {
        push(view, latencies);
        all.append(latencies);
    }
    push("all", &mut all);
    let rate_held = load.records_per_second();
    let [p50_ms, p99_ms] = load.p50_and_p99_ms();
    let met = goals([
        // Otherwise this would not have been reached.
        goal("merged equals batch", true),
        goal("rate held", rate_held >= 0.95 * rate),
        goal("no refusals", load.n_refused == 0),
    ]);
    let head = [json!("records posted meanwhile"), json!(n_posts), json!(load.n_records), json!(p50_ms), json!(p99_ms)];
    figures.push([head.as_slice(), &[json!(rate_held), json!(peak_mib), met]].concat());
    Ok(figures)
}

/// Asks all views round after round, and returns how long each answer took, by view.
fn ask_in_turn(connection: &mut Connection, time: Duration) -> Result<Vec<(String, Vec<Duration>)>> {
    let begin = Instant::now();
    let mut views: Vec<_> = batch::views()?.into_iter().map(|view| (view, Vec::new())).collect();
    for round in 0..ROUNDS {
        if round >= LEAST_ROUNDS && begin.elapsed() > time {
            break;
        }
        for (view, latencies) in &mut views {
            let sent = Instant::now();
            running::answer(connection, view, "merged")?;
            latencies.push(sent.elapsed());
        }
    }
    Ok(views)
}
