//! Landing: whatever the order of runs, restarts and failures, the objects hold the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use engine::{
    landing::{Floors, Landing, Waiting, line, marker, objects},
    store::{self, Store},
};
use futures::TryStreamExt;
use model::{
    Bounds, Checkpoint, Ended, EventLog, LogDescription, LogError, LogId, Offset, OffsetRange, Record, Report, Stop,
    StoredRecord, Task, Timestamp, TopicChange, TopicName, TopicPartition,
    config::{Config, LandingConfig},
};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use proptest::prelude::*;
use tokio::sync::watch;
use uuid::Uuid;

use crate::flaky::{Fate, Flaky};

/// A log that can also lose and forget, as real ones do.
struct TestLog {
    id: LogId,
    partitions: Mutex<BTreeMap<TopicPartition, (Offset, Vec<Record>)>>,
    n_fetches: AtomicU64,
    /// Where topics ended when they were deleted.
    ended: Mutex<Ended>,
}

impl TestLog {
    fn new(partitions: &[&str]) -> Arc<Self> {
        let partitions = partitions.iter().map(|p| (p.parse().unwrap(), Default::default())).collect();
        let id = LogId { id: Uuid::new_v4(), epoch: 1 };
        let (n_fetches, ended) = Default::default();
        Arc::new(Self { id, partitions: Mutex::new(partitions), n_fetches, ended })
    }

    fn post(&self, partition: &str, records: impl IntoIterator<Item = Record>) {
        let mut partitions = self.partitions.lock().unwrap();
        partitions.get_mut(&of(partition)).unwrap().1.extend(records);
    }

    fn lose_after(&self, partition: &str, n: usize) {
        self.partitions.lock().unwrap().get_mut(&of(partition)).unwrap().1.truncate(n);
    }

    fn forget_before(&self, partition: &str, start: u64) {
        self.partitions.lock().unwrap().get_mut(&of(partition)).unwrap().0 = Offset(start);
    }

    /// The topic of partition 0 was deleted and created again.
    fn begin_anew_at(&self, partition: &str, start: u64) {
        let ended = [(of(partition).topic, vec![Offset(start)])];
        *self.ended.lock().unwrap() = Arc::new(ended.into());
        self.forget_before(partition, start);
    }

    fn text(&self, partition: &str) -> Vec<u8> {
        let mut lines = Vec::new();
        for record in &self.partitions.lock().unwrap()[&of(partition)].1 {
            lines.extend_from_slice(&line::canonical(record));
            lines.push(b'\n');
        }
        lines
    }
}

#[async_trait]
impl EventLog for TestLog {
    async fn describe(&self) -> Result<LogDescription, LogError> {
        let mut topics: BTreeMap<TopicName, u32> = BTreeMap::new();
        for partition in self.partitions.lock().unwrap().keys() {
            *topics.entry(partition.topic.clone()).or_default() += 1;
        }
        Ok(LogDescription { id: self.id, topics, ended: self.ended.lock().unwrap().clone() })
    }

    async fn fetch(&self, p: &TopicPartition, from: Offset, max_bytes: usize) -> Result<Vec<StoredRecord>, LogError> {
        self.n_fetches.fetch_add(1, Ordering::Relaxed);
        let bounds = self.bounds(p).await?;
        if from < bounds.start || from > bounds.end {
            return Err(LogError::OutOfRange { partition: p.clone(), asked: from, bounds });
        }
        let (mut left, mut fetched) = (max_bytes, Vec::new());
        for (n, record) in self.partitions.lock().unwrap()[p].1.iter().enumerate().skip(from.0 as usize) {
            if record.size_bytes() > left && !fetched.is_empty() {
                break;
            }
            left = left.saturating_sub(record.size_bytes());
            fetched.push(StoredRecord { offset: Offset(n as u64), record: record.clone() });
        }
        Ok(fetched)
    }

    async fn bounds(&self, p: &TopicPartition) -> Result<Bounds, LogError> {
        let partitions = self.partitions.lock().unwrap();
        let (start, records) = &partitions[p];
        Ok(Bounds { start: *start, end: Offset(records.len() as u64) })
    }

    async fn change_topic(&self, topic: &TopicName, _: TopicChange) -> Result<(), LogError> {
        Err(LogError::TopicExists(topic.clone()))
    }

    async fn append(&self, _: &TopicPartition, _: Vec<Record>) -> Result<OffsetRange, LogError> {
        Err(LogError::unavailable("tests post"))
    }

    async fn trim(&self, _: &TopicPartition, _: Offset) -> Result<(), LogError> {
        Ok(())
    }

    fn moved(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }
}

fn of(partition: &str) -> TopicPartition {
    partition.parse().unwrap()
}

fn record(n: usize, timestamp: i64) -> Record {
    Record { value: Some(format!("{{\"index\":{n}}}").into()), timestamp: Timestamp(timestamp), ..Record::default() }
}

