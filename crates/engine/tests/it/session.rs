//! Questions in more memory than they are given: an error that can be asked again in another
//! mode, the right answer, and no waiting for ever.

use std::{sync::Arc, time::Duration};

use datafusion::{
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch, StringArray},
        util::pretty::pretty_format_batches,
    },
    catalog::MemTable,
    execution::memory_pool::{MemoryConsumer, MemoryReservation},
    prelude::SessionContext,
};
use engine::session::{Mode, Resources, is_out_of_memory};

const N_ROWS: i64 = 400_000;
/// Far longer than any of them takes.
const LIMIT: Duration = Duration::from_secs(120);

/// Two joins by different columns, and groups almost as many as rows.
const JOINS: &str = "
    SELECT c.name, COUNT(*) AS n, AVG(a.x + c.x) AS mean
    FROM a JOIN b ON a.k = b.k JOIN c ON b.j = c.j
    GROUP BY c.name ORDER BY c.name LIMIT 1000";
const GROUPS: &str = "SELECT name, j, MAX(x) AS most FROM c GROUP BY name, j ORDER BY most DESC, name LIMIT 1000";

fn table(columns: [(&'static str, ArrayRef); 4]) -> Arc<MemTable> {
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let schema = rows.schema();
    // Two partitions of many batches each, as two files would be.
    let batches: Vec<RecordBatch> = (0..rows.num_rows()).step_by(2000).map(|at| rows.slice(at, 2000)).collect();
    let (left, right) = batches.split_at(batches.len() / 2);
    Arc::new(MemTable::try_new(schema, vec![left.to_vec(), right.to_vec()]).unwrap())
}

fn numbers(f: impl Fn(i64) -> i64) -> ArrayRef {
    Arc::new((0..N_ROWS).map(f).collect::<Int64Array>())
}

fn names(f: impl Fn(i64) -> i64) -> ArrayRef {
    Arc::new(StringArray::from_iter_values((0..N_ROWS).map(|n| format!("the name of number {}", f(n)))))
}

fn register(context: &SessionContext) {
    for (name, step) in [("a", 7), ("b", 11), ("c", 13)] {
        let shuffled = |n: i64| n * step % N_ROWS;
        let columns = [
            ("k", numbers(shuffled)),
            ("j", numbers(|n| N_ROWS - 1 - shuffled(n))),
            ("x", numbers(|n| n % 1000)),
            ("name", names(shuffled)),
        ];
        context.register_table(name, table(columns)).unwrap();
    }
}

async fn answer(resources: &Resources, mode: Mode, sql: &str) -> anyhow::Result<String> {
    let context = resources.session(mode);
    register(&context);
    let rows = context.sql(sql).await?.collect();
    let rows = tokio::time::timeout(LIMIT, rows).await.expect("it does not wait for ever")?;
    Ok(pretty_format_batches(&rows)?.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_in_memory_fails_at_once_or_spills() {
    let scratch = tempfile::tempdir().unwrap();
    let plenty = Resources::new(4 << 30, scratch.path()).unwrap();
    let least = Resources::new(32 << 20, scratch.path()).unwrap();
    for (sql, mode) in [(JOINS, Mode::SortingJoins), (GROUPS, Mode::Spilling), (GROUPS, Mode::SortingJoins)] {
        let expected = answer(&plenty, Mode::InMemory, sql).await.unwrap();
        let refused = answer(&least, Mode::InMemory, sql).await.unwrap_err();
        assert!(is_out_of_memory(&refused), "{sql}: {refused:#}");
        let spilled = answer(&least, mode, sql).await.unwrap();
        assert!(spilled == expected, "{sql} {mode:?}");
    }
}

#[tokio::test]
async fn what_works_in_memory_alone_has_all_that_nobody_else_has() {
    let scratch = tempfile::tempdir().unwrap();
    let resources = Resources::new(100 << 20, scratch.path()).unwrap();
    let register = |mode| -> MemoryReservation {
        let pool = resources.session(mode).runtime_env().memory_pool.clone();
        MemoryConsumer::new("a sort").with_can_spill(true).register(&pool)
    };
    let [one, other, spilling] = [Mode::InMemory, Mode::ByShares, Mode::Spilling].map(register);
    one.try_grow(70 << 20).unwrap();
    other.try_grow(20 << 20).unwrap();
    assert!(other.try_grow(20 << 20).is_err() && spilling.try_grow(20 << 20).is_err());
    drop(one);
    spilling.try_grow(70 << 20).unwrap();
    assert!(other.try_grow(20 << 20).is_err());
}
