//! One thing wrong with one file, many thousand times: what comes back is every record as it was
//! appended, or an error that names the range it lies in. Never other data, never a gap that
//! nobody mentions, never a panic, and never an offset given out twice.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use event_log::{OpenError, fs::FileSystem};
use model::{EventLog, Offset};

use crate::{
    sim::{Random, Sim},
    support::{check_content, create_t, fill, open_on, partition, read_over_damage, record},
    volume::{Volume, say_figures},
};

const DIR: &str = "/log";
const META: &str = "meta.json";
const N_RECORDS: u64 = 600;
const PAGE_BYTES: usize = 4096;

/// A log that was closed in order, or whose process was killed with blocks allocated ahead.
fn log_of(closed: bool) -> Arc<Sim> {
    let sim = Sim::new();
    runtime().block_on(async {
        let log = open_on(Arc::clone(&sim) as _, Path::new(DIR)).unwrap();
        let t = create_t(&log).await;
        fill(&log, &t, 10, N_RECORDS).await;
        if closed {
            log.close().await.unwrap();
        }
    });
    sim
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// The files of the one partition, and the log's own.
fn files(sim: &Sim) -> Vec<PathBuf> {
    let dir = Path::new(DIR).join("t-0");
    let of_partition = sim.list(&dir).unwrap().into_iter().map(|entry| dir.join(entry.name));
    of_partition.chain([Path::new(DIR).join(META)]).collect()
}

#[derive(Clone, Copy, Debug)]
enum Rot {
    FlippedBit,
    Truncation,
    ZeroedPage,
    /// Another segment's content, as a file system that mixes up its blocks would give it.
    ForeignContent,
}

/// Of a hundred cases this many, beside as many flipped bits as are asked for.
const BESIDE: [(Rot, u64); 3] = [(Rot::Truncation, 10), (Rot::ZeroedPage, 10), (Rot::ForeignContent, 2)];

impl Rot {
    /// Says what it did.
    fn strike(self, sim: &Sim, random: &mut Random) -> String {
        let files = files(sim);
        let mut any = || files[random.below(files.len() as u64) as usize].clone();
        let (path, other) = (any(), any());
        let foreign = sim.edit(&other, |bytes| bytes.clone());
        let what = sim.edit(&path, |bytes| {
            if bytes.is_empty() {
                return "nothing, it is empty".to_owned();
            }
            let at = random.below(bytes.len() as u64) as usize;
            match self {
                Self::FlippedBit => bytes[at] ^= 1 << random.below(8),
                Self::Truncation => bytes.truncate(at),
                Self::ZeroedPage => {
                    let from = at - at % PAGE_BYTES;
                    let to = bytes.len().min(from + PAGE_BYTES);
                    bytes[from..to].fill(0);
                }
                Self::ForeignContent => *bytes = foreign,
            }
            format!("at byte {at}")
        });
        format!("{self:?} in {} {what}", path.display())
    }
}

#[test]
fn rotten_files_give_the_data_or_name_the_range() {
    let volume = Volume::asked_or(400);
    let mut random = Random(volume.seed);
    let sources = [log_of(true), log_of(false)];
    let beside = BESIDE.iter().flat_map(|(rot, percent)| vec![*rot; (volume.count * percent / 100) as usize]);
    let flips = (0..volume.count).map(|_| Rot::FlippedBit);
    let (mut n_cases, mut n_named, mut n_records) = (0, 0, 0);
    for rot in flips.chain(beside) {
        let sim = sources[(n_cases % 2) as usize].after_kill();
        let what = rot.strike(&sim, &mut random);
        let (n_read, n_ranges) = runtime().block_on(check(&sim, &what));
        n_cases += 1;
        n_named += u64::from(n_ranges > 0);
        n_records += n_read;
    }
    assert!(n_named > n_cases / 10, "only {n_named} of {n_cases} cases did any harm");
    say_figures(&format!(
        "{} flipped bits and {} truncations, zeroed pages and foreign contents; {n_named} named as corrupt, the others \
         without effect; {n_records} records read, none wrong; seed {}",
        volume.count,
        n_cases - volume.count,
        volume.seed
    ));
}

/// How many records were read, and how many ranges named.
async fn check(sim: &Arc<Sim>, what: &str) -> (u64, usize) {
    let t = partition("t-0");
    let log = match open_on(Arc::clone(sim) as _, Path::new(DIR)) {
        Ok(log) => log,
        Err(OpenError::DamagedMeta { .. } | OpenError::NewerFormat { .. }) if what.contains(META) => return (0, 1),
        Err(e) => panic!("{what}: {e}"),
    };
    let reading = read_over_damage(&log, &t).await;
    check_content(&reading);
    assert_eq!(log.describe().await.unwrap().topics, [("t".parse().unwrap(), 1)].into(), "{what}");
    let bounds = log.bounds(&t).await.unwrap();
    let n_lost: u64 = reading.corrupt.iter().map(|(from, to)| to - from).sum();
    let n_read = reading.records.len() as u64;
    assert_eq!((bounds.start, bounds.end), (Offset(0), Offset(N_RECORDS)), "{what}: what was acknowledged is there");
    assert_eq!(n_read + n_lost, N_RECORDS, "{what}: or named");
    let appended = log.append(&t, vec![record(N_RECORDS)]).await.unwrap();
    assert_eq!(appended.start, Offset(N_RECORDS), "{what}: no offset is given out twice");
    (n_read, reading.corrupt.len())
}
