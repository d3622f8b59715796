//! Exactly once in the sinks: commits whose outcome is unknown, many writers at once, two speed
//! layers on the same tables by accident. No row is lost or doubled; trouble only costs time.

use std::{
    collections::BTreeMap,
    env,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use engine::{
    maintain::Compact,
    sink::{CommitError, Committed, DeltaSink, Sink, conformance},
    store::{self, Store},
    table::{TableDef, Tables},
};
use model::{Scope, Stop, Task, config::Config};
use object_store::path::Path;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    flaky::{Fate, Flaky},
    pipeline::{Pipeline, pin},
    random::Random,
    sink::rows_of,
};

const SEED: u64 = 20_261_121;
const N_WRITERS: u64 = 8;
/// The partition that all writers take by accident, beside their own.
const SHARED: &str = "shared-0";

/// One in four writes to a Delta log meets one of the four kinds of trouble.
fn trouble(seed: u64) -> impl Fn(&Path) -> Fate + Send + Sync {
    let random = Random::new(seed);
    move |at| match random.below(16) {
        _ if !at.as_ref().contains("_delta_log") => Fate::Succeeds,
        0 => Fate::FailsBefore,
        1 => Fate::FailsAfter,
        2 => Fate::SaysThatItExists,
        3 => Fate::HappensLater,
        _ => Fate::Succeeds,
    }
}

/// A table that many sinks are opened on.
struct Target {
    tables: Tables,
    def: TableDef,
}

impl Target {
    fn in_store(store: &Store) -> Self {
        let def = TableDef {
            path: "realtime/x".to_owned(),
            schema: conformance::schema(),
            definition: "one".to_owned(),
            log: Uuid::from_u128(7),
        };
        Self { tables: Tables::new(store, &Config::defaults().maintain).unwrap(), def }
    }

    fn sink(&self) -> DeltaSink {
        DeltaSink::new(self.tables.clone(), self.def.clone(), Config::defaults().batch)
    }

    /// The offsets in the table by partition, in order.
    async fn offsets(&self) -> BTreeMap<String, Vec<u64>> {
        let mut offsets: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (partition, offset) in rows_of(&self.tables, &self.def.path).await {
            offsets.entry(partition).or_default().push(offset);
        }
        offsets.values_mut().for_each(|o| o.sort_unstable());
        offsets
    }
}

/// What a writer met.
#[derive(Default)]
struct Met {
    n_done: AtomicU64,
    n_already_there: AtomicU64,
    n_overtaken: AtomicU64,
    n_failed: AtomicU64,
}

impl Met {
    fn note(&self, outcome: &Result<Committed, CommitError>) {
        let figure = match outcome {
            Ok(Committed::Done) => &self.n_done,
            Ok(Committed::AlreadyThere) => &self.n_already_there,
            Err(CommitError::Overtaken { .. } | CommitError::NotAdjacent { .. }) => &self.n_overtaken,
            Err(CommitError::Failed(_)) => &self.n_failed,
        };
        figure.fetch_add(1, Ordering::SeqCst);
    }

    fn figures(&self) -> [u64; 4] {
        [&self.n_done, &self.n_already_there, &self.n_overtaken, &self.n_failed].map(|n| n.load(Ordering::SeqCst))
    }
}

/// Commits ranges of one partition, each after asking where to go on, until it has `n` offsets.
async fn fill(sink: &mut DeltaSink, partition: &str, n: u64, step: u64, met: &Met) {
    let id = [partition.parse().unwrap()];
    loop {
        let Ok(at) = sink.checkpoint(&id).await else {
            met.n_failed.fetch_add(1, Ordering::SeqCst);
            continue;
        };
        let next = at.next_of(&id[0]).0;
        if next >= n {
            return;
        }
        met.note(&sink.commit(conformance::batch(&[(partition, next, (next + step).min(n))])).await);
    }
}

#[tokio::test]
async fn commits_of_unknown_outcome_are_taken_once() {
    const N: u64 = 150;
    let (flaky, store) = Flaky::store();
    let target = Target::in_store(&store);
    flaky.decide(trouble(SEED));
    let met = Met::default();
    fill(&mut target.sink(), SHARED, N, 1, &met).await;
    let [n_done, n_already_there, _, n_failed] = met.figures();
    assert!(n_already_there > 10 && n_failed > 5, "{n_done} {n_already_there} {n_failed}");
    assert_eq!(target.offsets().await[SHARED], (0..N).collect::<Vec<_>>());
}

/// So many commits per writer to a partition of its own, and now and then one to the shared one.
async fn write_at_once(target: Arc<Target>, n_commits: u64) -> Arc<Met> {
    let met = Arc::new(Met::default());
    let mut writers = JoinSet::new();
    for writer in 0..N_WRITERS {
        let (target, met) = (Arc::clone(&target), Arc::clone(&met));
        writers.spawn(async move {
            let mut sink = target.sink();
            for n in (10..=n_commits).step_by(10) {
                fill(&mut sink, &format!("own-{writer}"), n, 1, &met).await;
                fill(&mut sink, SHARED, n, 1 + writer % 3, &met).await;
            }
        });
    }
    while let Some(written) = writers.join_next().await {
        written.unwrap();
    }
    met
}

