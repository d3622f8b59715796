//! Files that are not as they were written: what comes back is the data or an error that names
//! the range, never other data, never a gap that nobody mentions.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use event_log::{fs::FileSystem, inspect, open_read_only};
use model::{EventLog, Offset};
use proptest::prelude::*;

use crate::{
    sim::Sim,
    support::{
        Reading, check_all, check_content, create_t, describe_partition, fill, open, open_on, partition,
        read_over_damage, record, records,
    },
};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// A closed log of `n` records in appends of 10, and its partition's folder.
fn closed_log(n: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let log = open(dir.path());
        let t = create_t(&log).await;
        fill(&log, &t, 10, n).await;
        log.close().await.unwrap();
    });
    let partition_dir = dir.path().join("t-0");
    (dir, partition_dir)
}

fn segments(partition_dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(partition_dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "log"));
    paths.sort();
    paths
}

/// The sizes of a segment's batches, by their own headers.
fn batch_ends(segment: &[u8]) -> Vec<usize> {
    let mut ends = vec![0];
    while let Some(header) = segment.get(*ends.last().unwrap()..).filter(|rest| rest.len() >= 12) {
        let length = u32::from_be_bytes(header[8..12].try_into().unwrap()) as usize;
        ends.push(ends.last().unwrap() + 12 + length);
    }
    ends
}

async fn read_beside(dir: &Path) -> Reading {
    let reading = read_over_damage(&open_read_only(dir).unwrap(), &partition("t-0")).await;
    check_content(&reading);
    reading
}

#[test]
fn a_torn_tail_is_cut_at_every_byte() {
    let dir = Path::new("/log");
    let segment = Path::new("/log/t-0/00000000000000000000.log");
    let mark = Path::new("/log/t-0/mark");
    let t = partition("t-0");
    let sim = Sim::new();
    let open = |sim: &Arc<Sim>| open_on(Arc::clone(sim) as _, dir).unwrap();
    runtime().block_on(async {
        let log = open(&sim);
        create_t(&log).await;
        fill(&log, &t, 10, 60).await;
        log.close().await.unwrap();
    });
    let whole = sim.edit(segment, |bytes| bytes.clone());
    let ends = batch_ends(&whole);
    for size in 0..=whole.len() {
        for n_zeros in [0, 1000] {
            let mut torn = whole[..size].to_vec();
            torn.resize(size + n_zeros, 0);
            let sim = sim.after_power_cut(0);
            sim.edit(segment, |bytes| bytes.clone_from(&torn));
            // Without the mark, all of the last segment counts as not yet known to be durable.
            sim.unlink(mark).unwrap();
            // A batch may itself end with a zero.
            let n_whole_batches =
                ends.iter().filter(|end| torn.get(..**end) == Some(&whole[..**end])).count() as u64 - 1;
            runtime().block_on(async {
                let log = open(&sim);
                let bounds = check_all(&log, &t).await;
                assert_eq!(bounds.end, Offset(10 * n_whole_batches), "{size} bytes and {n_zeros} zeros");
                let n_left = sim.edit(segment, |bytes| bytes.len());
                assert_eq!(n_left, ends[n_whole_batches as usize], "nothing is left that a later start could take up");
                fill(&log, &t, 10, bounds.end.0 + 10).await;
                drop(log);
                assert_eq!(check_all(&open(&sim), &t).await.end, bounds.end.plus(10));
            });
        }
    }
}

#[test]
fn a_file_cut_below_the_mark_is_named_and_its_offsets_are_not_given_out_again() {
    for cut_segment in 0..2 {
        let (dir, partition_dir) = closed_log(600);
        let paths = segments(&partition_dir);
        assert!(paths.len() > 2);
        let path = if cut_segment == 0 { &paths[1] } else { paths.last().unwrap() };
        let size = fs::metadata(path).unwrap().len();
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(size / 2).unwrap();
        runtime().block_on(async {
            for _ in 0..2 {
                let log = open(dir.path());
                let end = log.bounds(&partition("t-0")).await.unwrap().end;
                assert!(end >= Offset(600));
                let reading = read_over_damage(&log, &partition("t-0")).await;
                check_content(&reading);
                assert_eq!(reading.corrupt.len(), 1, "one range is lost: {:?}", reading.corrupt);
                let (from, to) = reading.corrupt[0];
                assert_eq!(reading.records.len() as u64, end.0 - (to - from));
                let appended = log.append(&partition("t-0"), records(end.0..end.0 + 10)).await.unwrap();
                assert_eq!(appended.start, end);
            }
        });
        let listed = describe_partition(dir.path(), &partition("t-0"), inspect::Depth::Quick);
        assert_eq!(listed.quarantined.len(), 1, "{listed:?}");
    }
}

