//! The release binary on a small disk of its own that is filled by posts, again and again: what
//! does not fit is refused with 503 and a time to come back, what is stored can be read, and as
//! soon as there is room posts are taken again. Nothing that was acknowledged is lost.
//!
//! The disk is an ext4 on a loop device, since only a disk of its own can be full for nobody else.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

mod disk;
mod request;

use disk::Disk;
use request::{Answer, ask, post};

use super::{Product, inspect};
use crate::{server, workspace};

const TOPIC: &str = "fill";
/// What one post brings.
const RECORD_BYTES: usize = 100_000;
/// What is deleted to make room, once a cycle.
const BALLAST_BYTES: u64 = 6 << 20;
/// What the log and the tables of an empty pipeline take, and a first filling.
const BASE_BYTES: u64 = 32 << 20;
/// By when posts are taken once there is room.
const RECOVERY: Duration = Duration::from_secs(5);
/// What must be readable on a full disk.
const READS: [&str; 5] =
    ["/healthz", "/metrics", "/api/log", "/api/tasks", "/api/views/country_of_user_with_most_followers?scope=merged"];
/// Small segments, so that several are begun on a disk that is nearly full.
const SETTINGS: [(&str, &str); 1] = [("CORKBOARD__LOG__SEGMENT_BYTES", "4194304")];

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    product: Product,
    /// How often the disk is filled.
    #[arg(long, default_value_t = 10)]
    count: u64,
}

pub(super) fn prove(arguments: &Arguments) -> Result<()> {
    let binary = server::binary(arguments.product.binary.as_deref())?;
    let folder = workspace::target_folder()?.join(format!("disk-full-{}", std::process::id()));
    let disk = Disk::make(&folder, BASE_BYTES + arguments.count * BALLAST_BYTES)?;
    let ballast = (0..arguments.count).map(|n| lay_ballast(&disk, n)).collect::<Result<Vec<_>>>()?;
    let mut server = server::Server::start_in(&disk.mount_point.join("data"), &binary, &SETTINGS)?;

    let mut ledger = Ledger::default();
    let mut slowest_recovery = Duration::ZERO;
    for file in ballast {
        ledger.fill(&server.address)?;
        for path in READS {
            let answer = ask(&server.address, path)?;
            ensure!(answer.status == 200, "GET {path} on a full disk: {answer:?}");
        }
        ledger.check(&binary, &server.folder)?;
        fs::remove_file(&file).with_context(|| format!("delete {}", file.display()))?;
        slowest_recovery = slowest_recovery.max(ledger.wait_until_taken(&server.address)?);
    }
    server.stop()?;
    ledger.check(&binary, &server.folder)?;
    println!(
        "disk-full: filled {} times; {} posts stored, each there, {} refused with 503 and Retry-After; taken again {:.0} \
         ms after there was room, at most",
        arguments.count,
        ledger.stored.len(),
        ledger.n_refused,
        slowest_recovery.as_secs_f64() * 1e3
    );
    Ok(())
}

fn lay_ballast(disk: &Disk, n: u64) -> Result<PathBuf> {
    let file = disk.mount_point.join(format!("ballast-{n}"));
    fs::write(&file, vec![b'x'; BALLAST_BYTES as usize]).with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}

/// What became of the posts.
#[derive(Default)]
struct Ledger {
    n_posts: u64,
    n_refused: u64,
    /// The post at each offset.
    stored: BTreeMap<u64, u64>,
    /// Posts that may be stored or not.
    unknown: Vec<u64>,
}

impl Ledger {
    /// Posts until that is refused.
    fn fill(&mut self, address: &str) -> Result<()> {
        let n_before = self.stored.len();
        while self.post(address)? {}
        ensure!(self.stored.len() > n_before, "there was room, and not one post was taken");
        // Whoever tries again is refused properly as well, or is lucky: a task gave something back.
        for _ in 0..10 {
            self.post(address)?;
        }
        Ok(())
    }

    fn wait_until_taken(&mut self, address: &str) -> Result<Duration> {
        let begin = Instant::now();
        while !self.post(address)? {
            ensure!(begin.elapsed() < RECOVERY, "there is room, and posts are still refused");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(begin.elapsed())
    }

    /// Whether it was taken; anything but that and a proper refusal is an error.
    fn post(&mut self, address: &str) -> Result<bool> {
        let n = self.n_posts;
        self.n_posts += 1;
        let answer = post(address, &format!("/topics/{TOPIC}"), &body(n))?;
        match answer.status {
            200 => {
                let offset = stored_at(&answer)?;
                let before = self.stored.insert(offset, n);
                ensure!(before.is_none(), "offset {offset} was given out twice");
                Ok(true)
            }
            503 => {
                ensure!(answer.retry_after.is_some(), "a refusal says when to come back: {answer:?}");
                self.n_refused += 1;
                if answer.body.contains("not known") {
                    self.unknown.push(n);
                }
                Ok(false)
            }
            _ => bail!("post {n} on a disk that fills: {answer:?}"),
        }
    }

    /// Every record that is there was posted, and every post that was stored is there.
    fn check(&self, binary: &Path, data: &Path) -> Result<()> {
        let mut stored = self.stored.clone();
        for record in inspect::records(binary, data, &format!("{TOPIC}-0"))? {
            let offset = record["offset"].as_u64().context("a record without an offset")?;
            let value = record["value"].as_str().context("a record without a value")?;
            let n = number_in(value)?;
            ensure!(value == value_of(n), "what stands at offset {offset} is not what was posted");
            match stored.remove(&offset) {
                Some(posted) => ensure!(posted == n, "post {n} stands at offset {offset}, where {posted} was stored"),
                None => ensure!(self.unknown.contains(&n), "post {n} was refused and is at offset {offset}"),
            }
        }
        ensure!(stored.is_empty(), "acknowledged and lost: {stored:?}");
        Ok(())
    }
}

/// The log keeps the JSON text.
fn value_of(n: u64) -> String {
    format!("\"{n} {}\"", "y".repeat(RECORD_BYTES))
}

fn number_in(value: &str) -> Result<u64> {
    let (number, _) = value.trim_start_matches('"').split_once(' ').context("a record that nobody posted")?;
    Ok(number.parse()?)
}

fn body(n: u64) -> String {
    format!(r#"{{"records":[{{"value":{}}}]}}"#, value_of(n))
}

fn stored_at(answer: &Answer) -> Result<u64> {
    let receipt: serde_json::Value = serde_json::from_str(&answer.body)?;
    receipt["offsets"][0]["offset"].as_u64().with_context(|| format!("no offset: {answer:?}"))
}
