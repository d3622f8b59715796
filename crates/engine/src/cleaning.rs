//! The one cleaning definition. Both layers call `Cleaning::apply`; nothing else turns raw
//! rows into clean ones.
//!
//! A stream's `SELECT … FROM raw` is planned once and must be record-wise (I4): projection
//! and filter only, immutable functions, no cast from text that can fail. It is then
//! evaluated batch by batch without a query engine around it, so it depends on nothing but
//! the rows it is given.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use datafusion::{
    arrow::{
        array::{Array, ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringViewArray},
        compute,
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    catalog::MemTable,
    common::{
        DFSchema,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, LogicalPlan, Volatility},
    physical_expr::PhysicalExpr,
    prelude::SessionContext,
};
use model::StreamDef;
use sha2::{Digest, Sha256};

use crate::{
    decode::{self, Decoded, Reject},
    definitions, functions,
};

/// Goes into every definition's hash; raised when the meaning of a definition changes here.
const CLEANING_VERSION: u32 = 1;

pub struct Cleaning {
    stream: StreamDef,
    definition: String,
    columns: Vec<CleanColumn>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
    required: Vec<usize>,
}

struct CleanColumn {
    name: String,
    value: Arc<dyn PhysicalExpr>,
    /// The raw columns it is made from, by index.
    sources: Vec<usize>,
}

/// Clean rows, and what was lost on the way.
pub struct Cleaned {
    /// The clean columns, then the position columns.
    pub rows: RecordBatch,
    pub rejects: Vec<Reject>,
    /// Per clean column: values that were there and became NULL because they cannot be read.
    pub lost: Vec<(String, u64)>,
}

impl Cleaning {
    /// Plans and checks a stream's definition.
    pub async fn plan(stream: &StreamDef) -> Result<Self> {
        Self::plan_checked(stream).await.with_context(|| format!("streams/{}.sql", stream.name))
    }

    async fn plan_checked(stream: &StreamDef) -> Result<Self> {
        let raw = decode::raw_schema(stream);
        let raw = Arc::new(Schema::new(raw.fields()[..stream.columns.len()].to_vec()));
        let context = SessionContext::new();
        for function in functions::all() {
            context.register_udf(function);
        }
        context.register_table("raw", Arc::new(MemTable::try_new(raw.clone(), vec![vec![]])?))?;
        let plan = context.state().create_logical_plan(&stream.sql).await?;
        let (outputs, filter) = projection_and_filter(&plan)?;
        let raw_schema = DFSchema::try_from_qualified_schema("raw", &raw)?;
        let state = context.state();
        let physical = |expr: &Expr| -> Result<Arc<dyn PhysicalExpr>> {
            check_record_wise(expr, &raw_schema)?;
            Ok(state.create_physical_expr(expr.clone(), &raw_schema)?)
        };
        let mut columns = Vec::new();
        let mut fields = Vec::new();
        for output in &outputs {
            let value = physical(output)?;
            let (_, name) = output.qualified_name();
            ensure!(!name.starts_with('_'), "column {name:?}: names that begin with _ are Corkboard's own");
            let mut sources = BTreeSet::new();
            for column in output.column_refs() {
                sources.insert(raw.index_of(&column.name)?);
            }
            fields.push(Field::new(&name, stored_type(&value.data_type(&raw)?), true));
            columns.push(CleanColumn { name, value, sources: sources.into_iter().collect() });
        }
        let index_of = |what: &str, name: &String| {
            let found = columns.iter().position(|c| &c.name == name);
            found.with_context(|| format!("`{what}` names {name:?}, which is no column of the SELECT"))
        };
        let mut required = BTreeSet::new();
        for name in &stream.required {
            required.insert(index_of("required", name)?);
        }
        for name in &stream.key {
            required.insert(index_of("key", name)?);
        }
        let schema = Arc::new(Schema::new(fields.into_iter().chain(decode::position_fields()).collect::<Vec<_>>()));
        Ok(Self {
            stream: stream.clone(),
            definition: definition_hash(stream),
            columns,
            filter: filter.map(physical).transpose()?,
            schema,
            required: required.into_iter().collect(),
        })
    }

    pub fn stream(&self) -> &StreamDef {
        &self.stream
    }

    /// The clean columns, then the position columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// SHA-256 of everything that decides what a record becomes.
    pub fn definition(&self) -> &str {
        &self.definition
    }

