//! Another process's eyes on the folder: reading beside the owner, and what `inspect` tells.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use event_log::{
    inspect::{self, Depth},
    open_read_only,
};
use model::{Bounds, EventLog, LogError, Offset, OffsetRange, TopicChange};

use crate::support::{check_all, create, create_t, describe_partition, fill, open, partition, record, records};

/// Names, sizes and times of change of all files.
fn listing(dir: &Path) -> Vec<(String, u64, std::time::SystemTime)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            all.extend(listing(&entry.path()));
        }
        all.push((entry.path().display().to_string(), metadata.len(), metadata.modified().unwrap()));
    }
    all.sort();
    all
}

#[tokio::test]
async fn a_reader_beside_the_owner_sees_what_is_durable_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(open_read_only(dir.path()).is_err(), "there is no log yet");
    let log = open(dir.path());
    let beside = open_read_only(dir.path()).unwrap();
    assert_eq!(beside.describe().await.unwrap(), log.describe().await.unwrap());
    assert!(matches!(beside.bounds(&partition("t-0")).await, Err(LogError::UnknownTopic(_))));

    let t = create_t(&log).await;
    let mut moved = beside.moved();
    for until in [1, 30, 31, 400, 401, 2000] {
        fill(&log, &t, 30, until).await;
        let before = listing(dir.path());
        assert_eq!(check_all(&beside, &t).await, Bounds { start: Offset(0), end: Offset(until) });
        assert_eq!(listing(dir.path()), before);
        assert!(moved.has_changed().unwrap());
        moved.mark_unchanged();
    }
    log.trim(&t, Offset(1500)).await.unwrap();
    assert_eq!(check_all(&beside, &t).await, Bounds { start: Offset(1500), end: Offset(2000) });
    assert!(matches!(beside.fetch(&t, Offset(3), 100).await, Err(LogError::OutOfRange { .. })));

    let refused = [
        beside.append(&t, records(0..1)).await.err(),
        beside.trim(&t, Offset(1)).await.err(),
        create(&beside, "u", 1).await.err(),
    ];
    for error in refused {
        let sentence = error.unwrap().to_string();
        assert!(sentence.contains("read-only"), "{sentence}");
    }
    log.close().await.unwrap();
    assert_eq!(check_all(&beside, &t).await.end, Offset(2000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_beside_the_owner_bears_topics_that_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let t = create_t(&log).await;
    let beside = open_read_only(dir.path()).unwrap();
    let (followed, is_over) = (t.clone(), Arc::new(AtomicBool::new(false)));
    let reader = {
        let is_over = Arc::clone(&is_over);
        tokio::spawn(async move {
            let (mut next, mut n_read) = (Offset(0), 0);
            while !is_over.load(Relaxed) {
                match beside.fetch(&followed, next, 5000).await {
                    Ok(read) => {
                        for stored in read {
                            assert_eq!((stored.offset, &stored.record), (next, &record(next.0)));
                            next = next.plus(1);
                            n_read += 1;
                        }
                    }
                    Err(LogError::OutOfRange { bounds, .. }) => next = bounds.start,
                    Err(LogError::UnknownTopic(_)) => {}
                    Err(e) => panic!("at {next}: {e}"),
                }
            }
            n_read
        })
    };
    for until in (100..=3000).step_by(100) {
        fill(&log, &t, 25, until).await;
        log.change_topic(&t.topic, TopicChange::Delete).await.unwrap();
        create_t(&log).await;
    }
    is_over.store(true, Relaxed);
    assert!(reader.await.unwrap() > 0);

    log.change_topic(&t.topic, TopicChange::Grow { n_partitions: 2 }).await.unwrap();
    let beside = open_read_only(dir.path()).unwrap();
    assert_eq!(beside.describe().await.unwrap(), log.describe().await.unwrap());
    let at_end = Bounds { start: Offset(3000), end: Offset(3000) };
    assert_eq!(beside.bounds(&t).await.unwrap(), at_end, "only meta.json knows where an empty partition begins");
    let report = inspect::describe(dir.path(), Depth::Verify).unwrap();
    assert_eq!(*report.ended, [(t.topic.clone(), vec![Offset(3000)])].into());
    assert_eq!(report.partitions[0].bounds, at_end);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_beside_the_owner_bears_appends_rolls_and_trims_under_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let t = create_t(&log).await;
    fill(&log, &t, 10, 10).await;
    let beside = open_read_only(dir.path()).unwrap();
    let followed = t.clone();
    let reader = tokio::spawn(async move {
        let mut next = Offset(0);
        while next < Offset(4000) {
            match beside.fetch(&followed, next, 5000).await {
                Ok(read) => {
                    for stored in read {
                        assert_eq!((stored.offset, &stored.record), (next, &record(next.0)));
                        next = next.plus(1);
                    }
                }
                Err(LogError::OutOfRange { bounds, .. }) => next = bounds.start,
                Err(e) => panic!("at {next}: {e}"),
            }
        }
    });
    let is_over = Arc::new(AtomicBool::new(false));
    let inspector = tokio::task::spawn_blocking({
        let (dir, is_over) = (dir.path().to_owned(), is_over.clone());
        move || {
            while !is_over.load(Relaxed) {
                for depth in [Depth::Quick, Depth::Verify] {
                    inspect::describe(&dir, depth).unwrap();
                }
            }
        }
    });
    for until in (100..=4000).step_by(100) {
        fill(&log, &t, 25, until).await;
        log.trim(&t, Offset(until.saturating_sub(600))).await.unwrap();
    }
    reader.await.unwrap();
    is_over.store(true, Relaxed);
    inspector.await.unwrap();
}

#[tokio::test]
async fn inspect_tells_what_stands_where() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let t = create_t(&log).await;
    fill(&log, &t, 10, 600).await;
    let report = inspect::describe(dir.path(), Depth::Verify).unwrap();
    assert_eq!((report.id, report.closed), (log.describe().await.unwrap().id.id, false));
    let [p] = &report.partitions[..] else { panic!("one partition: {report:?}") };
    assert_eq!(p.bounds, Bounds { start: Offset(0), end: Offset(600) });
    assert_eq!(p.mark.unwrap().end, Offset(600));
    assert!(p.segments.len() > 2);
    assert!(p.segments.windows(2).all(|w| w[0].end == w[1].base));
    let n_records: u64 = p.segments.iter().map(|s| s.n_records).sum();
    assert_eq!(n_records, 600);
    let quick = inspect::describe(dir.path(), Depth::Quick).unwrap();
    assert_eq!(quick, report, "a quick look tells the same of a healthy log");
    for segment in &p.segments {
        let time = |offset: u64| Some(record(offset).timestamp.0);
        assert_eq!(segment.first_timestamp_ms, time(segment.base.0));
        assert_eq!(segment.last_timestamp_ms, time(segment.end.0 - 1));
    }

    let second = p.segments[1].clone();
    let dumped = inspect::dump(dir.path(), &t, second.base, 7).unwrap();
    assert_eq!(dumped.len(), 7);
    for (record_dumped, offset) in dumped.iter().zip(second.base.0..) {
        assert_eq!(record_dumped.offset, Offset(offset));
        assert_eq!(record_dumped.value.as_deref().map(str::as_bytes), record(offset).value.as_deref());
    }
    let mut bytes = fs::read(&second.path).unwrap();
    bytes[100] ^= 1;
    fs::write(&second.path, bytes).unwrap();
    let verified = describe_partition(dir.path(), &t, Depth::Verify);
    assert_eq!(verified.segments[1].damaged.len(), 1);
    assert_eq!(verified.segments[1].damaged[0].start, second.base);

    let found = log.fetch(&t, second.base, 100).await;
    assert!(matches!(found, Err(LogError::Corrupt { range: OffsetRange { start, .. }, .. }) if start == second.base));
    let listed = describe_partition(dir.path(), &t, Depth::Quick).quarantined;
    assert_eq!(listed, verified.segments[1].damaged);
}
