//! Eight times more clients than the server can serve, and clients that only want room: what is
//! refused is refused before it is accepted, what is accepted is there afterwards, and whoever can be
//! served is served about as well as before.

mod load;
mod nuisances;

use std::{
    fs,
    path::{Path, PathBuf},
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
    /// How often each claim is measured; calm and under pressure in turn, because a machine's speed may
    /// change meanwhile by more than what is measured.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// How long each load lasts; there are twelve in a round.
    #[arg(long, default_value_t = 3)]
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
/// Each connection has a buffer of at most this for what it receives.
const HEADER_BYTES: u64 = 16 << 10;
/// Connections beside the idle ones.
const N_OTHERS: usize = 1024;

/// Goodput under any of it, as a part of the peak.
const LEAST_GOODPUT: f64 = 0.8;
/// A request may wait for those that were admitted with it, and for its turn on two cores.
const MOST_P99_RATIO: f64 = 4.0;
const P99_ALLOWANCE_MS: f64 = 50.0;

pub(super) fn prove(arguments: &Arguments) -> Result<()> {
    let binary = server::binary(arguments.binary.as_deref())?;
    let mut trial = Trial::begin(&binary, arguments.idle + N_OTHERS, arguments)?;
    let large = Post::new(TOPIC, 100);
    let calm = Load { post: &large, n_connections: N_SERVED, beside: None };
    let pressed = Load { n_connections: N_SERVED * OVERLOAD, ..calm };
    let (peak, over) = trial.compare("8× of what there is room for", calm, pressed, MOST_P99_RATIO)?;
    ensure!(over.n_refused > 0, "nothing was refused: this was no overload");
    let small = Post::new(TOPIC, 1);
    // The pressed load was the last.
    let recovery = recovery(&trial.server.address, &small)?;
    trial.ledger.n_records += 1;
    ensure!(recovery < Duration::from_secs(1), "the first post after the overload took {recovery:?}");

    let calm = Load { post: &small, n_connections: N_SERVED * OVERLOAD, beside: None };
    let pressed = Load { n_connections: calm.n_connections * OVERLOAD, ..calm };
    // In a closed loop eight times the connections wait eight times as long.
    trial.compare("small posts over 8× the connections", calm, pressed, MOST_P99_RATIO * OVERLOAD as f64)?;
    let beside = |nuisance, n| Load { beside: Some((nuisance, n)), ..calm };
    for (nuisance, n) in [(Nuisance::SlowWriter, 500), (Nuisance::SlowReader, 100), (Nuisance::Idle, arguments.idle)] {
        trial.compare(&format!("beside {n} × {nuisance:?}"), calm, beside(nuisance, n), MOST_P99_RATIO)?;
    }
    let roomy = trial.end()?;

    let n_places = arguments.idle * 2 / 5;
    let mut trial = Trial::begin(&binary, n_places, arguments)?;
    let idle = beside(Nuisance::Idle, arguments.idle);
    let what = format!("beside {} × Idle for {n_places} places", arguments.idle);
    let (_, pushed) = trial.compare(&what, calm, idle, MOST_P99_RATIO)?;
    ensure!(pushed.beside.n_cut_off > 0, "nobody gave way: there was no crowd");
    let crowded = trial.end()?;
    println!(
        "overload: {} records stored = acknowledged{}, {} requests refused, goodput at 8× {:.0} % of the peak, p99 \
         {:.1} → {:.1} ms, recovered in {} ms, memory {} of {} MiB and {} of {}",
        roomy.n_stored + crowded.n_stored,
        if roomy.some_are_unknown || crowded.some_are_unknown { " and unknown" } else { "" },
        roomy.n_refused + crowded.n_refused,
        over.per_second() / peak.per_second() * 100.0,
        peak.p99_ms(),
        over.p99_ms(),
        recovery.as_millis(),
        roomy.most_bytes / MIB,
        roomy.allowed_bytes / MIB,
        crowded.most_bytes / MIB,
        crowded.allowed_bytes / MIB
    );
    Ok(())
}

/// Who posts what, and what holds on beside.
#[derive(Clone, Copy)]
struct Load<'a> {
    post: &'a Post,
    n_connections: usize,
    beside: Option<(Nuisance, usize)>,
}

/// One server, and what was done to it.
struct Trial {
    server: Server,
    /// What it may take in all.
    allowed_bytes: u64,
    n_rounds: u32,
    lasting: Duration,
    ledger: Ledger,
}

struct Outcome {
    n_stored: u64,
    some_are_unknown: bool,
    n_refused: u64,
    most_bytes: u64,
    allowed_bytes: u64,
}

