//! Requests from many connections at once, one thread each: as fast as they are answered, or at
//! a rate that does not wait for the server. Latencies then count from when a request was due, so
//! that a server that falls behind cannot hide it.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{http::Connection, spread::quantile_ms, usage};

/// How a load is driven.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) n_connections: usize,
    /// None: as fast as requests are answered.
    pub(super) requests_per_second: Option<f64>,
}

/// What came of many requests.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) n_requests: u64,
    pub(super) n_records: u64,
    /// Answers other than 2xx.
    pub(super) n_refused: u64,
    pub(super) seconds: f64,
    pub(super) latencies: Vec<Duration>,
}

impl Outcome {
    pub(super) fn records_per_second(&self) -> f64 {
        self.n_records as f64 / self.seconds
    }

    pub(super) fn requests_per_second(&self) -> f64 {
        self.n_requests as f64 / self.seconds
    }

    pub(super) fn p50_and_p99_ms(&mut self) -> [f64; 2] {
        [0.5, 0.99].map(|q| quantile_ms(&mut self.latencies, q))
    }

    fn add(&mut self, other: Self) {
        self.n_requests += other.n_requests;
        self.n_records += other.n_records;
        self.n_refused += other.n_refused;
        self.latencies.extend(other.latencies);
    }
}

/// Sends what `next` writes until it has nothing more or `stop` is set. `next` is given the
/// number of the request and the bytes of this connection's last one, and returns how many
/// records it holds. A broken connection is an error; the other connections then stop, too.
pub(super) fn drive(
    address: &str,
    pace: Pace,
    stop: &AtomicBool,
    next: impl Fn(u64, &mut Vec<u8>) -> Option<u64> + Sync,
) -> Result<Outcome> {
    let begin = Instant::now();
    let n_begun = AtomicU64::new(0);
    let connection = || {
        let outcome = drive_one(address, pace, stop, begin, &n_begun, &next);
        if outcome.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        outcome
    };
    let mut all = Outcome::default();
    thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..pace.n_connections).map(|_| scope.spawn(connection)).collect();
        for thread in threads {
            match thread.join() {
                Ok(outcome) => all.add(outcome?),
                Err(_) => bail!("a connection's thread panicked"),
            }
        }
        Ok(())
    })?;
    all.seconds = begin.elapsed().as_secs_f64();
    Ok(all)
}

/// The same for as long as something else is done; both must succeed.
pub(super) fn beside<T>(
    address: &str,
    pace: Pace,
    next: impl Fn(u64, &mut Vec<u8>) -> Option<u64> + Sync + Send,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Outcome)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| drive(address, pace, &stop, next));
        let done = work();
        stop.store(true, Ordering::Relaxed);
        let Ok(outcome) = load.join() else { bail!("the load's thread panicked") };
        // Where the load failed, work that depends on it fails in its wake.
        let outcome = outcome?;
        Ok((done?, outcome))
    })
}

/// What came of a load, and how many cores each side kept busy.
pub(super) struct Loaded {
    pub(super) outcome: Outcome,
    pub(super) server_cores: f64,
    pub(super) client_cores: f64,
}

/// Sends whole requests, of which each says how many records it has, over and over for so long.
/// `server` is the process that listens there.
pub(super) fn over_and_over(
    (address, server): (&str, u32),
    n_connections: usize,
    time: Duration,
    requests: &[(Vec<u8>, u64)],
) -> Result<Loaded> {
    let pace = Pace { n_connections, requests_per_second: None };
    let next = |number: u64, request: &mut Vec<u8>| {
        let (bytes, n_records) = &requests[(number % requests.len() as u64) as usize];
        request.clone_from(bytes);
        Some(*n_records)
    };
    let (begin, mine) = (Instant::now(), usage::cpu_seconds(std::process::id())?);
    let (theirs, outcome) = beside(address, pace, next, || {
        let before = usage::cpu_seconds(server)?;
        thread::sleep(time);
        Ok(usage::cpu_seconds(server)? - before)
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    let client_cores = (usage::cpu_seconds(std::process::id())? - mine) / seconds;
    Ok(Loaded { outcome, server_cores: theirs / time.as_secs_f64(), client_cores })
}

fn drive_one(
    address: &str,
    pace: Pace,
    stop: &AtomicBool,
    begin: Instant,
    n_begun: &AtomicU64,
    next: impl Fn(u64, &mut Vec<u8>) -> Option<u64>,
) -> Result<Outcome> {
    let mut connection = Connection::open(address)?;
    let mut outcome = Outcome::default();
    let mut request = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let number = n_begun.fetch_add(1, Ordering::Relaxed);
        let Some(n_records) = next(number, &mut request) else { break };
        let due = match pace.requests_per_second {
            Some(rate) => begin + Duration::from_secs_f64(number as f64 / rate),
            None => Instant::now(),
        };
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let (status, _) = connection.exchange(&request)?;
        outcome.latencies.push(due.elapsed());
        outcome.n_requests += 1;
        if (200..300).contains(&status) {
            outcome.n_records += n_records;
        } else {
            outcome.n_refused += 1;
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::http::tests::answering;

    #[test]
    fn requests_are_sent_until_there_are_no_more() {
        let (address, server) = answering(vec![String::new(); 5]);
        let pace = Pace { n_connections: 1, requests_per_second: Some(200.0) };
        let mut outcome = drive(&address, pace, &AtomicBool::new(false), |number, request| {
            *request = format!("GET /{number} HTTP/1.1\r\n\r\n").into();
            (number < 5).then_some(3)
        })
        .expect("the server answers");
        assert_eq!(server.join().expect("it ends with its answers")[4], "GET /4 HTTP/1.1");
        assert_eq!((outcome.n_requests, outcome.n_records, outcome.n_refused), (5, 15, 0));
        assert!(outcome.seconds >= 0.02, "the fifth was due after 20 ms, all took {} s", outcome.seconds);
        let [p50_ms, p99_ms] = outcome.p50_and_p99_ms();
        assert!(p50_ms > 0.0 && p50_ms <= p99_ms);
    }

    #[test]
    fn a_load_ends_with_what_is_done_beside_it() {
        let (address, server) = answering(vec![String::new(); 3]);
        let pace = Pace { n_connections: 1, requests_per_second: Some(0.001) };
        let (n, outcome) = beside(
            &address,
            pace,
            |number, request| {
                *request = b"GET / HTTP/1.1\r\n\r\n".to_vec();
                (number < 1).then_some(1)
            },
            || Ok(7),
        )
        .expect("the server answers");
        drop(server);
        assert!(n == 7 && outcome.n_requests <= 1);
    }

    #[test]
    fn a_connection_that_breaks_is_an_error() {
        let (address, _server) = answering(vec![String::new(); 2]);
        let pace = Pace { n_connections: 1, requests_per_second: None };
        let endless = |_, request: &mut Vec<u8>| {
            *request = b"GET / HTTP/1.1\r\n\r\n".to_vec();
            Some(1)
        };
        let stop = AtomicBool::new(false);
        assert!(drive(&address, pace, &stop, endless).is_err());
        assert!(stop.load(Ordering::Relaxed));
    }
}
