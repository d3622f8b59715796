//! What every `EventLog` must do, as a suite that each implementation's tests run. A violation
//! panics with the sentence of the contract that does not hold. What is asked of topics that change
//! is in `conformance/changes.rs`.

mod changes;

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future;
use model::{
    Bounds, EventLog, Header, LogError, Offset, OffsetRange, Record, StoredRecord, Timestamp, TopicChange, TopicName,
    TopicPartition,
};

/// How long a wake-up may take before it counts as missing.
const WAKE_UP_LIMIT: Duration = Duration::from_secs(30);

/// Runs the suite; each check asks `fresh` for a log and creates topics of its own there. The
/// logs refuse records larger than `max_record_bytes`, which is at least 4 KiB.
pub async fn run<F, Fut>(max_record_bytes: usize, fresh: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<dyn EventLog>>,
{
    topics_are_described_as_created(&*fresh().await).await;
    what_does_not_exist_is_named(&*fresh().await).await;
    appended_records_come_back_unchanged(&*fresh().await).await;
    ranges_are_dense_and_visible_at_once(&*fresh().await).await;
    fetch_keeps_its_limits(&*fresh().await).await;
    a_reader_meets_every_record_once(&*fresh().await).await;
    offsets_outside_the_bounds_are_refused(&*fresh().await).await;
    partitions_do_not_mix(&*fresh().await).await;
    trim_raises_the_start_and_nothing_else(&*fresh().await).await;
    too_large_a_record_refuses_the_whole_append(&*fresh().await, max_record_bytes).await;
    every_append_moves(&*fresh().await).await;
    appenders_do_not_disturb_each_other(fresh().await).await;
    readers_follow_appenders(fresh().await).await;
    an_append_nobody_waits_for_is_there_whole_or_not_at_all(fresh().await).await;
    changes::run(fresh).await;
}

async fn topic(log: &dyn EventLog, name: &str, n_partitions: u32) -> TopicPartition {
    let topic: TopicName = name.parse().expect("the suite's names are valid");
    log.change_topic(&topic, TopicChange::Create { n_partitions }).await.expect("a new topic can be created");
    TopicPartition::new(topic, 0)
}

fn record(text: impl Into<String>) -> Record {
    Record { value: Some(text.into().into()), timestamp: Timestamp(1_700_000_000_000), ..Record::default() }
}

fn numbered(n: usize) -> Vec<Record> {
    (0..n).map(|i| record(format!("record {i}"))).collect()
}

async fn append(log: &dyn EventLog, partition: &TopicPartition, records: Vec<Record>) -> OffsetRange {
    log.append(partition, records).await.expect("an append to a healthy log succeeds")
}

async fn bounds(log: &dyn EventLog, partition: &TopicPartition) -> Bounds {
    log.bounds(partition).await.expect("a partition has bounds")
}

/// Everything the partition holds, read in steps of at most `max_bytes`.
async fn read_all(log: &dyn EventLog, partition: &TopicPartition, max_bytes: usize) -> Vec<StoredRecord> {
    let Bounds { start, end } = bounds(log, partition).await;
    let (mut next, mut all) = (start, Vec::new());
    while next < end {
        let step = log.fetch(partition, next, max_bytes).await.expect("what lies within the bounds can be read");
        assert!(!step.is_empty(), "a fetch below the end gives at least one record");
        for stored in &step {
            assert_eq!(stored.offset, next, "records come in the order of dense offsets");
            next = next.plus(1);
        }
        all.extend(step);
    }
    all
}

async fn topics_are_described_as_created(log: &dyn EventLog) {
    let before = log.describe().await.expect("a log can be described");
    topic(log, "described.b", 3).await;
    topic(log, "described.a", 1).await;
    let after = log.describe().await.expect("a log can be described");
    assert_eq!(before.id, after.id, "a log's identity stays");
    let created: BTreeMap<TopicName, u32> =
        after.topics.into_iter().filter(|(name, _)| name.as_str().starts_with("described.")).collect();
    let expected = [("described.a", 1), ("described.b", 3)];
    let expected = expected.map(|(name, n)| (name.parse().expect("a valid name"), n));
    assert_eq!(created, BTreeMap::from(expected), "topics are listed with their numbers of partitions");
}

async fn what_does_not_exist_is_named(log: &dyn EventLog) {
    let known = topic(log, "known", 2).await;
    let again = log.change_topic(&known.topic, TopicChange::Create { n_partitions: 2 }).await;
    assert!(matches!(again, Err(LogError::TopicExists(t)) if t == known.topic));
    assert_eq!(bounds(log, &known).await, Bounds::default(), "a new partition is empty and begins at 0");

    let none: TopicName = "none".parse().expect("a valid name");
    for change in [TopicChange::Grow { n_partitions: 2 }, TopicChange::Delete] {
        let changed = log.change_topic(&none, change).await;
        assert!(
            matches!(changed, Err(LogError::UnknownTopic(t)) if t == none),
            "{change:?} of a topic that is not there"
        );
    }
    for n_partitions in [0, u32::MAX] {
        let refused = log.change_topic(&none, TopicChange::Create { n_partitions }).await;
        assert!(matches!(refused, Err(LogError::LimitExceeded { .. })), "a topic of {n_partitions} partitions");
    }
    let unknown_topic = TopicPartition::new(none, 0);
    let unknown_partition = TopicPartition::new(known.topic, 2);
    for missing in [unknown_topic, unknown_partition] {
        let errors = [
            log.append(&missing, numbered(1)).await.err(),
            log.fetch(&missing, Offset(0), 1).await.err(),
            log.bounds(&missing).await.err(),
            log.trim(&missing, Offset(0)).await.err(),
        ];
        for error in errors {
            match error {
                Some(LogError::UnknownTopic(t)) => assert_eq!((&t, missing.partition), (&missing.topic, 0)),
                Some(LogError::UnknownPartition(p)) => assert_eq!((&p, missing.partition), (&missing, 2)),
                other => panic!("{missing} does not exist, but the answer was {other:?}"),
            }
        }
    }
}

async fn appended_records_come_back_unchanged(log: &dyn EventLog) {
    let partition = topic(log, "unchanged", 1).await;
    let bytes = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    let header = |key: &str, value| Header { key: key.to_owned(), value };
    let records = vec![
        record("a plain value"),
        Record { key: bytes("key"), value: bytes("value"), timestamp: Timestamp(1), ..Record::default() },
        Record { key: bytes("tombstone"), value: None, timestamp: Timestamp(2), ..Record::default() },
        Record { key: bytes(""), value: bytes(""), timestamp: Timestamp(0), ..Record::default() },
        Record {
            value: Some(vec![0xff, 0, 0x80].into()),
            timestamp: Timestamp(5_000_000_000_000),
            ..Record::default()
        },
        Record {
            headers: vec![header("k", bytes("1")), header("k", bytes("2")), header("", None), header("ü", bytes(""))],
            timestamp: Timestamp(3),
            ..Record::default()
        },
    ];
    append(log, &partition, records.clone()).await;
    let read: Vec<Record> = read_all(log, &partition, 1 << 20).await.into_iter().map(|s| s.record).collect();
    assert_eq!(read, records, "key, value, headers in order and time survive");
}

async fn ranges_are_dense_and_visible_at_once(log: &dyn EventLog) {
    let partition = topic(log, "dense", 1).await;
    let mut next = Offset::ZERO;
    for n in [1, 7, 100, 0, 1] {
        let range = append(log, &partition, numbered(n)).await;
        assert_eq!((&range.partition, range.start, range.end), (&partition, next, next.plus(n)));
        assert_eq!(bounds(log, &partition).await.end, range.end, "what was acknowledged is visible");
        next = range.end;
    }
    assert_eq!(read_all(log, &partition, 1 << 20).await.len(), 109);
}

async fn fetch_keeps_its_limits(log: &dyn EventLog) {
    let partition = topic(log, "limits", 1).await;
    append(log, &partition, (0..50).map(|i| record("x".repeat(100 * (i % 5)))).collect()).await;
    append(log, &partition, vec![record("y".repeat(3000))]).await;
    for from in 0..51 {
        for max_bytes in [0, 1, 150, 1000, 5000] {
            let step = log.fetch(&partition, Offset(from), max_bytes).await.expect("within the bounds");
            let n_bytes: usize = step.iter().map(|s| s.record.size_bytes()).sum();
            assert!(step.len() == 1 || n_bytes <= max_bytes, "{n_bytes} bytes where {max_bytes} were asked for");
            assert_eq!(step.first().map(|s| s.offset), Some(Offset(from)), "the first record is the one asked for");
        }
    }
    let at_end = log.fetch(&partition, Offset(51), 1000).await.expect("the end can be asked for");
    assert!(at_end.is_empty(), "at the end there is nothing");
}

async fn a_reader_meets_every_record_once(log: &dyn EventLog) {
    let partition = topic(log, "steps", 1).await;
    for n in [1, 40, 3, 200] {
        append(log, &partition, numbered(n)).await;
    }
    let all = read_all(log, &partition, usize::MAX).await;
    assert_eq!(all.len(), 244);
    for max_bytes in [0, 64, 1000, 100_000] {
        assert_eq!(read_all(log, &partition, max_bytes).await, all, "steps of {max_bytes} bytes");
    }
}

async fn offsets_outside_the_bounds_are_refused(log: &dyn EventLog) {
    let partition = topic(log, "outside", 1).await;
    for n_records in [0, 10] {
        append(log, &partition, numbered(n_records)).await;
        let end = bounds(log, &partition).await.end;
        for asked in [end.plus(1), Offset(u64::MAX)] {
            match log.fetch(&partition, asked, 100).await {
                Err(LogError::OutOfRange { partition: p, asked: a, bounds: b }) => {
                    assert_eq!((p, a, b), (partition.clone(), asked, Bounds { start: Offset::ZERO, end }));
                }
                other => panic!("offset {asked} is above the end {end}, but the answer was {other:?}"),
            }
        }
    }
}

async fn partitions_do_not_mix(log: &dyn EventLog) {
    let first = topic(log, "mix", 3).await;
    let partitions: Vec<_> = (0..3).map(|p| TopicPartition::new(first.topic.clone(), p)).collect();
    for round in 0..5 {
        for partition in &partitions {
            append(log, partition, vec![record(format!("{round} of {partition}"))]).await;
        }
    }
    for partition in &partitions {
        let values: Vec<_> = read_all(log, partition, 1000).await.into_iter().map(|s| s.record.value).collect();
        let expected: Vec<_> = (0..5).map(|round| Some(Bytes::from(format!("{round} of {partition}")))).collect();
        assert_eq!(values, expected);
    }
}

async fn trim_raises_the_start_and_nothing_else(log: &dyn EventLog) {
    let partition = topic(log, "trimmed", 1).await;
    append(log, &partition, numbered(100)).await;
    let all = read_all(log, &partition, 1 << 20).await;
    let mut start = Offset::ZERO;
    for before in [0, 10, 5, 60, 60, 100] {
        log.trim(&partition, Offset(before)).await.expect("a trim within the bounds succeeds");
        let now = bounds(log, &partition).await;
        assert!(now.start >= start, "the log start offset never falls");
        assert!(now.start <= Offset(before).max(start), "it rises to at most what was allowed");
        assert_eq!(now.end, Offset(100), "the end stays");
        start = now.start;
        assert_eq!(read_all(log, &partition, 500).await, all[start.0 as usize..], "what lies above the start stays");
        if start > Offset::ZERO {
            let below = log.fetch(&partition, Offset(start.0 - 1), 100).await;
            assert!(matches!(below, Err(LogError::OutOfRange { .. })), "below the start: {below:?}");
        }
    }
    log.trim(&partition, Offset(1000)).await.expect("allowing more than there is does no harm");
    assert!(bounds(log, &partition).await.start <= Offset(100));
    let range = append(log, &partition, numbered(1)).await;
    assert_eq!(range.start, Offset(100), "offsets go on after a trim");
    assert_eq!(read_all(log, &partition, 500).await.last().map(|s| s.offset), Some(Offset(100)));
}

async fn too_large_a_record_refuses_the_whole_append(log: &dyn EventLog, max_record_bytes: usize) {
    let partition = topic(log, "large", 1).await;
    let of_size = |n_bytes: usize| record("z".repeat(n_bytes));
    match log.append(&partition, vec![record("small"), of_size(max_record_bytes + 1)]).await {
        Err(LogError::TooLarge { actual_bytes, limit_bytes }) => {
            assert_eq!((actual_bytes, limit_bytes), (max_record_bytes + 1, max_record_bytes));
        }
        other => panic!("a record above the limit must be refused as too large, but the answer was {other:?}"),
    }
    assert_eq!(bounds(log, &partition).await.end, Offset::ZERO, "nothing of a refused append is there");
    append(log, &partition, vec![of_size(max_record_bytes)]).await;
    let read = read_all(log, &partition, 1).await;
    assert_eq!(read.len(), 1, "the largest record is read even by who asks for one byte");
    assert_eq!(read[0].record.size_bytes(), max_record_bytes);
}

async fn every_append_moves(log: &dyn EventLog) {
    let partition = topic(log, "moving", 1).await;
    let mut moved = log.moved();
    for _ in 0..3 {
        moved.mark_unchanged();
        append(log, &partition, numbered(1)).await;
        let woken = tokio::time::timeout(WAKE_UP_LIMIT, moved.changed()).await;
        assert!(matches!(woken, Ok(Ok(()))), "an append wakes who waits for the log to move");
    }
}

/// `appender` and a sequence number, to be told apart after reading.
fn stamped(appender: usize, sequence: usize) -> Record {
    record(format!("{appender}:{sequence}"))
}

fn stamp(stored: &StoredRecord) -> (usize, usize) {
    let text = stored.record.value.as_deref().and_then(|v| std::str::from_utf8(v).ok()).expect("the suite's text");
    let (appender, sequence) = text.split_once(':').expect("the suite's stamp");
    (appender.parse().expect("a number"), sequence.parse().expect("a number"))
}

async fn appenders_do_not_disturb_each_other(log: Arc<dyn EventLog>) {
    const APPENDERS: usize = 16;
    const APPENDS: usize = 25;
    let partition = topic(&*log, "appenders", 1).await;
    let appenders = (0..APPENDERS).map(|appender| {
        let (log, partition) = (Arc::clone(&log), partition.clone());
        tokio::spawn(async move {
            let (mut sequence, mut ranges) = (0, Vec::new());
            for n in 0..APPENDS {
                let n_records = 1 + (appender + n) % 7;
                let records = (sequence..sequence + n_records).map(|s| stamped(appender, s)).collect();
                let range = append(&*log, &partition, records).await;
                assert_eq!(range.n_records(), n_records as u64);
                ranges.push((range, sequence));
                sequence += n_records;
            }
            (appender, ranges)
        })
    });
    let appended = future::join_all(appenders).await;
    let all = read_all(&*log, &partition, 10_000).await;
    let mut n_acknowledged = 0;
    for outcome in appended {
        let (appender, ranges) = outcome.expect("no appender panics");
        assert!(ranges.is_sorted_by(|a, b| a.0.end <= b.0.start), "an appender's records keep its order");
        for (range, first_sequence) in ranges {
            let found: Vec<_> = all[range.start.0 as usize..range.end.0 as usize].iter().map(stamp).collect();
            let expected: Vec<_> = (first_sequence..first_sequence + found.len()).map(|s| (appender, s)).collect();
            assert_eq!(found, expected, "an append's records stand next to each other, in order");
            n_acknowledged += found.len();
        }
    }
    assert_eq!(n_acknowledged, all.len(), "nothing is there that nobody appended");
}

async fn readers_follow_appenders(log: Arc<dyn EventLog>) {
    const APPENDS: usize = 100;
    let partition = topic(&*log, "followed", 1).await;
    let readers = (0..3).map(|_| {
        let (log, partition) = (Arc::clone(&log), partition.clone());
        let mut moved = log.moved();
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < 3 * APPENDS {
                moved.mark_unchanged();
                let next = Offset(seen.len() as u64);
                let end = bounds(&*log, &partition).await.end;
                let step = log.fetch(&partition, next, 300).await.expect("a reader within the bounds is served");
                assert!(next == end || !step.is_empty(), "what lies below the end can be read");
                if step.is_empty() {
                    let woken = tokio::time::timeout(WAKE_UP_LIMIT, moved.changed()).await;
                    assert!(matches!(woken, Ok(Ok(()))), "a reader that looked after each wake-up misses nothing");
                }
                seen.extend(step.iter().map(stamp));
            }
            seen
        })
    });
    let readers: Vec<_> = readers.collect();
    for n in 0..APPENDS {
        append(&*log, &partition, (3 * n..3 * n + 3).map(|s| stamped(0, s)).collect()).await;
    }
    let expected: Vec<_> = (0..3 * APPENDS).map(|s| (0, s)).collect();
    for reader in readers {
        assert_eq!(reader.await.expect("no reader panics"), expected);
    }
}

async fn an_append_nobody_waits_for_is_there_whole_or_not_at_all(log: Arc<dyn EventLog>) {
    let partition = topic(&*log, "abandoned", 1).await;
    for appender in 0..20 {
        let (theirs, p) = (Arc::clone(&log), partition.clone());
        let records: Vec<_> = (0..10).map(|s| stamped(appender, s)).collect();
        let abandoned = tokio::spawn(async move { theirs.append(&p, records).await });
        tokio::task::yield_now().await;
        abandoned.abort();
        let _ = abandoned.await;
    }
    let range = append(&*log, &partition, vec![stamped(99, 0)]).await;
    let all = read_all(&*log, &partition, 10_000).await;
    assert_eq!(all.last().map(|s| (s.offset, stamp(s))), Some((range.start, (99, 0))));
    let abandoned = &all[..all.len() - 1];
    for append in abandoned.chunks(10) {
        let stamps: Vec<_> = append.iter().map(stamp).collect();
        let expected: Vec<_> = (0..10).map(|s| (stamps[0].0, s)).collect();
        assert_eq!(stamps, expected);
    }
}
