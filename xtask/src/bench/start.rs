//! How long from starting the program until the first record is acknowledged, with a large log
//! of which nothing is in memory; and how much memory it takes when nobody asks for anything.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{
    Arguments,
    behind::wait_for_layers,
    figures::{Figures, GOAL, goal},
    files,
    http::Connection,
    load::{self, Pace},
    posts::{Posts, USER_ID, produce::Producer},
    scratch::Scratch,
    spread::median,
    usage,
};
use crate::server::{self, Server};

const LOG_BYTES: u64 = 5_000_000_000;
const REPEATS: usize = 5;
const RECORDS_PER_REQUEST: u64 = 500;
const CONNECTIONS: usize = 4;
const IDLE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) fn run(arguments: &Arguments) -> Result<Figures> {
    let binary = server::binary(arguments.binary.as_deref())?;
    let posts = Posts::from_emulator(&binary)?;
    let scratch = Scratch::new("start")?;
    let mut next_post = fill(&binary, &scratch, &posts, arguments.scaled(LOG_BYTES))?;
    let n_bytes = files::n_bytes_below(&scratch.join("log"))?;

    let (mut starts, mut warm, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.repeats(REPEATS) {
        for (is_cold, took) in [(true, &mut starts), (false, &mut warm)] {
            if is_cold {
                files::forget(&scratch)?;
            }
            let begin = Instant::now();
            let mut server = Server::start_in(&scratch, &binary, &[])?;
            let producer = Producer {
                posts: &posts,
                address: &server.address,
                user_id: USER_ID,
                first: next_post,
                n_per_request: 1,
            };
            let mut request = Vec::new();
            producer.write(0, &mut request);
            let mut connection = Connection::open(&server.address)?;
            let (status, body) = connection.exchange(&request)?;
            ensure!(status == 200, "the first record is answered with {status}: {}", String::from_utf8_lossy(body));
            took.push(begin.elapsed().as_secs_f64() * 1e3);
            next_post += 1;
            if !is_cold {
                thread::sleep(IDLE);
                idle.push(usage::memory_mib(server.id())?.now);
            }
            // The next start finds nothing to catch up with.
            wait_for_layers(&binary, &scratch)?;
            server.stop()?;
        }
    }

    let mut figures = Figures::new(&["what", "log_gb", "n_runs", "median", "max", "unit", GOAL]);
    let log_gb = n_bytes as f64 / 1e9;
    for (what, taken, unit, goal_of) in [
        ("start to first acknowledgement, cold", &starts, "ms", Some(("≤ 200 ms", 200.0))),
        ("the same, warm", &warm, "ms", None),
        ("idle memory after 5 s", &idle, "MiB", Some(("≤ 64 MiB", 64.0))),
    ] {
        let (middle, most) = (median(taken), taken.iter().copied().fold(0.0, f64::max));
        let met = goal_of.map_or(Value::Null, |(name, limit)| goal(name, middle <= limit));
        figures.push([json!(what), json!(log_gb), json!(taken.len()), json!(middle), json!(most), json!(unit), met]);
    }
    Ok(figures)
}

/// Posts until the log has so many bytes and everybody has taken them; the next post's number.
fn fill(binary: &Path, folder: &Path, posts: &Posts, n_bytes: u64) -> Result<u64> {
    let mut server = Server::start_in(folder, binary, &[])?;
    let address = server.address.as_str();
    let producer = Producer { posts, address, user_id: USER_ID, first: 0, n_per_request: RECORDS_PER_REQUEST };
    let pace = Pace { n_connections: CONNECTIONS, requests_per_second: None };
    let next = |number, request: &mut Vec<u8>| Some(producer.write(number, request));
    let log = folder.join("log");
    let ((), load) = load::beside(address, pace, next, || {
        while files::n_bytes_below(&log)? < n_bytes {
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    })?;
    ensure!(load.n_refused == 0, "{} of {} requests were refused", load.n_refused, load.n_requests);
    wait_for_layers(binary, folder)?;
    server.stop()?;
    Ok(load.n_requests * RECORDS_PER_REQUEST)
}
