//! The log against a model of it, which is a list: appends alone and at once, reads, trims and
//! retention, a topic that grows, is deleted and created again, calls that fail, and starts after a
//! close, a crash, a kill with a torn tail, and a power cut, in any order that proptest thinks of.
//!
//! Where an outcome is unknown the model knows what may be true, and believes what is shown first.

use std::{collections::BTreeMap, io::ErrorKind, path::Path, sync::Arc};

use event_log::{EmbeddedLog, fs::FileSystem};
use futures::future::join_all;
use model::{EventLog, LogError, Offset, Record, Timestamp, TopicChange, TopicPartition, config::LogConfig};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{RngSeed, TestRunner},
};

use crate::{
    sim::{Call, Random, Sim},
    support::{MAX_RECORD_BYTES, create_t, read_over_damage, small},
    volume::{Volume, say_figures},
};

const DIR: &str = "/log";

#[derive(Clone, Debug)]
enum Step {
    /// Appends of so many records, all under way at once.
    Append(Vec<u64>),
    Read {
        from: Index,
        max_bytes: usize,
    },
    Trim(Index),
    Retain(Index),
    /// Deleted, and created again.
    Recreate,
    /// By one partition.
    Grow,
    /// The `nth` call of this kind from here on fails.
    Fail {
        call: Call,
        nth: u64,
        error: ErrorKind,
    },
    Start(After),
}

#[derive(Clone, Copy, Debug)]
enum After {
    Close,
    Drop,
    /// And behind the last segment stands what a write left that was cut short.
    KillWithTornTail {
        seed: u64,
    },
    PowerCut {
        seed: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let call = prop::sample::select(vec![Call::Write, Call::SyncData, Call::SyncDir, Call::Other]);
    let error = prop::sample::select(vec![ErrorKind::Other, ErrorKind::StorageFull]);
    let after = prop_oneof![
        Just(After::Close),
        Just(After::Drop),
        any::<u64>().prop_map(|seed| After::KillWithTornTail { seed }),
        any::<u64>().prop_map(|seed| After::PowerCut { seed }),
    ];
    prop_oneof![
        6 => prop::collection::vec(1..60u64, 1..5).prop_map(Step::Append),
        2 => (any::<Index>(), 1..20_000usize).prop_map(|(from, max_bytes)| Step::Read { from, max_bytes }),
        1 => any::<Index>().prop_map(Step::Trim),
        1 => any::<Index>().prop_map(Step::Retain),
        1 => Just(Step::Recreate),
        1 => Just(Step::Grow),
        2 => (call, 1..6u64, error).prop_map(|(call, nth, error)| Step::Fail { call, nth, error }),
        3 => after.prop_map(Step::Start),
    ]
}

/// What the log should be.
struct Expected {
    n_partitions: u32,
    /// The last try to grow failed, and may come to light after a start.
    may_have_grown: bool,
    start: u64,
    /// A trim to here failed, and may come to light after a start.
    start_if_trimmed: u64,
    /// From offset 0 on, trimmed, deleted or not: acknowledged, or shown to a reader.
    records: Vec<Record>,
    /// Appended next, perhaps.
    unknown: Vec<Record>,
    n_written: u64,
}

impl Expected {
    fn new() -> Self {
        let (may_have_grown, start, start_if_trimmed, records, unknown, n_written) = Default::default();
        Self { n_partitions: 1, may_have_grown, start, start_if_trimmed, records, unknown, n_written }
    }

    /// No two are equal.
    fn write(&mut self) -> Record {
        self.n_written += 1;
        let text = format!("{}:", self.n_written).repeat(1 + (self.n_written % 17) as usize * 2);
        Record { value: Some(text.into()), timestamp: Timestamp(self.n_written as i64), ..Record::default() }
    }

    fn end(&self) -> u64 {
        self.records.len() as u64
    }

