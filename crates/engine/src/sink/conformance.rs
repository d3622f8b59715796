//! What every sink must do. Rows are asked for through `read`, so that a sink is checked by
//! what others would find in it.

use std::{collections::BTreeMap, sync::Arc};

use datafusion::arrow::{
    array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringViewArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use futures::future::BoxFuture;
use model::{Offset, OffsetRange, TopicPartition};

use super::{CommitError, Committed, MicroBatch, Sink};
use crate::decode;

/// A sink of `schema()` that can be opened again and again, and its rows as (topic-partition,
/// offset) pairs.
pub trait Harness: Send + Sync {
    fn open(&self) -> BoxFuture<'_, Box<dyn Sink>>;
    fn read(&self) -> BoxFuture<'_, Vec<(String, u64)>>;
}

/// One own column and the position columns.
pub fn schema() -> SchemaRef {
    let own = [Field::new("x", DataType::Int64, true)];
    Arc::new(Schema::new(own.into_iter().chain(decode::position_fields()).collect::<Vec<_>>()))
}

/// A batch with one row for every offset of the ranges.
pub fn batch(ranges: &[(&str, u64, u64)]) -> MicroBatch {
    let partition = |text: &str| text.parse::<TopicPartition>().expect("a topic partition");
    let rows: Vec<(TopicPartition, u64)> =
        ranges.iter().flat_map(|(p, start, end)| (*start..*end).map(move |o| (partition(p), o))).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, o)| *o as i64 * 10))),
        Arc::new(rows.iter().map(|(p, _)| Some(p.topic.as_str())).collect::<StringViewArray>()),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|(p, _)| p.partition as i32))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, o)| *o as i64))),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|_| 0))),
    ];
    let ranges = ranges.iter().map(|(p, start, end)| OffsetRange {
        partition: partition(p),
        start: Offset(*start),
        end: Offset(*end),
    });
    MicroBatch {
        ranges: ranges.collect(),
        rows: RecordBatch::try_new(schema(), columns).expect("the columns are the schema's"),
    }
}

/// Runs all checks, each on a harness of its own.
pub async fn run<H: Harness>(make: impl Fn() -> H) {
    rows_and_checkpoint_move_together(&make()).await;
    a_range_behind_the_checkpoint_is_a_no_op(&make()).await;
    gaps_and_overlaps_are_errors(&make()).await;
    ranges_without_rows_move_the_checkpoint(&make()).await;
    writers_at_once_lose_and_double_nothing(&make()).await;
}

async fn checkpoint(sink: &mut dyn Sink, partitions: &[&str]) -> BTreeMap<String, u64> {
    let partitions: Vec<_> = partitions.iter().map(|p| p.parse().expect("a topic partition")).collect();
    let at = sink.checkpoint(&partitions).await.expect("a checkpoint");
    at.next.into_iter().map(|(p, o)| (p.to_string(), o.0)).collect()
}

fn expected(ranges: &[(&str, u64)]) -> BTreeMap<String, u64> {
    ranges.iter().map(|(p, o)| ((*p).to_owned(), *o)).collect()
}

async fn rows_and_checkpoint_move_together(harness: &impl Harness) {
    let mut sink = harness.open().await;
    assert_eq!(checkpoint(&mut *sink, &["a-0", "b-0"]).await, expected(&[]));
    // A partition's first range may start anywhere.
    sink.commit(batch(&[("a-0", 5, 7), ("b-0", 0, 1)])).await.expect("the first commit");
    sink.commit(batch(&[("a-0", 7, 8)])).await.expect("the second commit");
    let mut again = harness.open().await;
    assert_eq!(checkpoint(&mut *again, &["a-0", "b-0", "c-0"]).await, expected(&[("a-0", 8), ("b-0", 1)]));
    let rows = [("a-0", 5), ("a-0", 6), ("a-0", 7), ("b-0", 0)].map(|(p, o)| (p.to_owned(), o));
    assert_eq!(sorted(harness.read().await), rows);
}

async fn a_range_behind_the_checkpoint_is_a_no_op(harness: &impl Harness) {
    let mut sink = harness.open().await;
    sink.commit(batch(&[("a-0", 0, 4)])).await.expect("a commit");
    for (start, end) in [(0, 4), (1, 3), (0, 1)] {
        let again = sink.commit(batch(&[("a-0", start, end)])).await.expect("a no-op");
        assert_eq!(again, Committed::AlreadyThere, "[{start}, {end})");
    }
    assert_eq!(harness.read().await.len(), 4);
}

async fn gaps_and_overlaps_are_errors(harness: &impl Harness) {
    let mut sink = harness.open().await;
    sink.commit(batch(&[("a-0", 0, 4)])).await.expect("a commit");
    for ranges in [&[("a-0", 5, 6)][..], &[("a-0", 3, 6)], &[("a-0", 0, 4), ("b-0", 0, 1), ("a-0", 9, 10)]] {
        let refused = sink.commit(batch(ranges)).await;
        assert!(matches!(refused, Err(CommitError::NotAdjacent { .. })), "{ranges:?}: {refused:?}");
    }
    assert_eq!(checkpoint(&mut *sink, &["a-0", "b-0"]).await, expected(&[("a-0", 4)]));
    assert_eq!(harness.read().await.len(), 4);
}

async fn ranges_without_rows_move_the_checkpoint(harness: &impl Harness) {
    let mut sink = harness.open().await;
    let mut empty = batch(&[("a-0", 0, 3)]);
    empty.rows = empty.rows.slice(0, 0);
    sink.commit(empty).await.expect("a commit without rows");
    sink.commit(batch(&[("a-0", 3, 4)])).await.expect("the next commit");
    assert_eq!(sorted(harness.read().await), [("a-0".to_owned(), 3)]);
}

/// Two sinks that know nothing of each other take the same records in.
async fn writers_at_once_lose_and_double_nothing(harness: &impl Harness) {
    const N: u64 = 24;
    let work = |mut sink: Box<dyn Sink>, step: u64| async move {
        loop {
            let next = checkpoint(&mut *sink, &["a-0"]).await.get("a-0").copied().unwrap_or_default();
            if next >= N {
                return;
            }
            // Losing the race is no harm: the next round starts from the checkpoint.
            let _ = sink.commit(batch(&[("a-0", next, (next + step).min(N))])).await;
        }
    };
    futures::join!(work(harness.open().await, 2), work(harness.open().await, 3));
    let rows: Vec<u64> = sorted(harness.read().await).into_iter().map(|(_, o)| o).collect();
    assert_eq!(rows, (0..N).collect::<Vec<_>>());
}

fn sorted(mut rows: Vec<(String, u64)>) -> Vec<(String, u64)> {
    rows.sort();
    rows
}
