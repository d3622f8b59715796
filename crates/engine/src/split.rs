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
        Column, ScalarValue, TableReference,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    datasource::provider_as_source,
    error::DataFusionError,
    functions_aggregate::{
        expr_fn::{max, min, sum},
        min_max::max_udaf,
    },
    logical_expr::{
        ColumnarValue, Distinct, Expr, ExprFunctionExt, ExprSchemable, JoinType, LogicalPlan, LogicalPlanBuilder,
        Operator, ScalarUDF, Volatility, WindowFunctionDefinition, create_udf, expr::WindowFunction,
        utils::split_conjunction,
    },
    prelude::{SessionContext, cast, col},
};

use crate::{
    identity::{NameHasher, Share},
    session::is_out_of_memory,
};

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

    /// The same by shares of the keys that rows are joined by: as many as it takes until the rows
    /// of each that are joined fit in memory.
    pub async fn groups_by_shares(&self, context: &SessionContext) -> Result<Vec<RecordBatch>> {
        let hasher = NameHasher::default();
        let mut shares = vec![Share::ALL];
        let mut groups = Vec::new();
        while let Some(share) = shares.pop() {
            match self.groups_by(context, self.core_of_share(&hasher, share)?).await {
                Ok(of_share) => {
                    groups.extend(of_share);
                    groups = self.merge(context, groups).await?;
                }
                Err(e) if is_out_of_memory(&e) && self.is_joined() => match share.halves() {
                    Some(halves) => shares.extend(halves),
                    None => return Err(e),
                },
                Err(e) => return Err(e),
            }
        }
        Ok(groups)
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
        let mut plan = self.merged(groups)?;
        if let Some(top) = &self.top {
            plan = top.of(plan)?;
        }
        let rows = context.execute_logical_plan(plan).await?.collect().await?;
        let renamed = |batch: RecordBatch| Ok(RecordBatch::try_new(schema.clone(), batch.columns().to_vec())?);
        at_least_one(rows.into_iter().map(renamed).collect::<Result<_>>()?, schema.clone())
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
    fn of(&self, groups: LogicalPlan) -> Result<LogicalPlan> {
        let columns: Vec<Expr> = groups.schema().columns().into_iter().map(Expr::Column).collect();
        let value = columns[self.value].clone();
        let greatest = WindowFunction::new(WindowFunctionDefinition::AggregateUDF(max_udaf()), vec![value.clone()]);
        let partition = self.partition.iter().map(|i| columns[*i].clone()).collect();
        let greatest = Expr::from(greatest).partition_by(partition).build()?.alias("greatest");
        let plan = LogicalPlanBuilder::from(groups).window([greatest])?;
        let is_top = value.clone().eq(col("greatest")).or(value.is_null());
        Ok(plan.filter(is_top)?.project(columns)?.build()?)
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
    use super::*;
    use crate::{definitions::Definitions, mergeable::Mergeable, relation};

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
}