    fn at(&self, index: Index) -> u64 {
        self.start + index.index((self.end() - self.start + 1) as usize) as u64
    }
}

struct Run {
    sim: Arc<Sim>,
    log: EmbeddedLog,
    id: TopicPartition,
    expected: Expected,
}

fn open(sim: &Arc<Sim>) -> EmbeddedLog {
    let config = LogConfig { retention_bytes: 20_000, ..small() };
    let open = || EmbeddedLog::open_on(Arc::clone(sim) as _, Path::new(DIR), &config, MAX_RECORD_BYTES);
    // A fault that was laid may meet the first try; the second finds the folder as that left it.
    open().or_else(|_| open()).unwrap()
}

impl Run {
    async fn begin() -> Self {
        let sim = Sim::new();
        let log = open(&sim);
        let id = create_t(&log).await;
        Self { sim, log, id, expected: Expected::new() }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Append(sizes) => self.append(&sizes).await,
            Step::Read { from, max_bytes } => self.read(from, max_bytes).await,
            Step::Trim(at) => self.trim(self.expected.at(at)).await,
            Step::Retain(floor) => self.retain(self.expected.at(floor)).await,
            Step::Recreate => self.recreate().await,
            Step::Grow => self.grow().await,
            Step::Fail { call, nth, error } => self.sim.fail(call, nth, error),
            Step::Start(after) => return self.start(after).await,
        }
        self.check().await;
    }

    async fn append(&mut self, sizes: &[u64]) {
        let batches: Vec<Vec<Record>> =
            sizes.iter().map(|n| (0..*n).map(|_| self.expected.write()).collect()).collect();
        // Polled in this order, so that they stand in this order.
        let results = join_all(batches.iter().map(|records| self.log.append(&self.id, records.clone()))).await;
        for (records, result) in batches.into_iter().zip(results) {
            match result {
                Ok(range) => {
                    let end = self.expected.end();
                    assert_eq!((range.start.0, range.end.0), (end, end + records.len() as u64));
                    self.expected.records.extend(records);
                    // What failed before it was cut off, so that this could be written.
                    self.expected.unknown.clear();
                }
                Err(LogError::Unavailable { outcome_unknown: true, .. }) => self.expected.unknown.extend(records),
                Err(LogError::Unavailable { .. }) => {}
                Err(e) => panic!("{e}"),
            }
        }
    }

    async fn read(&mut self, from: Index, max_bytes: usize) {
        let from = self.expected.at(from);
        let found = self.log.fetch(&self.id, Offset(from), max_bytes).await.unwrap();
        let rest = &self.expected.records[from as usize..];
        assert_eq!(found.is_empty(), rest.is_empty(), "a read below the end gives a record at least");
        assert!(found.iter().map(|stored| &stored.record).eq(&rest[..found.len()]));
        let n_bytes: usize = found.iter().map(|stored| stored.record.size_bytes()).sum();
        assert!(found.len() == 1 || n_bytes <= max_bytes, "{n_bytes} bytes, and {max_bytes} were asked for");
    }

    async fn trim(&mut self, before: u64) {
        match self.log.trim(&self.id, Offset(before)).await {
            Ok(()) => self.expected.start = before,
            Err(_) => self.expected.start_if_trimmed = self.expected.start_if_trimmed.max(before),
        }
    }

    async fn retain(&mut self, floor: u64) {
        let retained = self.log.retain(&BTreeMap::from([(self.id.clone(), Offset(floor))]), Timestamp(0)).await;
        let start = self.log.bounds(&self.id).await.unwrap().start.0;
        let (before, highest) = (self.expected.start, self.expected.start.max(floor));
        assert!((before..=highest).contains(&start), "{start} is not in [{before}, {highest}]");
        self.expected.start = start;
        if retained.is_err() {
            self.expected.start_if_trimmed = self.expected.start_if_trimmed.max(floor);
        }
    }

    async fn recreate(&mut self) {
        match self.log.change_topic(&self.id.topic, TopicChange::Delete).await {
            Ok(()) => {}
            // One fault at a time leaves no doubt.
            Err(LogError::Unavailable { outcome_unknown: false, .. }) => return,
            Err(e) => panic!("{e}"),
        }
        let expected = &mut self.expected;
        (expected.start, expected.start_if_trimmed) = (expected.end(), 0);
        (expected.n_partitions, expected.may_have_grown) = (1, false);
        expected.unknown.clear();
        let create = || self.log.change_topic(&self.id.topic, TopicChange::Create { n_partitions: 1 });
        if create().await.is_err() {
            create().await.expect("the fault was met");
        }
    }

