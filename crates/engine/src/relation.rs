//! A stream's table as a view sees it: the parts that the layers hold, put together, and of
//! each name the first row.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use datafusion::{
    arrow::{
        array::RecordBatch,
        datatypes::{Schema, SchemaRef},
    },
    catalog::{MemTable, TableProvider},
    common::tree_node::{TreeNode, TreeNodeRecursion},
    logical_expr::{Expr, LogicalPlan},
    prelude::{DataFrame, SessionContext, col, lit, not},
    sql::parser::Statement,
};
use model::{Checkpoint, Dedup, Offset, TopicPartition, ViewDef};

use crate::{
    cleaning,
    cleaning::Cleaning,
    counted::{self, Held},
    decode,
    session::{Mode, Scratch, quoted},
};

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

    /// Makes the rows that count known to a session under the relation's name, with `columns`
    /// at least. What is given back holds them and lives as long as the session is asked.
    pub async fn register(
        &self,
        context: &SessionContext,
        parts: Parts,
        columns: &BTreeSet<String>,
        scratch: &Arc<Scratch>,
        mode: Mode,
    ) -> Result<Option<Held>> {
        let is_empty = parts.is_empty();
        let all = self.unite(context, parts).await.with_context(|| format!("table {}", self.name))?;
        // Shares are of tables, and looked at one after the other.
        if !mode.is_by_shares() && (self.identity.is_empty() || is_empty) {
            context.register_table(quoted(&self.name), all.into_view())?;
            return Ok(None);
        }
        let held = self.hold(context, all, columns, scratch.clone()).await?;
        held.register(context, &self.name).await?;
        Ok(Some(held))
    }

    /// Keeps the rows that count, with as many of their columns as are asked for.
    pub fn hold(
        &self,
        context: &SessionContext,
        all: DataFrame,
        columns: &BTreeSet<String>,
        scratch: Arc<Scratch>,
    ) -> impl Future<Output = Result<Held>> + Send + 'static {
        let mut fields: Vec<_> = self.schema.fields().iter().filter(|f| columns.contains(f.name())).cloned().collect();
        if fields.is_empty() {
            // `COUNT(*)` reads no column, but counts rows of one.
            fields.extend(self.schema.fields().first().cloned());
        }
        let (schema, name, context) = (Arc::new(Schema::new(fields)), self.name.clone(), context.clone());
        let identity: Vec<String> = self.identity.iter().map(|c| (*c).to_owned()).collect();
        async move {
            let identity: Vec<&str> = identity.iter().map(String::as_str).collect();
            let held = counted::keep_first_of_each(&context, &all, &identity, schema, &scratch, &name).await;
            held.with_context(|| format!("table {name}"))
        }
    }

    /// All rows, those that count and those that do not.
    pub async fn unite(&self, context: &SessionContext, parts: Parts) -> Result<DataFrame> {
        let columns: Vec<&str> = self.schema.fields().iter().map(|f| f.name().as_str()).collect();
        let mut frames = Vec::new();
        if let Some(batch) = parts.batch {
            frames.push(context.read_table(batch)?.select_columns(&columns)?);
        }
        if let Some((realtime, from)) = parts.realtime {
            let rows = not_below(context.read_table(realtime)?, &from.next)?;
            frames.push(rows.select_columns(&columns)?);
        }
        // Without any rows it still gives the table its columns.
        if !parts.tail.is_empty() || frames.is_empty() {
            let tail = MemTable::try_new(self.schema.clone(), vec![parts.tail])?;
            frames.push(context.read_table(Arc::new(tail))?);
        }
        let mut frames = frames.into_iter();
        let first = frames.next().context("there is a part")?;
        frames.try_fold(first, |all, part| Ok(all.union(part)?))
    }
}

impl Parts {
    /// Those that tables have.
    pub fn of_tables(&self) -> Self {
        Self { batch: self.batch.clone(), realtime: self.realtime.clone(), tail: vec![] }
    }

    fn is_empty(&self) -> bool {
        self.batch.is_none() && self.realtime.is_none() && self.tail.is_empty()
    }
}

/// The rows that do not lie below the offset of their partition.
pub fn not_below(rows: DataFrame, next: &BTreeMap<TopicPartition, Offset>) -> Result<DataFrame> {
    Ok(match below(next) {
        Some(below) => rows.filter(not(below))?,
        None => rows,
    })
}

/// Whether a row lies below the offset of its partition; None if none can.
pub fn below(next: &BTreeMap<TopicPartition, Offset>) -> Option<Expr> {
    let terms = next.iter().filter(|(_, offset)| offset.0 > 0).map(|(partition, offset)| {
        col("_topic")
            .eq(lit(partition.topic.as_str()))
            .and(col("_partition").eq(lit(partition.partition as i32)))
            .and(col("_offset").lt(lit(offset.0 as i64)))
    });
    any_of(terms.collect())
}

/// A balanced tree of ORs: with a partition per term, a chain could be too deep to walk.
fn any_of(mut terms: Vec<Expr>) -> Option<Expr> {
    if terms.len() <= 1 {
        return terms.pop();
    }
    let right = terms.split_off(terms.len() / 2);
    Some(any_of(terms)?.or(any_of(right)?))
}

/// Computes a view from the rows that a session's tables hold.
pub async fn evaluate(context: &SessionContext, view: &ViewDef) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let frame = plan(context, &view.sql).await?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    Ok((schema, frame.collect().await?))
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

/// Plans every view over empty tables, so that a mistake shows at the start, and says which
/// columns each names.
pub async fn check_views(streams: &[Arc<Cleaning>], views: &[ViewDef]) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let context = SessionContext::new();
    for cleaning in streams {
        for relation in [Relation::rows(cleaning, cleaning.stream().dedup), Relation::rejects(cleaning)] {
            let nothing = relation.unite(&context, Parts::default()).await?;
            context.register_table(quoted(&relation.name), nothing.into_view())?;
        }
    }
    let mut columns = BTreeMap::new();
    for view in views {
        let planned = async {
            let frame = plan(&context, &view.sql).await?;
            let named = columns_of(frame.logical_plan())?;
            frame.create_physical_plan().await?;
            Ok::<_, anyhow::Error>(named)
        };
        columns.insert(view.name.clone(), planned.await.with_context(|| format!("views/{}.sql", view.name))?);
    }
    Ok(columns)
}

/// The names of all columns that a plan mentions.
fn columns_of(plan: &LogicalPlan) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        for expression in node.expressions() {
            expression.apply(|part| {
                if let Expr::Column(column) = part {
                    names.insert(column.name.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(names)
}