    /// Cleans a batch. The same rows give the same result in whatever batches they come.
    pub fn apply(&self, decoded: Decoded) -> Result<Cleaned> {
        let Decoded { raw, texts, mut rejects } = decoded;
        let n_rows = raw.num_rows();
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        let mut lost = Vec::with_capacity(self.columns.len());
        for (column, field) in self.columns.iter().zip(self.schema.fields()) {
            let values = column.value.evaluate(&raw)?.into_array(n_rows)?;
            let values = compute::cast(&values, field.data_type())?;
            lost.push(count_lost(&values, &column.sources, &raw));
            columns.push(values);
        }
        columns.extend_from_slice(&raw.columns()[self.stream.columns.len()..]);
        let rows = RecordBatch::try_new(self.schema.clone(), columns)?;

        let mut keep: Option<BooleanArray> = None;
        if let Some(filter) = &self.filter {
            let passes = filter.evaluate(&raw)?.into_array(n_rows)?;
            let passes = passes.as_any().downcast_ref::<BooleanArray>().context("the filter is not a boolean")?;
            keep = Some(match passes.null_count() {
                0 => passes.clone(),
                _ => compute::prep_null_mask_filter(passes),
            });
        }
        for index in &self.required {
            let column = rows.column(*index);
            if column.null_count() == 0 {
                continue;
            }
            let is_there = compute::is_not_null(column)?;
            for i in (0..n_rows).filter(|i| !is_there.value(*i) && keep.as_ref().is_none_or(|k| k.value(*i))) {
                let reason = format!("column {} has no value", self.columns[*index].name);
                rejects.push(self.reject(&raw, i, reason, texts[i].to_text())?);
            }
            keep = Some(match keep {
                Some(keep) => compute::and(&keep, &is_there)?,
                None => is_there,
            });
        }
        let rows = match keep {
            Some(keep) => compute::filter_record_batch(&rows, &keep)?,
            None => rows,
        };
        let names = self.columns.iter().map(|c| c.name.clone());
        Ok(Cleaned { rows, rejects, lost: names.zip(lost).filter(|(_, n)| *n > 0).collect() })
    }

    fn reject(&self, raw: &RecordBatch, row: usize, reason: String, text: String) -> Result<Reject> {
        let at = |name: &str| raw.column_by_name(name).with_context(|| format!("{name} is missing"));
        let topic = at("_topic")?.as_any().downcast_ref::<StringViewArray>().context("_topic")?.value(row);
        let partition = at("_partition")?.as_any().downcast_ref::<Int32Array>().context("_partition")?.value(row);
        let offset = at("_offset")?.as_any().downcast_ref::<Int64Array>().context("_offset")?.value(row);
        let nth = at("_nth")?.as_any().downcast_ref::<Int32Array>().context("_nth")?.value(row);
        Ok(Reject {
            partition: model::TopicPartition::new(topic.parse()?, u32::try_from(partition)?),
            offset: model::Offset(u64::try_from(offset)?),
            nth,
            reason,
            raw: text,
        })
    }
}

/// The table of a stream's rejects: position, reason, raw text.
pub fn rejects_schema() -> SchemaRef {
    let own = [Field::new("reason", DataType::Utf8View, false), Field::new("raw", DataType::Utf8View, false)];
    Arc::new(Schema::new(own.into_iter().chain(decode::position_fields()).collect::<Vec<_>>()))
}

/// Rejects as rows of `rejects_schema`.
pub fn rejects_batch(rejects: &[Reject]) -> RecordBatch {
    let text = |of: fn(&Reject) -> &str| Arc::new(rejects.iter().map(|r| Some(of(r))).collect::<StringViewArray>());
    let columns: Vec<ArrayRef> = vec![
        text(|r| &r.reason),
        text(|r| &r.raw),
        text(|r| r.partition.topic.as_str()),
        Arc::new(Int32Array::from_iter_values(rejects.iter().map(|r| r.partition.partition as i32))),
        Arc::new(Int64Array::from_iter_values(rejects.iter().map(|r| r.offset.0 as i64))),
        Arc::new(Int32Array::from_iter_values(rejects.iter().map(|r| r.nth))),
    ];
    RecordBatch::try_new(rejects_schema(), columns).expect("columns are in the schema's order")
}

fn definition_hash(stream: &StreamDef) -> String {
    let mut hash = Sha256::new();
    hash.update(CLEANING_VERSION.to_le_bytes());
    // What decides which rows there are; not `dedup`, which decides later which of them count.
    let meaning = serde_json::json!({"columns": stream.columns, "required": stream.required, "key": stream.key,
        "topics": stream.topics});
    hash.update(meaning.to_string());
    hash.update(&stream.sql);
    definitions::in_hex(hash)
}

