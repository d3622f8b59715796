//! Eight times more clients than the server can serve, and clients that only want room: what is
//! refused is refused before it is accepted, what is accepted is there afterwards, and whoever can be
//! served is served about as well as before.

mod load;
mod nuisances;

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::server::{self, Server};
use load::{Connection, Post, Tally, run};
use nuisances::{Crowd, Nuisance};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Run this binary instead of building one.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// How long each load lasts; there are thirteen.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Idle connections; as many files must be allowed to this process and to the server.
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
}

const TOPIC: &str = "overload";
/// There is room for so many large bodies at once.
const N_SERVED: usize = 8;
const OVERLOAD: usize = 8;
const MIB: u64 = 1 << 20;
const LARGE_BODY_BYTES: u64 = 64 << 10;

/// What bounds the server's memory beside its idle size, in bytes.
const LIMITS: [(&str, u64); 8] = [
    ("CORKBOARD__INGEST__MAX_INFLIGHT_BYTES", N_SERVED as u64 * LARGE_BODY_BYTES),
    ("CORKBOARD__LOG__MAX_QUEUE_BYTES", 8 * MIB),
    ("CORKBOARD__LANDING__MAX_OBJECT_BYTES", 8 * MIB),
    ("CORKBOARD__SPEED__MAX_BYTES", 8 * MIB),
    ("CORKBOARD__SERVING__MAX_TAIL_BYTES", 8 * MIB),
    ("CORKBOARD__SERVING__MEMORY_BYTES", 32 * MIB),
    ("CORKBOARD__BATCH__MEMORY_BYTES", 32 * MIB),
    ("CORKBOARD__SERVER__MAX_HEADER_BYTES", HEADER_BYTES),
];
const MAX_CONNECTIONS: u64 = 4096;
/// Each connection has a buffer of at most this for what it receives.
const HEADER_BYTES: u64 = 16 << 10;

/// Goodput under any of it, as a part of the peak.
const LEAST_GOODPUT: f64 = 0.8;
/// A request may wait for those that were admitted with it, and for its turn on two cores.
const MOST_P99_RATIO: f64 = 4.0;
const P99_ALLOWANCE_MS: f64 = 50.0;

pub(super) fn prove(arguments: &Arguments) -> Result<()> {
    let lasting = Duration::from_secs(arguments.seconds);
    let max_body = LARGE_BODY_BYTES.to_string();
    let max_connections = MAX_CONNECTIONS.to_string();
    let limits = LIMITS.map(|(name, bytes)| (name, bytes.to_string()));
    let mut settings: Vec<(&str, &str)> = limits.iter().map(|(name, bytes)| (*name, bytes.as_str())).collect();
    settings.push(("CORKBOARD__INGEST__MAX_BODY_BYTES", &max_body));
    settings.push(("CORKBOARD__SERVER__MAX_CONNECTIONS", &max_connections));
    let server = Server::start(&server::binary(arguments.binary.as_deref())?, &settings)?;
    let idle_bytes = memory_bytes(&server, "VmRSS:")?;
    let mut ledger = Ledger::default();

    let large = Post::new(TOPIC, 100);
    let small = Post::new(TOPIC, 1);
    let peak = ledger.add(&large, run(&server.address, &large, N_SERVED, lasting)?);
    let over = ledger.add(&large, run(&server.address, &large, N_SERVED * OVERLOAD, lasting)?);
    ensure!(over.n_refused > 0, "nothing was refused: this was no overload");
    compare("8× of what there is room for", &[&peak], &over, MOST_P99_RATIO)?;
    let recovery = recovery(&server.address, &small)?;
    ledger.n_records += 1;
    ensure!(recovery < Duration::from_secs(1), "the first post after the overload took {recovery:?}");

    // Each beside measurements of its own, because other work may share the machine.
    let many = N_SERVED * OVERLOAD;
    let before = ledger.add(&small, run(&server.address, &small, many, lasting)?);
    let queued = ledger.add(&small, run(&server.address, &small, many * OVERLOAD, lasting)?);
    // In a closed loop eight times the connections wait eight times as long.
    compare("small posts over 8× the connections", &[&before], &queued, MOST_P99_RATIO * OVERLOAD as f64)?;
    for (nuisance, n) in [(Nuisance::SlowWriter, 500), (Nuisance::SlowReader, 100), (Nuisance::Idle, arguments.idle)] {
        let before = ledger.add(&small, run(&server.address, &small, many, lasting)?);
        let crowd = Crowd::gather(nuisance, &server.address, n)?;
        let beside = ledger.add(&small, run(&server.address, &small, many, lasting)?);
        let n_cut_off = crowd.disperse();
        let after = ledger.add(&small, run(&server.address, &small, many, lasting)?);
        let what = format!("beside {n} × {nuisance:?}, cut off {n_cut_off} times");
        compare(&what, &[&before, &after], &beside, MOST_P99_RATIO)?;
    }

    let n_stored = n_stored(&server.address)?;
    let n_most = ledger.n_records + ledger.n_unknown_records;
    ensure!(
        (ledger.n_records..=n_most).contains(&n_stored),
        "{n_stored} records are in the log, {} were acknowledged, and of {} nobody knows",
        ledger.n_records,
        ledger.n_unknown_records
    );
    let most_bytes = memory_bytes(&server, "VmHWM:")?;
    let buffers = MAX_CONNECTIONS * HEADER_BYTES;
    let allowed = idle_bytes + buffers + LIMITS.iter().map(|(_, bytes)| bytes).sum::<u64>();
    ensure!(most_bytes <= allowed, "it took {} MiB, its settings add up to {}", most_bytes / MIB, allowed / MIB);
    println!(
        "overload: {n_stored} records stored = acknowledged{}, {} requests refused, goodput at 8× {:.0} % of the \
         peak, p99 {:.1} → {:.1} ms, recovered in {} ms, memory {} of {} MiB",
        if ledger.n_unknown_records > 0 { " and unknown" } else { "" },
        ledger.n_refused,
        over.per_second() / peak.per_second() * 100.0,
        peak.p99_ms(),
        over.p99_ms(),
        recovery.as_millis(),
        most_bytes / MIB,
        allowed / MIB
    );
    Ok(())
}

