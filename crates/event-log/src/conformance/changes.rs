//! What every `EventLog` must do when topics are created, grow, are deleted and created again.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use futures::future;
use model::{Bounds, EventLog, LogError, Offset, TopicChange, TopicName, TopicPartition};

use super::{WAKE_UP_LIMIT, append, bounds, numbered, read_all, stamped, topic};

pub(super) async fn run<F, Fut>(fresh: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<dyn EventLog>>,
{
    a_topic_grows_and_never_shrinks(&*fresh().await).await;
    a_deleted_topic_is_gone_and_no_other(&*fresh().await).await;
    no_offset_ever_names_two_records(&*fresh().await).await;
    what_was_deleted_is_told(&*fresh().await).await;
    a_topic_that_grew_is_not_deleted(&*fresh().await).await;
    every_change_moves(&*fresh().await).await;
    appenders_and_readers_bear_deletions(fresh().await).await;
}

async fn change(log: &dyn EventLog, topic: &TopicName, change: TopicChange) {
    log.change_topic(topic, change).await.unwrap_or_else(|e| panic!("{change:?} of {topic}: {e}"));
}

const fn create(n_partitions: u32) -> TopicChange {
    TopicChange::Create { n_partitions }
}

const fn grow(n_partitions: u32) -> TopicChange {
    TopicChange::Grow { n_partitions }
}

fn at(offset: u64) -> Bounds {
    Bounds { start: Offset(offset), end: Offset(offset) }
}

async fn n_partitions(log: &dyn EventLog, topic: &TopicName) -> Option<u32> {
    log.describe().await.expect("a log can be described").topics.get(topic).copied()
}

async fn a_topic_grows_and_never_shrinks(log: &dyn EventLog) {
    let first = topic(log, "grown", 2).await;
    append(log, &first, numbered(7)).await;
    let before = read_all(log, &first, 1000).await;
    let added = TopicPartition::new(first.topic.clone(), 3);
    assert!(matches!(log.bounds(&added).await, Err(LogError::UnknownPartition(_))));

    change(log, &first.topic, grow(4)).await;
    assert_eq!(n_partitions(log, &first.topic).await, Some(4));
    assert_eq!(bounds(log, &added).await, Bounds::default(), "a new partition is empty and begins at 0");
    assert_eq!(append(log, &added, numbered(3)).await.start, Offset::ZERO);
    assert_eq!(read_all(log, &first, 1000).await, before, "what was there stays");
    assert_eq!(append(log, &first, numbered(1)).await.start, Offset(7));

    change(log, &first.topic, grow(4)).await;
    for asked in [3, 1, 0] {
        match log.change_topic(&first.topic, grow(asked)).await {
            Err(LogError::FewerPartitions { topic, actual, asked: a }) => {
                assert_eq!((topic, actual, a), (first.topic.clone(), 4, asked));
            }
            other => panic!("4 partitions do not become {asked}, but the answer was {other:?}"),
        }
    }
    let refused = log.change_topic(&first.topic, grow(u32::MAX)).await;
    assert!(matches!(refused, Err(LogError::LimitExceeded { .. })), "{refused:?}");
    assert_eq!(n_partitions(log, &first.topic).await, Some(4));
    assert_eq!(bounds(log, &added).await.end, Offset(3), "growing to what is there changes nothing");
}

async fn a_deleted_topic_is_gone_and_no_other(log: &dyn EventLog) {
    let kept = topic(log, "gone-1", 2).await;
    let gone = topic(log, "gone", 2).await;
    for partition in [&kept, &gone] {
        append(log, partition, numbered(50)).await;
    }
    change(log, &gone.topic, TopicChange::Delete).await;
    assert_eq!(n_partitions(log, &gone.topic).await, None);
    for p in 0..2 {
        let partition = TopicPartition::new(gone.topic.clone(), p);
        let errors = [
            log.append(&partition, numbered(1)).await.err(),
            log.fetch(&partition, Offset(0), 1).await.err(),
            log.bounds(&partition).await.err(),
            log.trim(&partition, Offset(0)).await.err(),
            log.change_topic(&gone.topic, TopicChange::Delete).await.err(),
            log.change_topic(&gone.topic, grow(3)).await.err(),
        ];
        for error in errors {
            assert!(matches!(&error, Some(LogError::UnknownTopic(t)) if *t == gone.topic), "{error:?}");
        }
    }
    assert_eq!(n_partitions(log, &kept.topic).await, Some(2));
    assert_eq!(read_all(log, &kept, 1000).await.len(), 50, "a topic of a similar name keeps its records");
}

async fn no_offset_ever_names_two_records(log: &dyn EventLog) {
    let topic: TopicName = "again".parse().expect("a valid name");
    let of = |p| TopicPartition::new(topic.clone(), p);
    change(log, &topic, create(4)).await;
    for (p, n_records) in [(0, 30), (1, 5), (2, 8)] {
        append(log, &of(p), numbered(n_records)).await;
    }
    log.trim(&of(0), Offset(30)).await.expect("a trim within the bounds succeeds");
    change(log, &topic, TopicChange::Delete).await;

    change(log, &topic, create(2)).await;
    assert_eq!(n_partitions(log, &topic).await, Some(2));
    for (p, end) in [(0, 30), (1, 5)] {
        assert_eq!(bounds(log, &of(p)).await, at(end), "the offsets of {} go on where they ended", of(p));
        assert!(log.fetch(&of(p), Offset(end), 100).await.expect("the end can be asked for").is_empty());
        for asked in [Offset(end - 1), Offset(end + 1)] {
            let outside = log.fetch(&of(p), asked, 100).await;
            assert!(matches!(&outside, Err(LogError::OutOfRange { bounds, .. }) if *bounds == at(end)), "{outside:?}");
        }
    }
    assert_eq!(append(log, &of(0), numbered(12)).await.start, Offset(30));
    assert_eq!(read_all(log, &of(0), 100).await.len(), 12, "only what was appended since is there");

    change(log, &topic, TopicChange::Delete).await;
    change(log, &topic, create(1)).await;
    assert_eq!(bounds(log, &of(0)).await, at(42));
    change(log, &topic, grow(5)).await;
    for (p, end) in [(0, 42), (1, 5), (2, 8), (3, 0), (4, 0)] {
        assert_eq!(bounds(log, &of(p)).await, at(end), "what an earlier life of {} reached is remembered", of(p));
        assert_eq!(append(log, &of(p), numbered(2)).await.start, Offset(end));
        assert_eq!(read_all(log, &of(p), 100).await.len(), 2);
    }
}

async fn what_was_deleted_is_told(log: &dyn EventLog) {
    let topic: TopicName = "told".parse().expect("a valid name");
    let of = |p| TopicPartition::new(topic.clone(), p);
    // The partitions that are there no more, and where the lives of 0 to 3 began.
    let told = async || {
        let described = log.describe().await.expect("a log can be described");
        (described.deleted().collect::<Vec<_>>(), [0, 1, 2, 3].map(|p| described.begin(&of(p)).0))
    };
    change(log, &topic, create(3)).await;
    append(log, &of(0), numbered(4)).await;
    append(log, &of(2), numbered(6)).await;
    assert_eq!(told().await, (vec![], [0; 4]));
    change(log, &topic, TopicChange::Delete).await;
    assert_eq!(told().await, (vec![of(0), of(2)], [4, 0, 6, 0]), "what never had a record is not missed");
    change(log, &topic, create(1)).await;
    append(log, &of(0), numbered(5)).await;
    assert_eq!(told().await, (vec![of(2)], [4, 0, 6, 0]));
    change(log, &topic, grow(4)).await;
    assert_eq!(told().await, (vec![], [4, 0, 6, 0]));
    change(log, &topic, TopicChange::Delete).await;
    assert_eq!(told().await, (vec![of(0), of(2)], [9, 0, 6, 0]));
}

async fn a_topic_that_grew_is_not_deleted(log: &dyn EventLog) {
    let first = topic(log, "growing", 2).await;
    let second = TopicPartition::new(first.topic.clone(), 1);
    append(log, &first, numbered(3)).await;
    append(log, &second, numbered(4)).await;
    log.trim(&first, Offset(2)).await.expect("a trim within the bounds succeeds");
    for (sum_of_ends, is_all) in [(6, false), (8, false), (0, false), (7, true)] {
        let deleted = log.change_topic(&first.topic, TopicChange::DeleteUnlessGrown { sum_of_ends }).await;
        if is_all {
            deleted.expect("all of it was known");
            break;
        }
        assert!(matches!(&deleted, Err(LogError::TopicGrew(t)) if *t == first.topic), "{deleted:?}");
        assert_eq!(read_all(log, &second, 100).await.len(), 4, "nothing is lost");
    }
    assert_eq!(n_partitions(log, &first.topic).await, None);
    let gone = log.change_topic(&first.topic, TopicChange::DeleteUnlessGrown { sum_of_ends: 7 }).await;
    assert!(matches!(gone, Err(LogError::UnknownTopic(_))), "{gone:?}");

    // What is refused leaves a log that is written to as before, whoever appends meanwhile.
    let again = topic(log, "growing", 2).await;
    assert_eq!(append(log, &again, numbered(1)).await.start, Offset(3));
    let refused = log.change_topic(&again.topic, TopicChange::DeleteUnlessGrown { sum_of_ends: 7 }).await;
    assert!(matches!(refused, Err(LogError::TopicGrew(_))), "{refused:?}");
    assert_eq!(append(log, &again, numbered(1)).await.start, Offset(4));
    change(log, &again.topic, TopicChange::DeleteUnlessGrown { sum_of_ends: 9 }).await;
}

async fn every_change_moves(log: &dyn EventLog) {
    let topic: TopicName = "changing".parse().expect("a valid name");
    let mut moved = log.moved();
    for step in [create(1), grow(2), TopicChange::Delete, create(1)] {
        moved.mark_unchanged();
        change(log, &topic, step).await;
        let woken = tokio::time::timeout(WAKE_UP_LIMIT, moved.changed()).await;
        assert!(matches!(woken, Ok(Ok(()))), "{step:?} wakes who waits for the log to move");
    }
}

/// Appends, reads and trims while the topic comes and goes: an append is stored before a deletion or
/// refused, and of two acknowledged appends no offset is the same.
async fn appenders_and_readers_bear_deletions(log: Arc<dyn EventLog>) {
    const LIVES: u32 = 15;
    let partition = topic(&*log, "fleeting", 2).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let goes_on = {
        let is_over = Arc::clone(&is_over);
        move || !is_over.load(Relaxed)
    };
    let appenders = (0..6usize).map(|appender| {
        let (log, goes_on) = (Arc::clone(&log), goes_on.clone());
        let partition = TopicPartition::new(partition.topic.clone(), appender as u32 % 2);
        tokio::spawn(async move {
            let mut ranges = Vec::new();
            while goes_on() {
                let records = (0..1 + ranges.len() % 20).map(|s| stamped(appender, s)).collect();
                match log.append(&partition, records).await {
                    Ok(range) => {
                        ranges.push(range);
                        // In memory nothing else lets others have their turn.
                        tokio::task::yield_now().await;
                    }
                    Err(LogError::UnknownTopic(_)) => tokio::task::yield_now().await,
                    Err(e) => panic!("an append is stored or finds no topic: {e}"),
                }
            }
            ranges
        })
    });
    let appenders: Vec<_> = appenders.collect();
    let reader = {
        let (log, goes_on, partition) = (Arc::clone(&log), goes_on.clone(), partition.clone());
        tokio::spawn(async move {
            let mut next = Offset::ZERO;
            while goes_on() {
                match log.fetch(&partition, next, 2000).await {
                    Ok(step) => {
                        assert!(step.iter().zip(next.0..).all(|(stored, n)| stored.offset.0 == n));
                        next = next.plus(step.len());
                        tokio::task::yield_now().await;
                    }
                    Err(LogError::OutOfRange { bounds, .. }) => next = bounds.start,
                    Err(LogError::UnknownTopic(_)) => tokio::task::yield_now().await,
                    Err(e) => panic!("a reader at {next} is served or finds no topic: {e}"),
                }
            }
        })
    };
    let mut end = Offset::ZERO;
    for life in 0..LIVES {
        let begun = bounds(&*log, &partition).await.start;
        assert!(begun >= end, "offsets go on");
        let enough = begun.plus(40);
        while bounds(&*log, &partition).await.end < enough {
            tokio::task::yield_now().await;
        }
        if life % 3 == 0 {
            log.trim(&partition, enough).await.expect("a topic that is there can be trimmed");
        }
        end = bounds(&*log, &partition).await.end;
        change(&*log, &partition.topic, TopicChange::Delete).await;
        change(&*log, &partition.topic, create(2)).await;
    }
    is_over.store(true, Relaxed);
    let appended = future::join_all(appenders).await.into_iter().flat_map(|a| a.expect("no appender panics"));
    let mut ranges: Vec<_> = appended.map(|range| (range.partition, range.start, range.end)).collect();
    ranges.sort();
    for two in ranges.windows(2) {
        assert!(two[0].0 != two[1].0 || two[0].2 <= two[1].1, "an offset is given once: {two:?}");
    }
    reader.await.expect("no reader panics");
}
