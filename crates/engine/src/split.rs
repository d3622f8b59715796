//! A view taken apart at its aggregate, so that it can be kept up to date instead of being
//! computed anew.
//!
//! Below the aggregate a view may join and filter streams, row by row; its groups can then be
//! computed for some rows at a time and merged, if they are counts, sums of integers, maxima
//! or minima. What lies above (ranks, medians out of counts, order) is computed from the
//! merged groups with each answer. A view that is of another kind is computed as a whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use datafusion::{
    arrow::{
        array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, new_null_array},
        compute,
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    catalog::MemTable,
    common::{
        Column, NullEquality, ScalarValue, TableReference,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    datasource::provider_as_source,
    error::DataFusionError,
    functions_aggregate::expr_fn::{max, min, sum},
    logical_expr::{
        ColumnarValue, Distinct, Expr, ExprSchemable, JoinType, LogicalPlan, LogicalPlanBuilder, Operator, ScalarUDF,
        Volatility, create_udf, utils::split_conjunction,
    },
    prelude::{SessionContext, cast, col},
};

use crate::{
    identity::{NameHasher, Share},
    session::{Mode, is_out_of_memory},
};

/// More do not help where the groups of all rows must fit in memory.
const FEW_SHARES: u64 = 16;

/// How two values of a group become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Merge {
    Sum,
    Max,
    Min,
}

/// Of groups that differ only elsewhere those alone are asked for whose value is the greatest.
/// The others need not be kept: a maximum only grows, and where they catch up, a new row brings
/// all that they are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Top {
    partition: Vec<usize>,
    value: usize,
}

/// A view's aggregate and what lies above it.
pub struct Split {
    plan: LogicalPlan,
    core: LogicalPlan,
    merges: Vec<Merge>,
    n_groups: usize,
    top: Option<Top>,
    /// The streams that are joined, each by the column that is equal in all of them; without
    /// a column where there is one stream only.
    pub streams: BTreeMap<String, Option<String>>,
}

impl Split {
    /// None if the view cannot be merged from parts. `plan` is as SQL was read, not optimised.
    pub fn of(plan: &LogicalPlan, streams: &BTreeSet<String>) -> Result<Option<Self>> {
        let mut cores = Vec::new();
        let mut is_whole = true;
        plan.apply_with_subqueries(|node| {
            if let Some(core) = core_of(node, streams)? {
                cores.push((node.clone(), core));
                return Ok(TreeNodeRecursion::Jump);
            }
            // A table read beside the aggregate, or a sub-query.
            is_whole &= !matches!(node, LogicalPlan::TableScan(_));
            Ok(TreeNodeRecursion::Continue)
        })?;
        let [(core, found)] = cores.as_slice() else { return Ok(None) };
        let Core { merges, n_groups, streams } = found.clone();
        let top = top_of(plan, core, &merges);
        Ok(is_whole.then(|| Self { plan: plan.clone(), core: core.clone(), merges, n_groups, top, streams }))
    }

    /// The schema of groups: `c0`, `c1`, … in the order of the aggregate's columns.
    pub fn schema(&self) -> SchemaRef {
        let fields = self.core.schema().fields().iter().enumerate();
        Arc::new(Schema::new(
            fields.map(|(i, f)| Field::new(format!("c{i}"), f.data_type().clone(), true)).collect::<Vec<_>>(),
        ))
    }

    /// The groups of the rows that the session's tables hold, each perhaps in parts.
    pub async fn groups(&self, context: &SessionContext) -> Result<Vec<RecordBatch>> {
        self.groups_by(context, self.core.clone()).await
    }