/// What the log must hold in the end.
#[derive(Default)]
struct Ledger {
    n_records: u64,
    n_unknown_records: u64,
    n_refused: u64,
}

impl Ledger {
    fn add(&mut self, post: &Post, tally: Tally) -> Tally {
        self.n_records += tally.n_acknowledged * post.n_records;
        self.n_unknown_records += tally.n_unknown * post.n_records;
        self.n_refused += tally.n_refused;
        tally
    }
}

/// `calm` is what it is compared with: one measurement, or the middle of two.
fn compare(what: &str, calm: &[&Tally], now: &Tally, most_p99_ratio: f64) -> Result<()> {
    let middle = |of: fn(&Tally) -> f64| calm.iter().map(|tally| of(tally)).sum::<f64>() / calm.len() as f64;
    let (peak, p99_ms) = (middle(Tally::per_second), middle(Tally::p99_ms));
    let (goodput, most_p99_ms) = (now.per_second() / peak, p99_ms * most_p99_ratio + P99_ALLOWANCE_MS);
    println!(
        "{what}: {:.0} → {:.0} requests/s ({:.0} %), p99 {:.1} → {:.1} ms, {} refused, {} without answer",
        peak,
        now.per_second(),
        goodput * 100.0,
        p99_ms,
        now.p99_ms(),
        now.n_refused,
        now.n_unknown
    );
    ensure!(goodput >= LEAST_GOODPUT, "{what}: goodput fell to {:.0} % of its peak", goodput * 100.0);
    ensure!(now.p99_ms() <= most_p99_ms, "{what}: p99 rose to {:.1} ms", now.p99_ms());
    Ok(())
}

/// How long a new client waits until it is served.
fn recovery(address: &str, post: &Post) -> Result<Duration> {
    let begin = Instant::now();
    loop {
        if Connection::open(address)?.ask(&post.bytes)?.status == 200 {
            return Ok(begin.elapsed());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn n_stored(address: &str) -> Result<u64> {
    let answer = Connection::open(address)?.ask(b"GET /api/log HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let log: Value = serde_json::from_slice(&answer.body).context("read /api/log")?;
    let partitions = log["partitions"].as_array().context("/api/log shows partitions")?;
    let of_topic = partitions.iter().filter(|p| p["topic"] == TOPIC);
    of_topic.map(|p| p["end"].as_u64().context("a partition has an end")).sum()
}

fn memory_bytes(server: &Server, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).context("read the server's memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("the kernel says how much")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}