#[test]
fn missing_segments_are_named() {
    for missing in 0..3 {
        let (dir, partition_dir) = closed_log(600);
        let paths = segments(&partition_dir);
        let path = [&paths[0], &paths[1], paths.last().unwrap()][missing];
        fs::remove_file(path).unwrap();
        runtime().block_on(async {
            let log = open(dir.path());
            let reading = read_over_damage(&log, &partition("t-0")).await;
            check_content(&reading);
            assert_eq!(reading.corrupt.len(), 1, "{:?}", reading.corrupt);
            assert_eq!(log.bounds(&partition("t-0")).await.unwrap().end, Offset(600));
            fill(&log, &partition("t-0"), 10, 650).await;
        });
        for path in segments(&partition_dir) {
            fs::remove_file(path).unwrap();
        }
        runtime().block_on(async {
            let log = open(dir.path());
            assert_eq!(read_over_damage(&log, &partition("t-0")).await.corrupt, [(0, 650)]);
        });
    }
}

#[test]
fn a_lost_mark_or_index_loses_nothing() {
    for lost in ["mark", "index"] {
        let (dir, partition_dir) = closed_log(600);
        for entry in fs::read_dir(&partition_dir).unwrap() {
            let path = entry.unwrap().path();
            if path.to_str().unwrap().ends_with(lost) {
                fs::remove_file(path).unwrap();
            }
        }
        runtime().block_on(async {
            assert_eq!(read_beside(dir.path()).await.records.len(), 600);
            let log = open(dir.path());
            assert_eq!(check_all(&log, &partition("t-0")).await.end, Offset(600));
            fill(&log, &partition("t-0"), 10, 700).await;
            check_all(&log, &partition("t-0")).await;
        });
    }
}

/// Above the mark, damage with a later group commit behind it was synced once: it is named.
/// A batch's offset lies outside of its checksum: a broker writes it after the producer summed.
#[test]
fn behind_damage_an_offset_alone_is_not_believed() {
    let (dir, partition_dir) = closed_log(60);
    let segment = &segments(&partition_dir)[0];
    let whole = fs::read(segment).unwrap();
    let (damaged, lying) = (batch_ends(&whole)[1], batch_ends(&whole)[2]);
    for bit in 0..64 {
        let mut bytes = whole.clone();
        bytes[damaged + 30] ^= 1;
        bytes[lying + bit / 8] ^= 1 << (bit % 8);
        fs::write(segment, &bytes).unwrap();
        let reading = runtime().block_on(read_beside(dir.path()));
        assert_eq!(reading.corrupt, [(10, 30)], "bit {bit}");
        assert_eq!(reading.records.len(), 40, "bit {bit}");
    }
}

/// Batches 30 and 40 stand at the beginning, too, where 0 to 29 were: a walk that follows the copies comes to
/// batch 50 through what is left of 20, and has missed nothing by then.
#[test]
fn behind_copies_of_whole_batches_nothing_more_is_lost() {
    let (dir, partition_dir) = closed_log(300);
    let segment = &segments(&partition_dir)[0];
    let mut bytes = fs::read(segment).unwrap();
    let ends = batch_ends(&bytes);
    let n_before = 200;
    assert!(n_before + ends[5] - ends[3] < ends[3]);
    bytes.copy_within(ends[3] - n_before..ends[5], 0);
    fs::write(segment, &bytes).unwrap();
    fs::remove_file(segment.with_extension("index")).unwrap();
    runtime().block_on(async {
        assert_eq!(read_beside(dir.path()).await.corrupt, [(0, 30)]);
        let reading = read_over_damage(&open(dir.path()), &partition("t-0")).await;
        check_content(&reading);
        assert_eq!(reading.corrupt, [(0, 30)]);
    });
    let listed = describe_partition(dir.path(), &partition("t-0"), inspect::Depth::Quick);
    assert_eq!(listed.quarantined.len(), 1, "{listed:?}");
}

