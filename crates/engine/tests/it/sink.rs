//! Both sinks pass the conformance suite; the Delta sink's rows are read back by a table scan.

use std::time::{Duration, Instant};

use datafusion::{
    arrow::{
        array::AsArray,
        datatypes::{Int32Type, Int64Type},
    },
    prelude::SessionContext,
};
use engine::{
    sink::{DeltaSink, MemorySink, Sink, conformance},
    store,
    table::{TableDef, Tables},
};
use futures::{FutureExt, future::BoxFuture};
use model::{
    LogId,
    config::{Config, MaintainConfig},
};
use object_store::ObjectStoreExt;
use tempfile::TempDir;
use uuid::Uuid;

struct Memory(MemorySink);

impl conformance::Harness for Memory {
    fn open(&self) -> BoxFuture<'_, Box<dyn Sink>> {
        async { Box::new(self.0.clone()) as Box<dyn Sink> }.boxed()
    }

    fn read(&self) -> BoxFuture<'_, Vec<(String, u64)>> {
        async { self.0.batches().iter().flat_map(|b| positions(&b.rows)).collect() }.boxed()
    }
}

struct Delta {
    tables: Tables,
    def: TableDef,
    _folder: Option<TempDir>,
}

impl Delta {
    fn in_store(store: &store::Store, folder: Option<TempDir>) -> Self {
        let config = Config::defaults();
        let def = TableDef {
            path: "realtime/x".to_owned(),
            schema: conformance::schema(),
            definition: "one".to_owned(),
            log: Uuid::from_u128(7),
        };
        Self { tables: Tables::new(store, &config.maintain).unwrap(), def, _folder: folder }
    }

    fn on_disk() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = store::open(folder.path().to_str().unwrap()).unwrap();
        Self::in_store(&store, Some(folder))
    }
}

impl conformance::Harness for Delta {
    fn open(&self) -> BoxFuture<'_, Box<dyn Sink>> {
        let sink = DeltaSink::new(self.tables.clone(), self.def.clone(), Config::defaults().batch);
        async { Box::new(sink) as Box<dyn Sink> }.boxed()
    }

    fn read(&self) -> BoxFuture<'_, Vec<(String, u64)>> {
        rows_of(&self.tables, &self.def.path).boxed()
    }
}

/// The positions of a table's rows, in no order.
pub(crate) async fn rows_of(tables: &Tables, path: &str) -> Vec<(String, u64)> {
    let table = tables.open(path).await.unwrap().unwrap();
    let context = SessionContext::new();
    let frame = context.read_table(table.scan(&context).await.unwrap()).unwrap();
    frame.collect().await.unwrap().iter().flat_map(positions).collect()
}

fn positions(rows: &datafusion::arrow::array::RecordBatch) -> Vec<(String, u64)> {
    let topics = rows.column_by_name("_topic").unwrap().as_string_view();
    let partitions = rows.column_by_name("_partition").unwrap().as_primitive::<Int32Type>();
    let offsets = rows.column_by_name("_offset").unwrap().as_primitive::<Int64Type>();
    let position = |i| (format!("{}-{}", topics.value(i), partitions.value(i)), offsets.value(i) as u64);
    (0..rows.num_rows()).map(position).collect()
}

#[tokio::test]
async fn the_memory_sink_conforms() {
    conformance::run(|| Memory(MemorySink::new(LogId::NONE))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_delta_sink_conforms_on_disk() {
    conformance::run(Delta::on_disk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_delta_sink_conforms_in_memory() {
    conformance::run(|| Delta::in_store(&store::Store::in_memory(), None)).await;
}

#[tokio::test]
async fn a_table_of_another_log_is_refused() {
    let harness = Delta::on_disk();
    conformance::Harness::open(&harness).await.commit(conformance::batch(&[("a-0", 0, 1)])).await.unwrap();
    let def = TableDef { log: Uuid::from_u128(8), ..harness.def.clone() };
    let error = harness.tables.open_or_create(&def).await.err().unwrap().to_string();
    assert!(error.contains("is fed by the log") && error.contains("move the table away"), "{error}");
}

#[tokio::test]
async fn forgetting_rows_keeps_the_checkpoint_and_moves_the_floor() {
    let harness = Delta::on_disk();
    let mut sink = conformance::Harness::open(&harness).await;
    sink.commit(conformance::batch(&[("a-0", 0, 5), ("b-0", 0, 2)])).await.unwrap();
    let mut table = harness.tables.open(&harness.def.path).await.unwrap().unwrap();
    let log = LogId { id: harness.def.log, epoch: 0 };
    let partitions: [model::TopicPartition; 2] = ["a-0", "b-0"].map(|p| p.parse().unwrap());
    let floors = [(partitions[0].clone(), model::Offset(3))].into();
    assert_eq!(table.forget_below(log, &floors).await.unwrap(), 3);
    let mut again = harness.tables.open(&harness.def.path).await.unwrap().unwrap();
    assert_eq!(again.floors(log, &partitions).await.unwrap().next_of(&partitions[0]), model::Offset(3));
    assert_eq!(again.checkpoint(log, &partitions).await.unwrap().next_of(&partitions[0]), model::Offset(5));
    let mut left = conformance::Harness::read(&harness).await;
    left.sort();
    let expected = [("a-0", 3), ("a-0", 4), ("b-0", 0), ("b-0", 1)].map(|(p, o)| (p.to_owned(), o));
    assert_eq!(left, expected);
    sink.commit(conformance::batch(&[("a-0", 5, 6)])).await.unwrap();
}

/// A reader that did not look for so long that the commits it would go on from are gone.
#[tokio::test]
async fn a_table_whose_log_was_cleaned_meanwhile_is_read_on() {
    let store = store::Store::in_memory();
    let config = MaintainConfig { checkpoint_commits: 2, commit_retention_ms: 1, ..Config::defaults().maintain };
    let harness = Delta { tables: Tables::new(&store, &config).unwrap(), ..Delta::in_store(&store, None) };
    let mut sink = conformance::Harness::open(&harness).await;
    sink.commit(conformance::batch(&[("a-0", 0, 1)])).await.unwrap();
    let mut reader = harness.tables.open(&harness.def.path).await.unwrap().unwrap();
    let (log, partitions) = (LogId { id: harness.def.log, epoch: 0 }, ["a-0".parse().unwrap()]);
    assert_eq!(reader.checkpoint(log, &partitions).await.unwrap().next_of(&partitions[0]), model::Offset(1));
    let commits = harness.tables.objects("realtime/x/_delta_log/").unwrap();
    let next_commit = object_store::path::Path::from("00000000000000000002.json");
    let patience = Instant::now() + Duration::from_secs(60);
    let mut n = 1;
    while n < 4 || commits.head(&next_commit).await.is_ok() {
        assert!(Instant::now() < patience, "the Delta log was never cleaned");
        sink.commit(conformance::batch(&[("a-0", n, n + 1)])).await.unwrap();
        n += 1;
    }
    reader.refresh().await.unwrap();
    assert_eq!(reader.checkpoint(log, &partitions).await.unwrap().next_of(&partitions[0]), model::Offset(n));
    assert_eq!(conformance::Harness::read(&harness).await.len() as u64, n);
}
