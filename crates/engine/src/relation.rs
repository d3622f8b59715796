//! A stream's table as a view sees it: the parts that the layers hold, put together, and of
//! each key the first row.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    catalog::{MemTable, TableProvider},
    logical_expr::LogicalPlan,
    prelude::{DataFrame, SessionContext},
    sql::parser::Statement,
};
use model::{Checkpoint, Dedup, Offset, TopicPartition};

use crate::{cleaning, cleaning::Cleaning, decode, definitions::Definitions};

/// What a table holds and how its rows are counted.
pub struct Relation<'a> {
    pub name: String,
    pub schema: SchemaRef,
    /// The columns that name a row; none means that every row counts.
    pub identity: Vec<&'a str>,
}

/// Rows by layer: adjacent ranges of every partition (I6).
#[derive(Default)]
pub struct Parts {
    pub batch: Option<Arc<dyn TableProvider>>,
    /// A real-time table, and the offsets below which the batch table has its rows.
    pub realtime: Option<(Arc<dyn TableProvider>, Checkpoint)>,
    pub tail: Vec<RecordBatch>,
}

impl<'a> Relation<'a> {
    /// The clean rows of a stream.
    pub fn rows(cleaning: &'a Cleaning, dedup: Dedup) -> Self {
        let stream = cleaning.stream();
        let schema = cleaning.schema().clone();
        let n_own = schema.fields().len() - decode::POSITION.len();
        let identity = match dedup {
            Dedup::Off => vec![],
            Dedup::Key => stream.key.iter().map(String::as_str).collect(),
            Dedup::Exact => cleaning.schema().fields()[..n_own].iter().map(|f| f.name().as_str()).collect(),
        };
        Self { name: stream.name.clone(), schema, identity }
    }

    /// The rejects of a stream. A reject has no key, so all of them count.
    pub fn rejects(cleaning: &Cleaning) -> Self {
        Self { name: cleaning.stream().rejected(), schema: cleaning::rejects_schema(), identity: vec![] }
    }

    /// Makes the table known to a session under its name.
    pub async fn register(&self, context: &SessionContext, parts: Parts) -> Result<()> {
        let columns: Vec<String> = self.schema.fields().iter().map(|f| quoted(f.name())).collect();
        let columns = columns.join(", ");
        let part = |layer: &str| quoted(&format!("{}__{layer}", self.name));
        let mut selects = Vec::new();
        if let Some(batch) = parts.batch {
            context.register_table(part("batch"), batch)?;
            selects.push(format!("SELECT {columns} FROM {}", part("batch")));
        }
        if let Some((realtime, below)) = parts.realtime {
            context.register_table(part("realtime"), realtime)?;
            selects.push(format!("SELECT {columns} FROM {}{}", part("realtime"), at_or_above(&below.next)));
        }
        // An empty tail is left out, since a sort over one part alone needs less memory than a
        // merge of two; where there is nothing else it gives the table its columns.
        if !parts.tail.is_empty() || selects.is_empty() {
            let tail = MemTable::try_new(self.schema.clone(), vec![parts.tail])?;
            context.register_table(part("tail"), Arc::new(tail))?;
            selects.push(format!("SELECT {columns} FROM {}", part("tail")));
        }
        let mut sql = selects.join(" UNION ALL ");
        if !self.identity.is_empty() {
            let identity: Vec<String> = self.identity.iter().map(|c| quoted(c)).collect();
            sql = format!(
                "SELECT {columns} FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY {} \
                 ORDER BY _topic, _partition, _offset, _nth) AS _place FROM ({sql})) WHERE _place = 1",
                identity.join(", ")
            );
        }
        let all = context.sql(&sql).await.with_context(|| format!("table {}", self.name))?;
        context.register_table(quoted(&self.name), all.into_view())?;
        Ok(())
    }
}

/// A name as it stands in SQL, whatever characters it has.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// ` WHERE …` that leaves out what lies below the offsets.
fn at_or_above(below: &BTreeMap<TopicPartition, Offset>) -> String {
    // Topic names hold no quotes: `TopicName` does not allow them.
    let ranges = below.iter().filter(|(_, offset)| offset.0 > 0).map(|(partition, offset)| {
        format!("(_topic = '{}' AND _partition = {} AND _offset < {offset})", partition.topic, partition.partition)
    });
    let ranges: Vec<String> = ranges.collect();
    if ranges.is_empty() { String::new() } else { format!(" WHERE NOT {}", any_of(&ranges)) }
}

/// A balanced tree of ORs: with a partition per term, a chain could be too deep to walk.
fn any_of(terms: &[String]) -> String {
    match terms {
        [one] => one.clone(),
        _ => {
            let (left, right) = terms.split_at(terms.len() / 2);
            format!("({} OR {})", any_of(left), any_of(right))
        }
    }
}

/// Plans a view's text: one `SELECT`, nothing that writes.
pub async fn plan(context: &SessionContext, sql: &str) -> Result<DataFrame> {
    let frame = context.sql_with_options(sql, read_only()).await?;
    ensure!(!matches!(frame.logical_plan(), LogicalPlan::Explain(_)), "a view is one SELECT");
    Ok(frame)
}

fn read_only() -> datafusion::execution::context::SQLOptions {
    datafusion::execution::context::SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
}

/// The tables that a view's text names.
pub fn tables_of(context: &SessionContext, sql: &str) -> Result<BTreeSet<String>> {
    let state = context.state();
    let statement: Statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect)?;
    let names = state.resolve_table_references(&statement)?;
    Ok(names.into_iter().map(|n| n.table().to_owned()).collect())
}

/// Plans every view over empty tables, so that a mistake shows at the start.
pub async fn check_views(definitions: &Definitions) -> Result<()> {
    let context = SessionContext::new();
    for cleaning in &definitions.streams {
        Relation::rows(cleaning, cleaning.stream().dedup).register(&context, Parts::default()).await?;
        Relation::rejects(cleaning).register(&context, Parts::default()).await?;
    }
    for view in &definitions.views {
        let planned = async { Ok::<_, anyhow::Error>(plan(&context, &view.sql).await?.create_physical_plan().await?) };
        planned.await.with_context(|| format!("views/{}.sql", view.name))?;
    }
    Ok(())
}