    async fn grow(&mut self) {
        let n_partitions = self.expected.n_partitions + 1;
        match self.log.change_topic(&self.id.topic, TopicChange::Grow { n_partitions }).await {
            Ok(()) => (self.expected.n_partitions, self.expected.may_have_grown) = (n_partitions, false),
            Err(LogError::Unavailable { .. }) => self.expected.may_have_grown = true,
            Err(e) => panic!("{e}"),
        }
    }

    async fn n_partitions(&self) -> u32 {
        self.log.describe().await.unwrap().topics[&self.id.topic]
    }

    async fn start(&mut self, after: After) {
        match after {
            // A fault may meet it; then it counts as a crash.
            After::Close => drop(self.log.close().await),
            After::Drop => {}
            After::KillWithTornTail { seed } => {
                self.sim = self.sim.after_kill();
                self.tear(seed);
            }
            After::PowerCut { seed } => self.sim = self.sim.after_power_cut(seed),
        }
        // The owner before gives the folder up first.
        self.log = open(&Sim::new());
        self.log = open(&self.sim);
        let bounds = self.log.bounds(&self.id).await.unwrap();
        let n_partitions = self.n_partitions().await;
        let expected = &mut self.expected;
        if expected.may_have_grown && n_partitions > expected.n_partitions {
            expected.n_partitions += 1;
        }
        expected.may_have_grown = false;
        assert!(bounds.start.0 == expected.start || bounds.start.0 <= expected.start_if_trimmed);
        assert!(bounds.start.0 >= expected.start, "a trim is undone");
        (expected.start, expected.start_if_trimmed) = (bounds.start.0, 0);
        let n_more = bounds.end.0.checked_sub(expected.end()).expect("what was acknowledged or shown is there");
        let more = std::mem::take(&mut expected.unknown);
        expected.records.extend(more.into_iter().take(n_more as usize));
        self.check().await;
    }

    /// Noise, and the beginning of a batch that is already there.
    fn tear(&self, seed: u64) {
        let dir = Path::new(DIR).join(self.id.to_string());
        let mut names: Vec<_> = self.sim.list(&dir).unwrap().into_iter().map(|entry| entry.name).collect();
        names.retain(|name| name.ends_with(".log"));
        names.sort();
        let Some(last) = names.last() else { return };
        let mut random = Random(seed);
        self.sim.edit(&dir.join(last), |bytes| {
            let n = random.below(bytes.len() as u64 + 1) as usize;
            let copied = bytes[..n.min(500)].to_vec();
            bytes.extend((0..random.below(100)).map(|_| random.next() as u8).collect::<Vec<_>>());
            bytes.extend(copied);
        });
    }

    async fn check(&self) {
        let reading = read_over_damage(&self.log, &self.id).await;
        assert_eq!(reading.corrupt, []);
        assert_eq!(self.n_partitions().await, self.expected.n_partitions);
        let bounds = self.log.bounds(&self.id).await.unwrap();
        assert_eq!((bounds.start.0, bounds.end.0), (self.expected.start, self.expected.end()));
        let expected = &self.expected.records[self.expected.start as usize..];
        assert!(reading.records.iter().map(|stored| &stored.record).eq(expected), "records are what was appended");
    }
}

#[test]
fn any_order_of_steps_keeps_what_the_model_keeps() {
    let volume = Volume::asked_or(200);
    let config = ProptestConfig {
        cases: u32::try_from(volume.count).unwrap(),
        rng_seed: RngSeed::Fixed(volume.seed),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let n_steps = std::cell::Cell::new(0);
    let outcome = TestRunner::new(config).run(&prop::collection::vec(step(), 1..40), |steps| {
        n_steps.set(n_steps.get() + steps.len());
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let mut run = Run::begin().await;
            for step in steps {
                run.take(step).await;
            }
        });
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
    say_figures(&format!("{} runs of {} steps as the model has it; seed {}", volume.count, n_steps.get(), volume.seed));
}