    /// The same by shares of the keys that rows are joined by: as many as it takes until the rows of each
    /// that are joined fit in memory, or until it is no use where groups must fit, too.
    pub async fn groups_by_shares(&self, context: &SessionContext, mode: Mode) -> Result<Vec<RecordBatch>> {
        let hasher = NameHasher::default();
        let mut shares = vec![Share::ALL];
        let mut groups = Vec::new();
        while let Some(share) = shares.pop() {
            match self.with_share(context, &groups, &hasher, share).await {
                Ok(with_share) => groups = with_share,
                Err(e) if is_out_of_memory(&e) && self.is_joined() => {
                    let halves = match mode {
                        Mode::ByShares => share.halves_of_at_most(FEW_SHARES),
                        _ => share.halves(),
                    };
                    shares.extend(halves.ok_or(e)?);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(groups)
    }

    /// Groups, merged with those of a share.
    async fn with_share(
        &self,
        context: &SessionContext,
        groups: &[RecordBatch],
        hasher: &NameHasher,
        share: Share,
    ) -> Result<Vec<RecordBatch>> {
        let of_share = self.groups_by(context, self.core_of_share(hasher, share)?).await?;
        self.merge(context, [groups, &of_share].concat()).await
    }

    fn is_joined(&self) -> bool {
        self.streams.values().any(Option::is_some)
    }

    /// The aggregate over those rows alone whose keys are of a share.
    fn core_of_share(&self, hasher: &NameHasher, share: Share) -> Result<LogicalPlan> {
        let core = self.core.clone().transform_down(|node| {
            let LogicalPlan::TableScan(scan) = &node else { return Ok(Transformed::no(node)) };
            let Some(Some(key)) = self.streams.get(scan.table_name.table()) else { return Ok(Transformed::no(node)) };
            let kind = node.schema().field_with_unqualified_name(key)?.data_type().clone();
            let key = Expr::Column(Column::new(Some(scan.table_name.clone()), key));
            let rows = LogicalPlanBuilder::from(node).filter(is_of(hasher.clone(), share, kind).call(vec![key]))?;
            Ok(Transformed::new(rows.build()?, true, TreeNodeRecursion::Jump))
        })?;
        Ok(core.data)
    }

    async fn groups_by(&self, context: &SessionContext, core: LogicalPlan) -> Result<Vec<RecordBatch>> {
        let schema = self.schema();
        let rows = context.execute_logical_plan(core).await?.collect().await?;
        let renamed = |batch: RecordBatch| {
            let columns = batch.columns().iter().zip(schema.fields());
            let columns = columns.map(|(c, f)| compute::cast(c, f.data_type())).collect::<Result<Vec<_>, _>>()?;
            Ok(RecordBatch::try_new(schema.clone(), columns)?)
        };
        at_least_one(rows.into_iter().map(renamed).collect::<Result<_>>()?, schema)
    }

    /// Groups that take others away when they are merged; None where there is nothing to take
    /// away, since a maximum of more rows is one of the fewer, too.
    pub fn negative(&self, groups: &RecordBatch) -> Result<Option<RecordBatch>> {
        if !self.merges.contains(&Merge::Sum) {
            return Ok(None);
        }
        let mut columns: Vec<ArrayRef> = groups.columns()[..self.n_groups].to_vec();
        for (merge, column) in self.merges.iter().zip(&groups.columns()[self.n_groups..]) {
            columns.push(match merge {
                Merge::Sum => {
                    let values = column.as_any().downcast_ref::<Int64Array>().context("a sum is an Int64")?;
                    Arc::new(values.unary::<_, datafusion::arrow::datatypes::Int64Type>(|n| -n))
                }
                Merge::Max | Merge::Min => new_null_array(column.data_type(), column.len()),
            });
        }
        Ok(Some(RecordBatch::try_new(groups.schema(), columns)?))
    }

    /// One group of those with the same name, and none that no answer can have.
    pub async fn merge(&self, context: &SessionContext, groups: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        let schema = self.schema();
        let renamed = |batch: RecordBatch| Ok(RecordBatch::try_new(schema.clone(), batch.columns().to_vec())?);
        let collected = async |plan| {
            let rows = context.execute_logical_plan(plan).await?.collect().await?;
            at_least_one(rows.into_iter().map(renamed).collect::<Result<_>>()?, schema.clone())
        };
        let merged = collected(self.merged(groups)?).await?;
        match &self.top {
            Some(top) => collected(top.of(&schema, merged)?).await,
            None => Ok(merged),
        }
    }

    /// The view's answer, out of groups that may still be in parts.
    pub async fn answer(
        &self,
        context: &SessionContext,
        groups: Vec<RecordBatch>,
    ) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let merged = self.merged(groups)?;
        // Under the names that the rest of the plan knows.
        let qualified =
            self.core.schema().iter().zip(merged.schema().columns()).map(|((qualifier, field), column)| {
                Expr::Column(column).alias_qualified(qualifier.cloned(), field.name())
            });
        let merged = LogicalPlanBuilder::from(merged.clone()).project(qualified.collect::<Vec<_>>())?.build()?;
        let replaced = self.plan.clone().transform_down(|node| {
            Ok(if node == self.core {
                Transformed::new(merged.clone(), true, TreeNodeRecursion::Jump)
            } else {
                Transformed::no(node)
            })
        })?;
        ensure!(replaced.transformed, "the aggregate is not where it was");
        let frame = context.execute_logical_plan(replaced.data).await?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        Ok((schema, frame.collect().await?))
    }

    fn merged(&self, groups: Vec<RecordBatch>) -> Result<LogicalPlan> {
        let schema = self.schema();
        let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
        let column = |name: &String| Expr::Column(Column::new(Some(TableReference::bare("groups")), name));
        let table = Arc::new(MemTable::try_new(schema.clone(), vec![groups])?);
        let scan = LogicalPlanBuilder::scan("groups", provider_as_source(table), None)?;
        let values = self.merges.iter().zip(&names[self.n_groups..]).map(|(merge, name)| match merge {
            Merge::Sum => sum(column(name)),
            Merge::Max => max(column(name)),
            Merge::Min => min(column(name)),
        });
        let plan = scan.aggregate(names[..self.n_groups].iter().map(column), values)?;
        let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
        let typed =
            columns.into_iter().zip(schema.fields()).map(|(c, f)| cast(c, f.data_type().clone()).alias(f.name()));
        Ok(plan.project(typed.collect::<Vec<_>>())?.build()?)
    }
}

/// Whether a key's hash is of a share.
fn is_of(hasher: NameHasher, share: Share, kind: DataType) -> ScalarUDF {
    let has = move |arguments: &[ColumnarValue]| {
        let keys = ColumnarValue::values_to_arrays(arguments)?.swap_remove(0);
        let hashes = hasher.hash_columns(&[&keys]).map_err(|e| DataFusionError::External(e.into()))?;
        let of_share: BooleanArray = hashes.into_iter().map(|hash| Some(share.has(hash))).collect();
        Ok(ColumnarValue::Array(Arc::new(of_share)))
    };
    create_udf("is_of_share", vec![kind], DataType::Boolean, Volatility::Immutable, Arc::new(has))
}

impl Top {
    /// Joined with the greatest values, of which there are few, instead of sorted, as by a window.
    fn of(&self, schema: &SchemaRef, groups: Vec<RecordBatch>) -> Result<LogicalPlan> {
        let table = provider_as_source(Arc::new(MemTable::try_new(schema.clone(), vec![groups])?));
        let scan = |name| LogicalPlanBuilder::scan(name, table.clone(), None);
        let column = |of: &str, i: usize| Column::new(Some(of), schema.field(i).name());
        let partition = |of: &str| self.partition.iter().map(|i| column(of, *i)).collect::<Vec<_>>();
        let greatest = max(Expr::Column(column("of_all", self.value))).alias("greatest");
        let tops = scan("of_all")?.aggregate(partition("of_all").into_iter().map(Expr::Column), [greatest])?.build()?;
        let value = Expr::Column(column("groups", self.value));
        let is_top = value.clone().eq(col("greatest")).or(value.is_null());
        let (keys, nulls) = ((partition("groups"), partition("of_all")), NullEquality::NullEqualsNull);
        let joined = scan("groups")?.join_detailed(tops, JoinType::Inner, keys, Some(is_top), nulls)?;
        Ok(joined.project((0..schema.fields().len()).map(|i| Expr::Column(column("groups", i))))?.build()?)
    }
}

/// Finds `RANK() OVER (PARTITION BY … ORDER BY <the maximum> DESC) = 1` above an aggregate.
fn top_of(plan: &LogicalPlan, core: &LogicalPlan, merges: &[Merge]) -> Option<Top> {
    if merges != [Merge::Max] {
        return None;
    }
    let mut path = Vec::new();
    let mut node = plan;
    while node != core {
        path.push(node);
        let [input] = node.inputs()[..] else { return None };
        node = input;
    }
    let window_at = path.iter().position(|node| matches!(node, LogicalPlan::Window(_)))?;
    let LogicalPlan::Window(window) = path[window_at] else { return None };
    let [ranking] = window.window_expr.as_slice() else { return None };
    let Expr::WindowFunction(rank) = ranking.clone().unalias() else { return None };
    let [order] = rank.params.order_by.as_slice() else { return None };
    if rank.fun.name() != "rank" || order.asc {
        return None;
    }
    let below = |expression: &Expr| {
        let Expr::Column(column) = expression else { return None };
        let column = follow(column, &path[window_at + 1..])?;
        core.schema().index_of_column(&column).ok()
    };
    let value = below(&order.expr)?;
    let partition: Vec<usize> = rank.params.partition_by.iter().map(below).collect::<Option<_>>()?;
    let filter_at = path[..window_at].iter().rposition(|node| matches!(node, LogicalPlan::Filter(_)))?;
    let LogicalPlan::Filter(filter) = path[filter_at] else { return None };
    let Expr::BinaryExpr(equal) = &filter.predicate else { return None };
    let (Expr::Column(place), Operator::Eq, Expr::Literal(one, _)) =
        (equal.left.as_ref(), equal.op, equal.right.as_ref())
    else {
        return None;
    };
    let place = window.schema.index_of_column(&follow(place, &path[filter_at + 1..window_at])?).ok()?;
    let is_first = one.cast_to(&DataType::Int64).ok()? == ScalarValue::Int64(Some(1));
    let is_rank = place == window.input.schema().fields().len();
    let is_maximum = value + 1 == core.schema().fields().len();
    (is_first && is_rank && is_maximum).then_some(Top { partition, value })
}

/// What a column is called below some nodes that only rename columns.
fn follow(column: &Column, nodes: &[&LogicalPlan]) -> Option<Column> {
    let mut column = column.clone();
    for node in nodes {
        let at = node.schema().index_of_column(&column).ok()?;
        column = match node {
            LogicalPlan::Projection(projection) => match projection.expr.get(at)?.clone().unalias() {
                Expr::Column(column) => column,
                _ => return None,
            },
            LogicalPlan::SubqueryAlias(alias) => alias.input.schema().columns().get(at)?.clone(),
            _ => return None,
        };
    }
    Some(column)
}

/// So that groups have a schema even where there is none.
fn at_least_one(mut groups: Vec<RecordBatch>, schema: SchemaRef) -> Result<Vec<RecordBatch>> {
    if groups.is_empty() {
        groups.push(RecordBatch::new_empty(schema));
    }
    Ok(groups)
}

#[derive(Clone)]
struct Core {
    merges: Vec<Merge>,
    n_groups: usize,
    streams: BTreeMap<String, Option<String>>,
}

/// What there is to know of an aggregate that can be merged; None if it is none.
fn core_of(node: &LogicalPlan, streams: &BTreeSet<String>) -> datafusion::error::Result<Option<Core>> {
    let (input, n_groups, merges) = match node {
        LogicalPlan::Aggregate(aggregate) => {
            let is_plain = aggregate.group_expr.iter().all(|e| !matches!(e, Expr::GroupingSet(_)));
            let merges: Option<Vec<Merge>> =
                aggregate.aggr_expr.iter().map(|e| merge_of(e, &aggregate.input)).collect();
            match merges {
                // Without a group there is a row for no rows at all, which is of no part.
                Some(merges) if is_plain && !aggregate.group_expr.is_empty() => {
                    (&aggregate.input, aggregate.group_expr.len(), merges)
                }
                _ => return Ok(None),
            }
        }
        LogicalPlan::Distinct(Distinct::All(input)) => (input, input.schema().fields().len(), vec![]),
        _ => return Ok(None),
    };
    let mut tables: BTreeMap<String, String> = BTreeMap::new();
    let mut pairs = Vec::new();
    let mut is_row_wise = true;
    let mut n_tables = 0;
    input.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) => {
                let name = scan.table_name.table().to_owned();
                is_row_wise &= streams.contains(&name);
                n_tables += 1;
                tables.entry(name.clone()).or_insert(name);
            }
            LogicalPlan::SubqueryAlias(alias) => {
                if let LogicalPlan::TableScan(scan) = alias.input.as_ref() {
                    tables.insert(alias.alias.table().to_owned(), scan.table_name.table().to_owned());
                }
            }
            LogicalPlan::Join(join) if join.join_type == JoinType::Inner => {
                pairs.extend(join.on.clone());
                for condition in join.filter.iter().flat_map(split_conjunction) {
                    if let Expr::BinaryExpr(equal) = condition
                        && equal.op == Operator::Eq
                    {
                        pairs.push((equal.left.as_ref().clone(), equal.right.as_ref().clone()));
                    }
                }
            }
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) => {}
            _ => is_row_wise = false,
        }
        for expression in node.expressions() {
            expression.apply(|part| {
                is_row_wise &= match part {
                    Expr::ScalarFunction(call) => call.func.signature().volatility == Volatility::Immutable,
                    Expr::AggregateFunction(_) | Expr::WindowFunction(_) | Expr::Unnest(_) => false,
                    Expr::Exists(_)
                    | Expr::InSubquery(_)
                    | Expr::ScalarSubquery(_)
                    | Expr::OuterReferenceColumn(..) => false,
                    _ => true,
                };
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(if is_row_wise { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    let names: BTreeSet<&String> = tables.values().collect();
    if !is_row_wise || names.len() != n_tables {
        return Ok(None);
    }
    let streams = if n_tables == 1 {
        names.into_iter().map(|name| (name.clone(), None)).collect()
    } else {
        let Some(joined) = joined_by(&tables, &pairs) else { return Ok(None) };
        if joined.len() != n_tables {
            return Ok(None);
        }
        joined.into_iter().map(|(name, column)| (name, Some(column))).collect()
    };
    Ok(Some(Core { merges, n_groups, streams }))
}

fn merge_of(expression: &Expr, input: &LogicalPlan) -> Option<Merge> {
    let Expr::AggregateFunction(call) = expression.clone().unalias() else { return None };
    if call.params.distinct || !call.params.order_by.is_empty() {
        return None;
    }
    let is_integer = || {
        let kind = call.params.args.first()?.get_type(input.schema()).ok()?;
        matches!(kind, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64).then_some(())
    };
    match call.func.name() {
        "count" => Some(Merge::Sum),
        "sum" => is_integer().map(|()| Merge::Sum),
        "max" => Some(Merge::Max),
        "min" => Some(Merge::Min),
        _ => None,
    }
}

/// The column by which each table is joined, if it is one per table.
fn joined_by(tables: &BTreeMap<String, String>, pairs: &[(Expr, Expr)]) -> Option<BTreeMap<String, String>> {
    let mut joined: BTreeMap<String, String> = BTreeMap::new();
    let mut groups: Vec<BTreeSet<&String>> = tables.values().map(|table| BTreeSet::from([table])).collect();
    for pair in pairs {
        // A comparison with something else than a column is a filter.
        let (Expr::Column(left), Expr::Column(right)) = pair else { continue };
        let mut ends = Vec::new();
        for column in [left, right] {
            let table = tables.get(column.relation.as_ref()?.table())?;
            let known = joined.entry(table.clone()).or_insert_with(|| column.name.clone());
            if *known != column.name {
                return None;
            }
            ends.push(table);
        }
        let (touched, mut others): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|group| ends.iter().any(|end| group.contains(end)));
        others.push(touched.into_iter().flatten().collect());
        groups = others;
    }
    (groups.len() == 1).then_some(joined)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::{array::StringArray, util::pretty::pretty_format_batches};

    use super::*;
    use crate::{definitions::Definitions, mergeable::Mergeable, relation, session::Resources};

    #[tokio::test]
    async fn all_default_views_can_be_merged_and_only_the_top_of_one_is_kept() {
        let definitions = Definitions::default_pipeline().await.expect("sound");
        let mergeable = Mergeable::of(&definitions, None).await.expect("sound");
        for view in &definitions.views {
            assert!(mergeable.has(&view.name), "{}", view.name);
        }
        let context = SessionContext::new();
        for (name, shape) in &mergeable.streams {
            assert_eq!(shape.join.as_deref(), Some("ind"));
            let none = MemTable::try_new(shape.schema.clone(), vec![vec![]]).expect("a table");
            context.register_table(crate::session::quoted(name), Arc::new(none)).expect("a new name");
        }
        let top = async |name: &str| {
            let view = definitions.views.iter().find(|v| v.name == name).expect("a default view");
            mergeable.split(&context, view).await.expect("it can be merged").top
        };
        let expected = Top { partition: vec![0], value: 2 };
        assert_eq!(top("user_with_most_followers_per_country").await, Some(expected));
        assert_eq!(top("most_popular_category_per_country").await, None);
    }

    #[tokio::test]
    async fn what_cannot_be_merged_is_computed_as_a_whole() {
        let context = SessionContext::new();
        for sql in ["CREATE TABLE a (x INT, y INT)", "CREATE TABLE b (x INT, z INT)"] {
            context.sql(sql).await.expect("SQL").collect().await.expect("a table");
        }
        let streams = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        for (sql, is_split) in [
            ("SELECT x, COUNT(*) FROM a GROUP BY x", true),
            ("SELECT DISTINCT x, y FROM a WHERE y > 1", true),
            ("SELECT a.y, SUM(z) FROM a JOIN b ON a.x = b.x AND b.z > 3 GROUP BY a.y", true),
            ("SELECT COUNT(*) FROM a", false),
            ("SELECT x, AVG(y) FROM a GROUP BY x", false),
            ("SELECT x, COUNT(DISTINCT y) FROM a GROUP BY x", false),
            ("SELECT x, SUM(y * 1.5) FROM a GROUP BY x", false),
            ("SELECT x, y FROM a", false),
            ("SELECT a.y, COUNT(*) FROM a LEFT JOIN b ON a.x = b.x GROUP BY a.y", false),
            ("SELECT l.y, COUNT(*) FROM a l JOIN a r ON l.x = r.x GROUP BY l.y", false),
            ("SELECT a.y, COUNT(*) FROM a, b GROUP BY a.y", false),
            ("SELECT x, COUNT(*) FROM a WHERE x IN (SELECT x FROM b) GROUP BY x", false),
            ("SELECT x, COUNT(*) FROM a WHERE random() < 0.5 GROUP BY x", false),
            ("SELECT n.x, n.c, b.z FROM (SELECT x, COUNT(*) AS c FROM a GROUP BY x) n JOIN b ON n.x = b.x", false),
            ("SELECT x, COUNT(*) FROM (SELECT x FROM a LIMIT 5) GROUP BY x", false),
        ] {
            let frame = relation::plan(&context, sql).await.expect(sql);
            let split = Split::of(frame.logical_plan(), &streams).expect(sql);
            assert_eq!(split.is_some(), is_split, "{sql}");
        }
    }

    const POSTERS: &str = "
        WITH most AS (
          SELECT b.country, a.name, MAX(a.n) AS n FROM a JOIN b ON a.k = b.k GROUP BY b.country, a.name
        ), ranked AS (
          SELECT country, name, n, RANK() OVER (PARTITION BY country ORDER BY n DESC) AS place FROM most
        )
        SELECT country, name, n FROM ranked WHERE place = 1 ORDER BY country, name";

    fn posts(context: &SessionContext, n_rows: i64) {
        let keys: ArrayRef = Arc::new((0..n_rows).collect::<Int64Array>());
        let names = (0..n_rows).map(|i| Some(format!("the poster with the number {}", i * 7 % n_rows / 2)));
        // Some posters are unknown, some counts, some countries.
        let names = names.enumerate().map(|(i, name)| name.filter(|_| i % 50 > 0)).collect::<StringArray>();
        let counts = (0..n_rows).map(|i| (i % 10 > 0).then_some(i * 31 % 997)).collect::<Int64Array>();
        let countries = (0..n_rows).map(|i| (i % 8 > 0).then(|| format!("country {}", i % 8))).collect::<StringArray>();
        let tables: [(_, Vec<(_, ArrayRef)>); 2] = [
            ("a", vec![("k", keys.clone()), ("name", Arc::new(names)), ("n", Arc::new(counts))]),
            ("b", vec![("k", keys), ("country", Arc::new(countries))]),
        ];
        for (name, columns) in tables {
            let rows = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)));
            let rows = rows.expect("columns of one length");
            let parts = (0..rows.num_rows()).step_by(4096).map(|at| rows.slice(at, 4096.min(rows.num_rows() - at)));
            let table = MemTable::try_new(rows.schema(), vec![parts.collect()]).expect("a table");
            context.register_table(name, Arc::new(table)).expect("a new name");
        }
    }

    async fn split_of(context: &SessionContext) -> Split {
        let frame = relation::plan(context, POSTERS).await.expect("a view");
        let streams = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        Split::of(frame.logical_plan(), &streams).expect("readable").expect("it can be merged")
    }

    async fn answer(context: &SessionContext, split: &Split, groups: Vec<RecordBatch>) -> String {
        let (_, rows) = split.answer(context, groups).await.expect("an answer");
        pretty_format_batches(&rows).expect("a table").to_string()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn shares_give_what_all_rows_give_at_once() {
        let scratch = tempfile::tempdir().expect("a folder");
        let [plenty, little] = [1 << 30, 24 << 20].map(|n| Resources::new(n, scratch.path()).expect("a folder"));
        let session = |resources: &Resources, mode| {
            let context = resources.session(mode);
            posts(&context, 200_000);
            context
        };
        let whole = session(&plenty, Mode::InMemory);
        let split = split_of(&whole).await;
        let expected = relation::plan(&whole, POSTERS).await.expect("a view").collect().await.expect("an answer");
        let expected = pretty_format_batches(&expected).expect("a table").to_string();

        let context = session(&little, Mode::InMemory);
        let refused = split_of(&context).await.groups(&context).await.expect_err("it does not fit");
        assert!(is_out_of_memory(&refused), "{refused:#}");
        for mode in [Mode::ByShares, Mode::Spilling] {
            let context = session(&little, mode);
            let split = split_of(&context).await;
            let groups = split.groups_by_shares(&context, mode).await.expect("by shares it does");
            assert_eq!(answer(&whole, &split, groups).await, expected, "{mode:?}");
        }
        let n_groups = |groups: &[RecordBatch]| groups.iter().map(RecordBatch::num_rows).sum::<usize>();
        let all = split.groups(&whole).await.expect("all groups");
        let tops = split.merge(&whole, all.clone()).await.expect("the top");
        assert!(n_groups(&tops) < n_groups(&all) / 4, "{} of {}", n_groups(&tops), n_groups(&all));
        assert_eq!(answer(&whole, &split, tops).await, expected);
    }
}