async fn assert_each_once(target: &Target, n_commits: u64) {
    let expected: Vec<u64> = (0..n_commits).collect();
    let offsets = target.offsets().await;
    assert_eq!(offsets.len() as u64, N_WRITERS + 1, "{:?}", offsets.keys());
    for (partition, offsets) in offsets {
        assert_eq!(offsets, expected, "{partition}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_writers_lose_and_double_nothing() {
    const N_COMMITS: u64 = 20;
    let (flaky, store) = Flaky::store();
    let target = Arc::new(Target::in_store(&store));
    flaky.decide(trouble(SEED));
    let met = write_at_once(Arc::clone(&target), N_COMMITS).await;
    let [_, n_already_there, n_overtaken, _] = met.figures();
    assert!(n_already_there + n_overtaken > 0 && flaky.n_failures() > 10, "{:?}", met.figures());
    assert_each_once(&target, N_COMMITS).await;
}

/// Both run until the log is taken, while it grows and the table is compacted under them.
async fn two_speed_layers(seed: u64, n_records: u64) -> (u64, u64) {
    let (flaky, store) = Flaky::store();
    let mut pipeline = Pipeline::new(&store, 2).await;
    pipeline.config.speed.max_rows = 7;
    pipeline.config.maintain.compact_min_files = 3;
    flaky.decide(trouble(seed));
    let stop = Stop::new();
    let n_troubles = Arc::new(AtomicU64::new(0));
    let mut compact = Compact {
        tables: pipeline.tables.clone(),
        definitions: Arc::clone(&pipeline.definitions),
        config: pipeline.config.maintain.clone(),
        batch: pipeline.config.batch.clone(),
        spill: pipeline.scratch().to_owned(),
    };
    let tasks: [Box<dyn Task>; 2] = [Box::new(pipeline.speed()), Box::new(pipeline.speed())];
    let mut running = JoinSet::new();
    for mut task in tasks {
        let (stop, n_troubles) = (stop.clone(), Arc::clone(&n_troubles));
        running.spawn(async move {
            // Once more after the stop, which the last records came before.
            let mut is_last = false;
            loop {
                match task.run(&Stop::new()).await {
                    Ok(_) if is_last => return,
                    Ok(_) => is_last = stop.is_cancelled(),
                    Err(_) => drop(n_troubles.fetch_add(1, Ordering::SeqCst)),
                }
                tokio::task::yield_now().await;
            }
        });
    }
    // Every fifth record is a reject; each partition gets every second request.
    for n in 0..n_records / 10 {
        let record = |i: u64| if i % 5 == 4 { "[]".to_owned() } else { pin(n * 10 + i, "art") };
        pipeline.post((n % 2) as u32, (0..10).map(record)).await;
        if n % 5 == 0 {
            let _ = compact.run(&stop).await;
        }
    }
    stop.cancel();
    while let Some(ran) = running.join_next().await {
        ran.unwrap();
    }
    flaky.decide(|_| Fate::Succeeds);
    for partition in 0..2 {
        let end = n_records / 20 * 10;
        let (rejects, rows): (Vec<u64>, Vec<u64>) = (0..end).partition(|offset| offset % 5 == 4);
        let of = |table: &'static str| rows_of(&pipeline.tables, table);
        let offsets = |rows: Vec<(String, u64)>| {
            let id = Pipeline::partition(partition).to_string();
            let mut offsets: Vec<u64> = rows.into_iter().filter(|(p, _)| *p == id).map(|(_, o)| o).collect();
            offsets.sort_unstable();
            offsets
        };
        assert_eq!(offsets(of("realtime/pin").await), rows, "rows of partition {partition}");
        assert_eq!(offsets(of("realtime/pin_rejected").await), rejects, "rejects of partition {partition}");
        assert_eq!(pipeline.offsets("positions", Scope::Merged, partition).await, rows);
    }
    (flaky.n_failures(), n_troubles.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_speed_layers_on_the_same_tables_take_every_record_once() {
    let (n_failures, _) = two_speed_layers(SEED, 400).await;
    assert!(n_failures > 5, "the store failed {n_failures} times only");
}

/// The long form: `cargo xtask prove sinks` says how many commits each of the eight writers makes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "as long as asked for: cargo xtask prove sinks"]
async fn sinks_hold_through_as_many_commits_as_asked_for() {
    let number = |name: &str| -> u64 { env::var(name).unwrap_or_else(|e| panic!("{name}: {e}")).parse().unwrap() };
    let (n_commits, seed) = (number("CORKBOARD_PROVE_COUNT"), number("CORKBOARD_PROVE_SEED"));
    let began = Instant::now();
    let mut total = [0; 4];
    let mut n_failures = 0;
    // A folder, as it is; and a store that fails.
    let folder = tempfile::tempdir().unwrap();
    let on_disk = store::open(folder.path().to_str().unwrap()).unwrap();
    let (flaky, failing) = Flaky::store();
    flaky.decide(trouble(seed));
    for store in [on_disk, failing] {
        let target = Arc::new(Target::in_store(&store));
        let met = write_at_once(Arc::clone(&target), n_commits).await;
        assert_each_once(&target, n_commits).await;
        total.iter_mut().zip(met.figures()).for_each(|(total, n)| *total += n);
    }
    n_failures += flaky.n_failures();
    let n_records = n_commits * N_WRITERS;
    n_failures += two_speed_layers(seed, n_records).await.0;
    let [n_done, n_already_there, n_overtaken, n_failed] = total;
    println!(
        "\nsinks: {N_WRITERS} writers made {n_done} commits on a folder and on a store that failed {n_failures} times; \
         {n_already_there} were there already, {n_overtaken} overtaken, {n_failed} tried anew; two speed layers took \
         {n_records} records; none lost, none doubled, {:.0} s",
        began.elapsed().as_secs_f64()
    );
}