impl Trial {
    fn begin(binary: &Path, n_places: usize, arguments: &Arguments) -> Result<Self> {
        let max_body = LARGE_BODY_BYTES.to_string();
        let max_connections = n_places.to_string();
        let limits = LIMITS.map(|(name, bytes)| (name, bytes.to_string()));
        let mut settings: Vec<(&str, &str)> = limits.iter().map(|(name, bytes)| (*name, bytes.as_str())).collect();
        settings.push(("CORKBOARD__INGEST__MAX_BODY_BYTES", &max_body));
        settings.push(("CORKBOARD__SERVER__MAX_CONNECTIONS", &max_connections));
        let server = Server::start(binary, &settings)?;
        let buffers = n_places as u64 * HEADER_BYTES;
        let limits = LIMITS.iter().map(|(_, bytes)| bytes).sum::<u64>();
        Ok(Self {
            allowed_bytes: memory_bytes(&server, "VmRSS:")? + buffers + limits,
            server,
            n_rounds: arguments.rounds,
            lasting: Duration::from_secs(arguments.seconds),
            ledger: Ledger::default(),
        })
    }

    /// What was measured of both.
    fn compare(&mut self, what: &str, calm: Load, pressed: Load, most_p99_ratio: f64) -> Result<(Tally, Tally)> {
        let (mut before, mut now) = (Tally::default(), Tally::default());
        for _ in 0..self.n_rounds {
            before.merge(self.measure(calm)?);
            now.merge(self.measure(pressed)?);
        }
        // The clients beside would be other machines; what they leave of this one is what counts.
        let left = now.beside.leave(thread::available_parallelism()?.get());
        let goodput = now.per_second() / before.per_second() / left;
        println!(
            "{what}: {:.0} → {:.0} requests/s ({:.0} %), p99 {:.1} → {:.1} ms, {} refused, {} without answer{}",
            before.per_second(),
            now.per_second(),
            goodput * 100.0,
            before.p99_ms(),
            now.p99_ms(),
            now.n_refused,
            now.n_unknown,
            match pressed.beside {
                Some(_) => format!(
                    ", {} cut off, whose thread left {:.0} % of the processors",
                    now.beside.n_cut_off,
                    left * 100.0
                ),
                None => String::new(),
            },
        );
        ensure!(goodput >= LEAST_GOODPUT, "{what}: goodput fell to {:.0} % of its peak", goodput * 100.0);
        let most_p99_ms = before.p99_ms() * most_p99_ratio + P99_ALLOWANCE_MS;
        ensure!(now.p99_ms() <= most_p99_ms, "{what}: p99 rose to {:.1} ms", now.p99_ms());
        Ok((before, now))
    }

    fn measure(&mut self, load: Load) -> Result<Tally> {
        let crowd = match load.beside {
            Some((nuisance, n)) => Some(Crowd::gather(nuisance, &self.server.address, n)?),
            None => None,
        };
        let mut tally = run(&self.server.address, load.post, load.n_connections, self.lasting)?;
        if let Some(crowd) = crowd {
            tally.beside = crowd.disperse()?;
        }
        self.ledger.add(load.post, &tally);
        Ok(tally)
    }

    /// Everything that was acknowledged is there, and the memory was bounded.
    fn end(self) -> Result<Outcome> {
        let n_stored = n_stored(&self.server.address)?;
        let Ledger { n_records, n_unknown_records, n_refused } = self.ledger;
        ensure!(
            (n_records..=n_records + n_unknown_records).contains(&n_stored),
            "{n_stored} records are in the log, {n_records} were acknowledged, and of {n_unknown_records} nobody knows"
        );
        let (most_bytes, allowed_bytes) = (memory_bytes(&self.server, "VmHWM:")?, self.allowed_bytes);
        ensure!(
            most_bytes <= allowed_bytes,
            "it took {} MiB, its settings add up to {}",
            most_bytes / MIB,
            allowed_bytes / MIB
        );
        Ok(Outcome { n_stored, some_are_unknown: n_unknown_records > 0, n_refused, most_bytes, allowed_bytes })
    }
}

/// What the log must hold in the end.
#[derive(Default)]
struct Ledger {
    n_records: u64,
    n_unknown_records: u64,
    n_refused: u64,
}

impl Ledger {
    fn add(&mut self, post: &Post, tally: &Tally) {
        self.n_records += tally.n_acknowledged * post.n_records;
        self.n_unknown_records += tally.n_unknown * post.n_records;
        self.n_refused += tally.n_refused;
    }
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