#[test]
fn damage_above_the_mark_is_named_if_a_later_group_follows_it() {
    let (dir, partition_dir) = closed_log(60);
    let segment = segments(&partition_dir).pop().unwrap();
    let whole = fs::read(&segment).unwrap();
    let ends = batch_ends(&whole);
    for (batch, at_end) in [(0, false), (2, false), (3, false), (4, true), (5, true)] {
        let mut flipped = whole.clone();
        flipped[ends[batch] + 70] ^= 4;
        fs::write(&segment, &flipped).unwrap();
        let _ = fs::remove_file(partition_dir.join("mark"));
        let reading = runtime().block_on(async {
            let log = open(dir.path());
            let reading = read_over_damage(&log, &partition("t-0")).await;
            check_content(&reading);
            reading
        });
        let (from, to) = (10 * batch as u64, 10 * batch as u64 + 10);
        match (batch, at_end) {
            // Nothing follows: a torn tail.
            (5, _) => assert_eq!((reading.records.len(), reading.corrupt), (50, vec![])),
            _ => assert_eq!((reading.records.len(), reading.corrupt), (50, vec![(from, to)]), "batch {batch}"),
        }
    }
}

#[derive(Clone, Debug)]
enum Damage {
    Flip { byte: prop::sample::Index, bit: u8 },
    Zero { from: prop::sample::Index, n: usize },
    Copy { from: prop::sample::Index, to: prop::sample::Index, n: usize },
    Cut { size: prop::sample::Index },
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), 0..8u8).prop_map(|(byte, bit)| Damage::Flip { byte, bit }),
        1 => (any::<prop::sample::Index>(), 1..5000usize).prop_map(|(from, n)| Damage::Zero { from, n }),
        1 => (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1..5000usize)
            .prop_map(|(from, to, n)| Damage::Copy { from, to, n }),
        1 => any::<prop::sample::Index>().prop_map(|size| Damage::Cut { size }),
    ]
}

fn apply(damage: &Damage, bytes: &mut Vec<u8>) {
    let len = bytes.len();
    if len == 0 {
        return;
    }
    match damage {
        Damage::Flip { byte, bit } => bytes[byte.index(len)] ^= 1 << bit,
        Damage::Zero { from, n } => {
            let from = from.index(len);
            bytes[from..len.min(from + n)].fill(0);
        }
        Damage::Copy { from, to, n } => {
            let (from, to) = (from.index(len), to.index(len));
            let n = (*n).min(len - from).min(len - to);
            bytes.copy_within(from..from + n, to);
        }
        Damage::Cut { size } => bytes.truncate(size.index(len)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_damage_to_any_file_gives_the_data_or_names_the_range(
        hits in prop::collection::vec((any::<prop::sample::Index>(), damage()), 1..3),
    ) {
        thread_local! {
            static LOG: (tempfile::TempDir, PathBuf) = closed_log(300);
        }
        let (dir, source) = LOG.with(|(dir, source)| (dir.path().to_owned(), source.clone()));
        let copy = tempfile::tempdir().unwrap();
        fs::create_dir(copy.path().join("t-0")).unwrap();
        fs::copy(dir.join("meta.json"), copy.path().join("meta.json")).unwrap();
        let mut files: Vec<_> = fs::read_dir(&source).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        let mut contents: Vec<_> = files.iter().map(|f| fs::read(f).unwrap()).collect();
        let mut mark_is_whole = true;
        for (file, damage) in &hits {
            let i = file.index(files.len());
            mark_is_whole &= files[i].file_name().unwrap() != "mark";
            apply(damage, &mut contents[i]);
        }
        for (file, content) in files.iter().zip(&contents) {
            fs::write(copy.path().join("t-0").join(file.file_name().unwrap()), content).unwrap();
        }
        runtime().block_on(async {
            let beside = read_beside(copy.path()).await;
            let log = open(copy.path());
            let t = partition("t-0");
            let reading = read_over_damage(&log, &t).await;
            check_content(&reading);
            let bounds = log.bounds(&t).await.unwrap();
            if mark_is_whole {
                prop_assert_eq!(bounds.end, Offset(300), "what was acknowledged is there or named");
                prop_assert_eq!(&beside, &reading);
            }
            let n_lost: u64 = reading.corrupt.iter().map(|(from, to)| to - from).sum();
            prop_assert_eq!(reading.records.len() as u64 + n_lost, bounds.end.0 - bounds.start.0);
            let appended = log.append(&t, vec![record(bounds.end.0)]).await.unwrap();
            prop_assert_eq!(appended.start, bounds.end);
            Ok(())
        })?;
    }
}