/// Takes `SELECT … FROM raw [WHERE …]` apart; anything else is refused.
fn projection_and_filter(plan: &LogicalPlan) -> Result<(Vec<Expr>, Option<&Expr>)> {
    const RULE: &str = "a cleaning is SELECT … FROM raw [WHERE …] and nothing else: each row by itself";
    let LogicalPlan::Projection(projection) = plan else {
        bail!("{RULE}; found {}", plan.display());
    };
    let (source, filter) = match projection.input.as_ref() {
        LogicalPlan::Filter(filter) => (filter.input.as_ref(), Some(&filter.predicate)),
        source => (source, None),
    };
    match source {
        LogicalPlan::TableScan(scan) if scan.table_name.table() == "raw" => Ok((projection.expr.clone(), filter)),
        other => bail!("{RULE}; found {}", other.display()),
    }
}

fn check_record_wise(expr: &Expr, raw: &DFSchema) -> Result<()> {
    use datafusion::logical_expr::ExprSchemable;
    let mut problem = None;
    expr.apply(|node| {
        problem = match node {
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                Some(format!("{}() does not always give the same result", call.func.name()))
            }
            Expr::Cast(cast) if is_text(&cast.expr.get_type(raw)?) && !is_text(cast.field.data_type()) => {
                Some("CAST of text can fail a whole batch; use TRY_CAST or a parse_ function".to_owned())
            }
            Expr::AggregateFunction(_) | Expr::WindowFunction(_) => Some("looks at more than one row".to_owned()),
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) => Some("has a sub-query".to_owned()),
            Expr::Unnest(_) => Some("makes several rows of one".to_owned()),
            _ => None,
        };
        Ok(if problem.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    problem.map_or(Ok(()), |p| bail!("{}: {p}", expr.schema_name()))
}

fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The type under which a clean column travels: text as views everywhere.
fn stored_type(kind: &DataType) -> DataType {
    match kind {
        kind if is_text(kind) => DataType::Utf8View,
        DataType::List(item) => DataType::List(Arc::new(Field::new("element", stored_type(item.data_type()), true))),
        other => other.clone(),
    }
}

fn count_lost(values: &ArrayRef, sources: &[usize], raw: &RecordBatch) -> u64 {
    if values.null_count() == 0 {
        return 0;
    }
    let had_source = |i: usize| sources.iter().any(|s| raw.column(*s).is_valid(i));
    (0..values.len()).filter(|i| values.is_null(*i) && had_source(*i)).count() as u64
}

#[cfg(test)]
mod tests {
    use model::stream::RawColumn;

    use super::*;

    async fn plan(sql: &str) -> Result<Cleaning> {
        let column = |name: &str| RawColumn { name: name.to_owned(), placeholders: vec![] };
        let stream = StreamDef {
            name: "s".to_owned(),
            topics: vec!["s".to_owned()],
            key: vec!["a".to_owned()],
            dedup: Default::default(),
            required: vec!["a".to_owned()],
            columns: vec![column("a"), column("b")],
            sql: sql.to_owned(),
        };
        Cleaning::plan(&stream).await
    }

    #[tokio::test]
    async fn what_is_not_record_wise_is_refused() {
        for (sql, words) in [
            ("SELECT DISTINCT a FROM raw", "each row by itself"),
            ("SELECT a FROM raw ORDER BY a", "each row by itself"),
            ("SELECT a FROM raw LIMIT 1", "each row by itself"),
            ("SELECT a, COUNT(*) AS n FROM raw GROUP BY a", "each row by itself"),
            ("SELECT a, ROW_NUMBER() OVER () AS n FROM raw", "each row by itself"),
            ("SELECT x.a FROM raw x JOIN raw y ON x.a = y.a", "each row by itself"),
            ("SELECT a, random() AS r FROM raw", "does not always"),
            ("SELECT CAST(a AS BIGINT) AS a FROM raw", "TRY_CAST"),
            ("SELECT a FROM raw WHERE a IN (SELECT b FROM raw)", "sub-query"),
            ("SELECT b FROM raw", "\"a\""),
            ("SELECT a AS _a, a FROM raw", "_a"),
            ("SELECT nothing AS a FROM raw", "nothing"),
        ] {
            let error = format!("{:#}", plan(sql).await.err().unwrap_or_else(|| panic!("{sql} was accepted")));
            assert!(error.contains(words), "{sql}: {error}");
        }
        plan("SELECT parse_integer(a) AS a, b || 'x' AS b FROM raw WHERE b IS NOT NULL").await.expect("record-wise");
    }
}