fn records(range: std::ops::Range<usize>) -> impl Iterator<Item = Record> {
    range.map(|n| record(n, 0))
}

fn config(flush_size: usize) -> LandingConfig {
    LandingConfig { flush_size, ..Config::defaults().landing }
}

/// A clock for the idle flush that moves when it is told to.
#[derive(Clone, Default)]
struct Clock(Arc<AtomicU64>);

impl Clock {
    fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

fn lander(log: &Arc<TestLog>, store: &Store, config: &LandingConfig, clock: &Clock) -> Landing {
    let clock = clock.clone();
    Landing::new(Arc::clone(log) as Arc<dyn EventLog>, store.clone(), config.clone())
        .with_clock(move || Duration::from_millis(clock.0.load(Ordering::SeqCst)))
}

async fn run(landing: &mut Landing) -> anyhow::Result<Report> {
    landing.run(&Stop::new()).await
}

async fn waiting(landing: &mut Landing) -> Waiting {
    run(landing).await.unwrap_err().downcast().unwrap()
}

/// Runs once, lets `idle_flush_ms` pass, and runs again: everything is landed.
async fn land_all(landing: &mut Landing, clock: &Clock) -> Report {
    run(landing).await.unwrap();
    clock.advance(Config::defaults().landing.idle_flush_ms);
    run(landing).await.unwrap()
}

/// Names (without their folder) and contents of a partition's objects, in order.
async fn landed(store: &Store, partition: &str) -> Vec<(u64, Vec<u8>)> {
    let objects = store.objects();
    let listing = objects::list_from(store, &of(partition), Offset::ZERO).await.unwrap();
    let mut landed = Vec::new();
    for object in listing.objects {
        landed.push((object.start.0, objects.get(&object.key).await.unwrap().bytes().await.unwrap().to_vec()));
    }
    landed
}

/// The text of all objects of a partition, after checking that they are adjacent.
async fn text_of_adjacent(store: &Store, partition: &str) -> Vec<u8> {
    let (mut next, mut text) = (0, Vec::new());
    for (start, content) in landed(store, partition).await {
        assert_eq!(start, next, "objects of {partition} overlap or leave a gap");
        next += content.iter().filter(|b| **b == b'\n').count() as u64;
        text.extend(content);
    }
    text
}

async fn starts(store: &Store, partition: &str) -> Vec<u64> {
    landed(store, partition).await.into_iter().map(|(start, _)| start).collect()
}

async fn text_of(store: &Store, key: &str) -> String {
    let bytes = store.objects().get(&Path::from(key)).await.unwrap().bytes().await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn put(store: &Store, key: &str, text: &str) {
    store.objects().put(&Path::from(key), text.to_owned().into()).await.unwrap();
}

async fn delete(store: &Store, key: &str) {
    store.objects().delete(&Path::from(key)).await.unwrap();
}

#[tokio::test]
async fn internal_topics_are_not_landed() {
    let (log, store, clock) = (TestLog::new(&["t-0", "__t-0"]), Store::in_memory(), Clock::default());
    for partition in ["t-0", "__t-0"] {
        log.post(partition, records(0..3));
    }
    land_all(&mut lander(&log, &store, &config(10), &clock), &clock).await;
    assert_eq!(starts(&store, "t-0").await, [0]);
    assert!(starts(&store, "__t-0").await.is_empty());
}

#[tokio::test]
async fn one_record_per_object_is_byte_for_byte_what_confluents_sink_writes() {
    let row = "{\"index\":42,\"unique_id\":\"b8c63a95-6fe8-4d7f-9455-1eef3462fee0\",\"title\":\"Café \u{1F4CC} \\\"x\\\"\",\
               \"follower_count\":\"124k\",\"downloaded\":1,\"category\":\"diy-and-crafts\"}";
    let folder = tempfile::tempdir().unwrap();
    let (log, store) = (TestLog::new(&["0a3.pin-0"]), store::open(folder.path().to_str().unwrap()).unwrap());
    log.post("0a3.pin-0", records(0..42));
    log.post("0a3.pin-0", [Record { value: Some(row.into()), ..Record::default() }]);
    run(&mut lander(&log, &store, &config(1), &Clock::default())).await.unwrap();

    let file = folder.path().join("topics/0a3.pin/partition=0/0a3.pin+0+0000000042.json");
    assert_eq!(std::fs::read_to_string(file).unwrap(), format!("{row}\n"));
    assert_eq!(starts(&store, "0a3.pin-0").await, (0..43).collect::<Vec<_>>());
}

#[tokio::test]
async fn objects_end_by_count_by_time_and_by_bytes() {
    let posts = |times: &[i64]| times.iter().enumerate().map(|(n, t)| record(n, *t)).collect::<Vec<_>>();
    let count = LandingConfig { flush_size: 3, rotate_interval_ms: 1000, idle_flush_ms: 5000, max_object_bytes: 1000 };
    // `{"index":0}` and its end are 12 bytes.
    let bytes = LandingConfig { max_object_bytes: 24, ..count };
    for (claim, config, times, expected) in [
        ("by count; the rest stays open", &count, &[0; 8][..], &[0, 3][..]),
        ("by time, from the first record on", &count, &[0, 999, 1000, 1500, 2000], &[0, 2]),
        ("a clock that went back closes nothing", &count, &[5000, 0, 5999, 6000], &[0]),
        ("by bytes, none over the limit", &bytes, &[0, 0, 0, 0, 0], &[0, 2]),
        ("at the limit, none before", &count, &[0, 0], &[]),
    ] {
        let (log, store) = (TestLog::new(&["t-0"]), Store::in_memory());
        log.post("t-0", posts(times));
        let report = run(&mut lander(&log, &store, config, &Clock::default())).await.unwrap();
        assert_eq!(starts(&store, "t-0").await, expected, "{claim}");
        let text = text_of_adjacent(&store, "t-0").await;
        assert!(log.text("t-0").starts_with(&text), "{claim}");
        let n_landed = text.iter().filter(|b| **b == b'\n').count();
        let figures = [("n_objects", expected.len()), ("n_records", n_landed), ("written_bytes", text.len())];
        for (name, n) in figures.into_iter().chain([("lag_records", times.len() - n_landed)]) {
            assert_eq!(report.get(name), n as u64, "{name}: {claim}");
        }
        assert_eq!(report.did_work, !expected.is_empty());
    }
}

#[tokio::test]
async fn a_record_larger_than_an_object_gets_one_of_its_own() {
    let (log, store) = (TestLog::new(&["t-0"]), Store::in_memory());
    log.post("t-0", [record(0, 0), Record::of_value(format!("\"{}\"", "x".repeat(3 << 20))), record(2, 0)]);
    let config = LandingConfig { max_object_bytes: 100, ..config(100) };
    land_all(&mut lander(&log, &store, &config, &Clock::default()), &Clock::default()).await;
    assert_eq!(starts(&store, "t-0").await, [0, 1]);
}

#[tokio::test]
async fn a_partition_is_flushed_when_nothing_came_for_so_long() {
    let (log, store, clock) = (TestLog::new(&["t-0", "u-0"]), Store::in_memory(), Clock::default());
    let mut landing = lander(&log, &store, &config(100), &clock);
    log.post("t-0", records(0..2));
    assert!(!run(&mut landing).await.unwrap().did_work);
    clock.advance(4999);
    log.post("t-0", records(2..3));
    assert!(!run(&mut landing).await.unwrap().did_work);
    clock.advance(4999);
    assert!(!run(&mut landing).await.unwrap().did_work);
    clock.advance(1);
    let report = run(&mut landing).await.unwrap();
    assert_eq!((report.get("n_objects"), report.get("n_records"), report.get("lag_records")), (1, 3, 0));
    assert_eq!(landed(&store, "t-0").await, [(0, log.text("t-0"))]);
    clock.advance(60_000);
    assert_eq!(run(&mut landing).await.unwrap(), Report { figures: [("lag_records", 0)].into(), ..Report::default() });
}

#[tokio::test]
async fn a_steady_trickle_is_cut_by_time_without_ever_being_idle() {
    let (log, store, clock) = (TestLog::new(&["t-0"]), Store::in_memory(), Clock::default());
    let mut landing = lander(&log, &store, &config(1_000_000), &clock);
    let mut greatest_lag = 0;
    for second in 0..200 {
        log.post("t-0", [record(second, second as i64 * 1000)]);
        greatest_lag = greatest_lag.max(run(&mut landing).await.unwrap().get("lag_records"));
        clock.advance(1000);
    }
    assert_eq!(starts(&store, "t-0").await, [0, 60, 120]);
    assert!(greatest_lag <= 76, "{greatest_lag}");
}

#[tokio::test]
async fn a_run_without_anything_due_reads_neither_log_nor_store() {
    let (log, clock) = (TestLog::new(&["t-0"]), Clock::default());
    let (flaky, store) = Flaky::store();
    let mut landing = lander(&log, &store, &config(100), &clock);
    log.post("t-0", records(0..3));
    land_all(&mut landing, &clock).await;
    log.post("t-0", records(3..5));
    let before = (log.n_fetches.load(Ordering::Relaxed), flaky.n_calls());
    for _ in 0..10 {
        assert_eq!(run(&mut landing).await.unwrap().get("lag_records"), 2);
    }
    assert_eq!((log.n_fetches.load(Ordering::Relaxed), flaky.n_calls()), before);
}

/// Every object but the marker is written, and reported as failed.
fn fail_after_put(at: &Path) -> Fate {
    if at.as_ref() == "corkboard.json" { Fate::Succeeds } else { Fate::FailsAfter }
}

#[derive(Clone, Debug)]
enum Step {
    Post(Vec<(usize, i64)>),
    Run,
    Restart,
    Wait(u64),
    /// The next put happens, and is reported as failed; then the process dies.
    CrashAfterPut,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let posts = prop::collection::vec((0..40_usize, 0..90_000_i64), 1..12);
    let step = prop_oneof![
        4 => posts.prop_map(Step::Post),
        4 => Just(Step::Run),
        1 => Just(Step::Restart),
        2 => (0..12_000_u64).prop_map(Step::Wait),
        1 => Just(Step::CrashAfterPut),
    ];
    prop::collection::vec(step, 0..40)
}

/// Takes the steps, then lands all that the clock does not hold back.
async fn play(steps: &[Step], config: &LandingConfig) -> (Arc<TestLog>, Store) {
    let (log, clock) = (TestLog::new(&["t-0", "t-1"]), Clock::default());
    let (flaky, store) = Flaky::store();
    let mut landing = lander(&log, &store, config, &clock);
    for step in steps {
        match step {
            Step::Post(posts) => {
                for (n, (padding, timestamp)) in posts.iter().enumerate() {
                    let value = format!("{{\"x\":\"{}\"}}", "y".repeat(*padding));
                    let record = Record { timestamp: Timestamp(*timestamp), ..Record::of_value(value) };
                    log.post(["t-0", "t-1"][n % 2], [record]);
                }
            }
            Step::Run => drop(run(&mut landing).await.unwrap()),
            Step::Restart => landing = lander(&log, &store, config, &clock),
            Step::Wait(ms) => clock.advance(*ms),
            Step::CrashAfterPut => {
                flaky.decide(fail_after_put);
                let _ = run(&mut landing).await;
                flaky.decide(|_| Fate::Succeeds);
                landing = lander(&log, &store, config, &clock);
            }
        }
    }
    run(&mut lander(&log, &store, config, &clock)).await.unwrap();
    (log, store)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_runs_restarts_and_crashes_changes_the_content(steps in steps()) {
        let config = LandingConfig { flush_size: 5, max_object_bytes: 120, ..Config::defaults().landing };
        block_on(async {
            let (log, store) = play(&steps, &config).await;
            for partition in ["t-0", "t-1"] {
                let landed = text_of_adjacent(&store, partition).await;
                prop_assert!(log.text(partition).starts_with(&landed));
            }
            let clock = Clock::default();
            land_all(&mut lander(&log, &store, &config, &clock), &clock).await;
            for partition in ["t-0", "t-1"] {
                prop_assert_eq!(text_of_adjacent(&store, partition).await, log.text(partition));
            }
            Ok(())
        })?;
    }

    #[test]
    fn without_idle_flush_the_objects_depend_on_the_records_alone(steps in steps()) {
        let never_idle = u64::MAX / 2;
        let config = LandingConfig {
            flush_size: 5, max_object_bytes: 120, idle_flush_ms: never_idle, ..Config::defaults().landing
        };
        block_on(async {
            let (log, store) = play(&steps, &config).await;
            let at_once = Store::in_memory();
            run(&mut lander(&log, &at_once, &config, &Clock::default())).await.unwrap();
            for partition in ["t-0", "t-1"] {
                prop_assert_eq!(landed(&store, partition).await, landed(&at_once, partition).await);
            }
            Ok(())
        })?;
    }
}

fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_landers_at_once_write_every_record_once() {
    let folder = tempfile::tempdir().unwrap();
    let local = store::open(folder.path().to_str().unwrap()).unwrap();
    for store in [local, Store::in_memory()] {
        let (log, clock) = (TestLog::new(&["t-0", "t-1"]), Clock::default());
        let done = Arc::new(AtomicBool::new(false));
        // Different settings: even landers that cut in different places agree.
        let landers: Vec<_> = [7, 11]
            .map(|flush_size| {
                let config = LandingConfig { idle_flush_ms: 1, ..config(flush_size) };
                let mut landing = lander(&log, &store, &config, &clock);
                let done = Arc::clone(&done);
                tokio::spawn(async move {
                    let mut last_run = false;
                    while !last_run {
                        last_run = done.load(Ordering::SeqCst);
                        run(&mut landing).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                })
            })
            .into();
        for n in 0..100 {
            log.post(["t-0", "t-1"][n % 2], records(n * 3..n * 3 + 3));
            clock.advance(1);
            tokio::task::yield_now().await;
        }
        done.store(true, Ordering::SeqCst);
        for lander in landers {
            lander.await.unwrap();
        }
        land_all(&mut lander(&log, &store, &config(10), &clock), &clock).await;
        for partition in ["t-0", "t-1"] {
            assert_eq!(text_of_adjacent(&store, partition).await, log.text(partition));
        }
    }
}

#[tokio::test]
async fn the_object_that_another_lander_wrote_is_taken_over() {
    let (log, store, clock) = (TestLog::new(&["t-0"]), Store::in_memory(), Clock::default());
    let mut slow = lander(&log, &store, &config(100), &clock);
    log.post("t-0", records(0..3));
    run(&mut slow).await.unwrap();
    log.post("t-0", records(3..5));
    land_all(&mut lander(&log, &store, &config(100), &clock), &clock).await;
    log.post("t-0", records(5..9));
    run(&mut slow).await.unwrap();
    clock.advance(5000);
    let report = run(&mut slow).await.unwrap();
    assert_eq!((report.get("n_taken_over"), report.get("n_records")), (1, 4));
    assert_eq!(starts(&store, "t-0").await, [0, 5]);
    assert_eq!(text_of_adjacent(&store, "t-0").await, log.text("t-0"));
}

#[tokio::test]
async fn a_put_that_failed_but_happened_is_not_repeated() {
    let (log, clock) = (TestLog::new(&["t-0"]), Clock::default());
    let (flaky, store) = Flaky::store();
    let mut landing = lander(&log, &store, &config(2), &clock);
    log.post("t-0", records(0..5));
    flaky.decide(fail_after_put);
    let failed = waiting(&mut landing).await;
    assert!(failed.to_string().contains("t+0+0000000000.json cannot be written"), "{failed}");
    flaky.decide(|_| Fate::Succeeds);
    assert_eq!(run(&mut landing).await.unwrap().get("n_records"), 2);
    assert_eq!(starts(&store, "t-0").await, [0, 2]);
}

/// Each case breaks partition `bad-0` in its own way after six of its records were landed in
/// objects of two; the other partition must go on, and the error must say what to do.
#[tokio::test]
async fn a_partition_that_cannot_go_on_says_why_and_the_others_go_on() {
    let last = "topics/bad/partition=0/bad+0+0000000004.json";
    let next = "topics/bad/partition=0/bad+0+0000000006.json";
    for (case, words) in [
        (
            "foreign bytes under the next name",
            vec![next, "does not hold what the log holds at offset 7", "move it away"],
        ),
        ("a torn object under the next name", vec![next, "torn at line 2", "move it away"]),
        ("the last object was changed", vec![last, "does not hold what the log holds at offset 5", "move it away"]),
        ("the last object was emptied", vec![last, "torn at line 1: it is empty"]),
        ("the log lost records", vec!["holds offset 5, but the log of bad-0 ends at 5", "restore the log's folder"]),
        ("the log was trimmed", vec!["[6, 8) were trimmed before they were landed", "\"begin_at\": {\"bad-0\": 8}"]),
    ] {
        let (log, store, clock) = (TestLog::new(&["bad-0", "good-0"]), Store::in_memory(), Clock::default());
        log.post("bad-0", records(0..6));
        let mut landing = lander(&log, &store, &config(2), &clock);
        run(&mut landing).await.unwrap();
        log.post("bad-0", records(6..9));
        log.post("good-0", records(0..4));
        match case {
            "foreign bytes under the next name" => put(&store, next, "{\"index\":6}\n{\"index\":70}\n").await,
            "a torn object under the next name" => put(&store, next, "{\"index\":6}\n{\"ind").await,
            "the last object was changed" => put(&store, last, "{\"index\":4}\n{\"index\":50}\n").await,
            "the last object was emptied" => put(&store, last, "").await,
            "the log lost records" => log.lose_after("bad-0", 5),
            _ => log.forget_before("bad-0", 8),
        }
        // A running lander and one that starts now see the same.
        let hinted = !case.starts_with("the last");
        for mut landing in hinted.then_some(landing).into_iter().chain([lander(&log, &store, &config(2), &clock)]) {
            let waiting = waiting(&mut landing).await;
            let told = waiting.to_string();
            let running = case == "the log lost records" && told.contains("landing has come to offset 6");
            assert!(running || words.iter().all(|w| told.contains(w)), "{case}: {told}");
            assert_eq!(waiting.partitions.len(), 1, "{case}");
            assert_eq!(text_of_adjacent(&store, "good-0").await, log.text("good-0"), "{case}");
        }
    }
}

#[tokio::test]
async fn after_the_foreign_object_was_moved_away_landing_goes_on() {
    let (log, store, clock) = (TestLog::new(&["t-0"]), Store::in_memory(), Clock::default());
    let mut landing = lander(&log, &store, &config(2), &clock);
    log.post("t-0", records(0..4));
    run(&mut landing).await.unwrap();
    let foreign = "topics/t/partition=0/t+0+0000000004.json";
    put(&store, foreign, "what is this\n").await;
    log.post("t-0", records(4..6));
    waiting(&mut landing).await;
    delete(&store, foreign).await;
    run(&mut landing).await.unwrap();
    assert_eq!(text_of_adjacent(&store, "t-0").await, log.text("t-0"));
}

#[tokio::test]
async fn an_object_taken_away_under_a_running_lander_is_written_again() {
    let (log, store, clock) = (TestLog::new(&["t-0"]), Store::in_memory(), Clock::default());
    let mut landing = lander(&log, &store, &config(2), &clock);
    log.post("t-0", records(0..4));
    run(&mut landing).await.unwrap();
    delete(&store, "topics/t/partition=0/t+0+0000000002.json").await;
    log.post("t-0", records(4..6));
    run(&mut landing).await.unwrap();
    assert_eq!(text_of_adjacent(&store, "t-0").await, log.text("t-0"));
}

#[tokio::test]
async fn a_known_gap_is_passed_when_a_person_says_so() {
    let (log, store, clock) = (TestLog::new(&["t-0"]), Store::in_memory(), Clock::default());
    log.post("t-0", records(0..9));
    log.forget_before("t-0", 7);
    let mut landing = lander(&log, &store, &config(1), &clock);
    let told = waiting(&mut landing).await.to_string();
    assert!(told.contains("the records [0, 7) were trimmed"), "{told}");
    put(&store, "corkboard.json", &format!("{{\"format\":1,\"log\":\"{}\",\"begin_at\":{{\"t-0\":7}}}}", log.id.id))
        .await;
    run(&mut landing).await.unwrap();
    assert_eq!(starts(&store, "t-0").await, [7, 8]);
}

#[tokio::test]
async fn what_a_deletion_took_is_passed_and_told_and_what_was_trimmed_is_not() {
    let (log, store, clock) = (TestLog::new(&["t-0"]), Store::in_memory(), Clock::default());
    log.post("t-0", records(0..4));
    let mut landing = lander(&log, &store, &config(2), &clock);
    run(&mut landing).await.unwrap();
    let marker = text_of(&store, "corkboard.json").await;
    log.post("t-0", records(4..9));
    log.begin_anew_at("t-0", 7);
    // A running lander, and one that starts now and finds it noted.
    let report = run(&mut landing).await.unwrap();
    assert_eq!((report.get("n_records_gone"), report.get("n_records"), report.did_work), (3, 2, true));
    assert!(report.notices[0].contains("t-0: the records [4, 7) were deleted"), "{:?}", report.notices);
    assert_eq!(run(&mut lander(&log, &store, &config(2), &clock)).await.unwrap().notices, Vec::<String>::new());
    assert_eq!(starts(&store, "t-0").await, [0, 2, 7]);
    // What people may be writing at the same time is not written over.
    assert_eq!(text_of(&store, "corkboard.json").await, marker);
    assert!(marker::read(&*store.objects()).await.unwrap().unwrap().knows_hole_before(&of("t-0"), Offset(7)));

    // The log may begin later still, as after a folder that was set back: that is for people to say.
    log.post("t-0", records(9..20));
    log.begin_anew_at("t-0", 11);
    log.forget_before("t-0", 13);
    let told = waiting(&mut landing).await.to_string();
    assert!(told.contains("the records [11, 13) were trimmed before they were landed"), "{told}");
}

/// As landing once noted a deletion: in the marker itself.
#[tokio::test]
async fn a_deletion_that_the_marker_tells_is_known_beside_those_noted_since() {
    let (log, store, clock) = (TestLog::new(&["t-0", "u-0"]), Store::in_memory(), Clock::default());
    let marker = format!("{{\"format\":1,\"log\":\"{}\",\"after_deletion\":{{\"t-0\":[3,7]}}}}", log.id.id);
    put(&store, "corkboard.json", &marker).await;
    for partition in ["t-0", "u-0"] {
        log.post(partition, records(0..9));
        log.forget_before(partition, 7);
    }
    let ended = ["t-0", "u-0"].map(|partition| (of(partition).topic, vec![Offset(7)]));
    *log.ended.lock().unwrap() = Arc::new(ended.into());
    // Another log's, and what somebody left there.
    put(&store, &format!("after_deletion/{}/u-0@5.json", Uuid::nil()), "{}").await;
    for name in ["u-0@6.txt", "nothing", "u-0@.json", "@7.json"] {
        put(&store, &format!("after_deletion/{}/{name}", log.id.id), "{}").await;
    }
    let report = run(&mut lander(&log, &store, &config(1), &clock)).await.unwrap();
    assert_eq!((report.get("n_records_gone"), report.get("n_records")), (7, 4), "{:?}", report.notices);
    assert!(report.notices.iter().all(|notice| notice.contains("u-0: the records [0, 7)")), "{:?}", report.notices);
    let known = marker::read(&*store.objects()).await.unwrap().unwrap();
    for (partition, offset, is_known) in
        [("t-0", 3, true), ("t-0", 7, true), ("u-0", 7, true), ("u-0", 5, false), ("u-0", 6, false), ("t-0", 8, false)]
    {
        assert_eq!(known.knows_hole_before(&of(partition), Offset(offset)), is_known, "{partition} {offset}");
    }
    assert_eq!(text_of(&store, "corkboard.json").await, marker);
    let listing = objects::list(&store, None, &Checkpoint::start_of(LogId::NONE)).await.unwrap();
    assert_eq!((listing.objects.len(), listing.n_foreign), (4, 0));
}

#[tokio::test]
async fn a_landing_folder_belongs_to_one_log() {
    let (log, other, clock) = (TestLog::new(&["t-0"]), TestLog::new(&["t-0"]), Clock::default());
    let written = Store::in_memory();
    run(&mut lander(&log, &written, &config(1), &clock)).await.unwrap();
    let [newer, damaged, foreign] = [(); 3].map(|()| Store::in_memory());
    put(&newer, "corkboard.json", "{\"format\":2,\"log\":7}").await;
    put(&damaged, "corkboard.json", "{\"form").await;
    put(&foreign, "topics/t/partition=0/t+0+0000000000.json", "{}\n").await;
    for (store, words) in [
        (&written, ["belongs to log", "choose another landing folder"]),
        (&newer, ["has format 2", "use the version that wrote it"]),
        (&damaged, ["corkboard.json", "damaged"]),
        (&foreign, ["but no corkboard.json", "choose an empty folder"]),
    ] {
        let told = run(&mut lander(&other, store, &config(1), &clock)).await.unwrap_err().to_string();
        assert!(words.iter().all(|w| told.contains(w)), "{told}");
    }
    // A later epoch of the same log is the same log.
    let id = LogId { epoch: 7, ..log.id };
    let later =
        Arc::new(TestLog { id, ended: Default::default(), partitions: Mutex::default(), n_fetches: AtomicU64::new(0) });
    run(&mut lander(&later, &written, &config(1), &clock)).await.unwrap();
}

#[tokio::test]
async fn a_landing_folder_emptied_under_a_running_lander_is_filled_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = store::open(folder.path().to_str().unwrap()).unwrap();
    let (log, clock) = (TestLog::new(&["t-0"]), Clock::default());
    let mut landing = lander(&log, &store, &config(2), &clock);
    log.post("t-0", records(0..4));
    run(&mut landing).await.unwrap();
    std::fs::remove_dir_all(folder.path().join("topics")).unwrap();
    std::fs::remove_file(folder.path().join("corkboard.json")).unwrap();
    log.post("t-0", records(4..6));
    run(&mut landing).await.unwrap();
    assert_eq!(text_of_adjacent(&store, "t-0").await, log.text("t-0"));
}

#[tokio::test]
async fn a_stop_is_heeded_between_objects() {
    let (log, store) = (TestLog::new(&["t-0"]), Store::in_memory());
    log.post("t-0", records(0..4));
    let stop = Stop::new();
    stop.cancel();
    let mut landing = lander(&log, &store, &config(2), &Clock::default());
    assert!(!landing.run(&stop).await.unwrap().did_work);
    assert_eq!(run(&mut landing).await.unwrap().get("n_objects"), 2);
}

#[tokio::test]
async fn the_store_tells_how_far_landing_has_come() {
    let (log, store, clock) = (TestLog::new(&["t-0", "t-1", "u-0"]), Store::in_memory(), Clock::default());
    assert_eq!(Landing::checkpoint(&store).await.unwrap(), Checkpoint::start_of(LogId::NONE));
    log.post("t-0", records(0..5));
    log.post("t-1", records(0..1));
    land_all(&mut lander(&log, &store, &config(3), &clock), &clock).await;
    let (exact, floors) = (Landing::checkpoint(&store).await.unwrap(), Floors::of(store.clone()).read().await.unwrap());
    assert_eq!(exact.log.id, log.id.id);
    assert_eq!(exact.next, [(of("t-0"), Offset(5)), (of("t-1"), Offset(1))].into());
    assert_eq!(floors.next, [(of("t-0"), Offset(3)), (of("t-1"), Offset(0))].into());
}

#[tokio::test]
async fn lists_tell_landing_objects_from_foreign_ones() {
    for topics_dir in ["topics/", ""] {
        let store = Store::in_memory();
        for name in [
            "pin/partition=0/pin+0+0.json",
            "pin/partition=0/pin+0+10.json",
            "pin/partition=0/pin+0+9.json",
            "pin/partition=0/pin+0+0000000010.json",
            "pin/partition=1/pin+1+0000000003.json",
            "pin/partition=1/_SUCCESS",
            "geo/partition=0/geo+0+0000000000.json",
        ] {
            put(&store, &format!("{topics_dir}{name}"), "{}\n").await;
        }
        put(&store, "corkboard.json", "{}").await;
        let list = async |topics: Option<&[&str]>, next: u64| {
            let topics: Option<BTreeSet<TopicName>> = topics.map(|t| t.iter().map(|t| t.parse().unwrap()).collect());
            let mut from = Checkpoint::start_of(LogId::NONE);
            from.next.insert(of("pin-0"), Offset(next));
            objects::list(&store, topics.as_ref(), &from).await.unwrap()
        };
        let all = list(None, 0).await;
        let found: Vec<_> = all.objects.iter().map(|o| format!("{}:{}", o.partition, o.start)).collect();
        assert_eq!(found, ["geo-0:0", "pin-0:0", "pin-0:9", "pin-0:10", "pin-1:3"]);
        let foreign: Vec<_> = all.foreign.iter().map(ToString::to_string).collect();
        assert_eq!((all.n_foreign, foreign.len()), (2, 2));
        assert!(foreign[0].contains("another object of pin-0 starts at offset 10"), "{foreign:?}");
        assert!(foreign[1].contains("_SUCCESS is no landing object"), "{foreign:?}");

        for (next, expected) in [(1, [0, 9, 10].as_slice()), (9, &[9, 10]), (10, &[10]), (11, &[10]), (99, &[10])] {
            let listed = list(Some(&["pin"]), next).await;
            let starts = listed.objects.iter().filter(|o| o.partition == of("pin-0")).map(|o| o.start.0);
            // The last object before `next` may reach beyond it, unless one starts just there.
            assert!(starts.eq(expected.iter().copied()), "from {next}");
        }
        assert_eq!(list(Some(&["geo"]), 0).await.objects.len(), 1);
    }
}

#[tokio::test]
async fn lines_are_read_in_blocks_with_their_offsets_and_torn_ends_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let local = store::open(folder.path().to_str().unwrap()).unwrap();
    let long = "é".repeat(400_000);
    let whole = format!("{{}}\n\"{long}\"\n\nnull\n");
    for store in [local, Store::in_memory()] {
        for (text, expected) in [
            (
                whole.clone().into_bytes(),
                Ok(vec!["{}".to_owned(), format!("\"{long}\""), String::new(), "null".to_owned()]),
            ),
            (b"{}\n".to_vec(), Ok(vec!["{}".to_owned()])),
            (b"".to_vec(), Err((1, "it is empty"))),
            (b"{}".to_vec(), Err((1, "its last line has no end"))),
            (format!("{whole}{{").into_bytes(), Err((5, "its last line has no end"))),
            (vec![0; 484], Err((1, "its last line has no end"))),
            (b"{}\n{}\n\"\xff\"\n".to_vec(), Err((3, "it is not UTF-8"))),
        ] {
            let key = objects::key_of(&of("t-0"), Offset(40));
            store.objects().put(&key, text.clone().into()).await.unwrap();
            let object = &objects::list_from(&store, &of("t-0"), Offset(0)).await.unwrap().objects[0];
            assert_eq!(object.size_bytes, text.len() as u64);
            let mut lines = objects::lines(&*store.objects(), object).await.unwrap();
            let mut read = Vec::new();
            let end = loop {
                match lines.next_block().await {
                    Ok(None) => break Ok(read),
                    Ok(Some(block)) => {
                        for (offset, line) in block.lines() {
                            assert_eq!(offset, Offset(40).plus(read.len()));
                            read.push(String::from_utf8(line.to_vec()).unwrap());
                        }
                    }
                    Err(objects::ReadError::Torn(torn)) => {
                        assert!(torn.to_string().contains("t+0+0000000040.json"));
                        break Err((torn.line, torn.reason));
                    }
                    Err(e) => panic!("{e}"),
                }
            };
            let n_lines = objects::count_lines(&*store.objects(), object).await.ok();
            assert_eq!(n_lines, end.as_ref().ok().map(|lines| lines.len() as u64));
            assert_eq!(end, expected);
        }
    }
}

#[tokio::test]
async fn nothing_but_the_marker_and_the_objects_is_written() {
    let (log, store, clock) = (TestLog::new(&["t-0"]), Store::in_memory(), Clock::default());
    let values = [None, Some(&b"\xff"[..]), Some(b"{\n \"a\": 1\n}")];
    log.post("t-0", values.map(|value| Record { value: value.map(Into::into), ..Record::default() }));
    land_all(&mut lander(&log, &store, &config(10), &clock), &clock).await;
    let keys: Vec<_> = store.objects().list(None).map_ok(|o| o.location.to_string()).try_collect().await.unwrap();
    assert_eq!(keys, ["corkboard.json", "topics/t/partition=0/t+0+0000000000.json"]);
    assert_eq!(landed(&store, "t-0").await, [(0, b"null\n\"/w==\"\n{\"a\":1}\n".to_vec())]);
}
