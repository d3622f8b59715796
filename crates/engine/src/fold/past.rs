//! A stream's rows from before a fold: in tables, and asked for by name or by join key when a row
//! needs it.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use anyhow::{Context, Result};
use datafusion::{
    arrow::{
        array::{RecordBatch, RecordBatchOptions},
        compute,
        datatypes::SchemaRef,
    },
    catalog::{MemTable, TableProvider},
    common::JoinType,
    prelude::{Column, Expr, SessionContext},
};
use futures::TryStreamExt;
use model::Checkpoint;

use super::known::{Known, Said};
use crate::{
    identity::{NameHasher, Place, Sources},
    relation::below,
};

/// Hashes read from a table before they are sorted.
const HASHES_AT_A_TIME: usize = 1 << 19;

/// The rows of tables below a checkpoint.
pub struct Past {
    pub table: Option<Arc<dyn TableProvider>>,
    pub below: Checkpoint,
    /// Which names and join keys are there.
    pub known: Keys,
}

/// Hashes of names, with what rows say under them, and of join keys.
pub struct Keys {
    names: Known<2>,
    /// None where the join key is the name.
    joins: Option<Known<1>>,
    /// The columns that name a row, the one that it is joined by, and those that views name.
    identity: Vec<String>,
    join: Option<String>,
    schema: SchemaRef,
}

impl Past {
    /// Which names may be there.
    pub fn may_name(&self, names: &[u64]) -> Vec<bool> {
        self.known.names.may_have(names)
    }

    /// What rows of a name say.
    pub fn said(&self, name: u64) -> Result<Said> {
        self.known.names.said(name)
    }

    /// Which of some join keys are there.
    pub fn joins(&self, keys: &[u64]) -> Result<Vec<bool>> {
        match &self.known.joins {
            Some(joins) => joins.have(keys),
            None => self.known.names.have(keys),
        }
    }

    /// Whether all rows of the past stand before a place.
    pub fn ends_before(&self, sources: &Sources, place: Place) -> bool {
        let begun = self.below.next.iter().filter(|(_, next)| next.0 > 0).map(|(partition, _)| partition);
        begun.max().is_none_or(|last| sources.is_in_or_behind(place, last))
    }

    /// Rows whose columns are equal to those of one of the `asked`.
    pub async fn find(
        &self,
        context: &SessionContext,
        asked: Vec<RecordBatch>,
        columns: &[String],
    ) -> Result<Vec<RecordBatch>> {
        let (Some(table), Some(first)) = (&self.table, asked.first()) else { return Ok(vec![]) };
        let schema = first.schema();
        let asked = context.read_table(Arc::new(MemTable::try_new(schema.clone(), vec![asked])?))?.distinct()?;
        let rows = context.read_table(table.clone())?;
        let rows = match below(&self.below.next) {
            Some(below) => rows.filter(below)?,
            None => return Ok(vec![]),
        };
        let rows = rows.select(columns.iter().map(|c| Expr::Column(Column::from_name(c))).collect::<Vec<_>>())?;
        let rows = rows.alias("past")?;
        let asked = asked.alias("asked")?;
        // NULLs are equal here, as they are where rows are told apart.
        let same = schema.fields().iter().map(|f| {
            let of = |side: &str| Expr::Column(Column::new(Some(side), f.name()));
            datafusion::logical_expr::binary_expr(
                of("past"),
                datafusion::logical_expr::Operator::IsNotDistinctFrom,
                of("asked"),
            )
        });
        let found = rows.join_on(asked, JoinType::LeftSemi, same)?;
        found.collect().await.context("looking for rows in the tables")
    }
}

impl Keys {
    /// None yet, of a stream whose rows have a name and a join key, and of which views name these
    /// columns. What does not fit in memory goes to a folder.
    pub fn within(folder: &Path, identity: &[String], join: Option<&str>, schema: &SchemaRef) -> Self {
        let has_joins = join.is_some_and(|join| identity != [join]);
        Self {
            names: Known::within(folder),
            joins: has_joins.then(|| Known::within(folder)),
            identity: identity.to_vec(),
            join: join.map(str::to_owned),
            schema: schema.clone(),
        }
    }

    /// Whether these are those of rows with such a name and join key, of which views name these columns.
    pub fn are_of(&self, identity: &[String], join: Option<&str>, schema: &SchemaRef) -> bool {
        self.identity == identity && self.join.as_deref() == join && self.schema == *schema
    }

    pub fn size_bytes(&self) -> usize {
        self.names.size_bytes() + self.joins.as_ref().map_or(0, Known::size_bytes)
    }

    /// With those of a table's rows below a checkpoint.
    pub async fn read(
        mut self,
        context: &SessionContext,
        table: &Arc<dyn TableProvider>,
        hasher: &NameHasher,
        at_most: &Checkpoint,
    ) -> Result<Self> {
        let Some(below) = below(&at_most.next) else { return Ok(self) };
        let (identity, join, schema) = (self.identity.clone(), self.join.clone(), self.schema.clone());
        let identity: Vec<&str> = identity.iter().map(String::as_str).collect();
        let mut columns: BTreeSet<&str> = identity.iter().copied().chain(join.as_deref()).collect();
        if columns.is_empty() {
            return Ok(self);
        }
        if !identity.is_empty() {
            columns.extend(schema.fields().iter().map(|f| f.name().as_str()));
        }
        let columns: Vec<Expr> = columns.into_iter().map(|c| Expr::Column(Column::from_name(c))).collect();
        let rows = context.read_table(table.clone())?.filter(below)?.select(columns)?;
        let mut rows = rows.execute_stream().await?;
        let (mut names, mut joins) = (Vec::new(), Vec::new());
        while let Some(batch) = rows.try_next().await? {
            if !identity.is_empty() {
                let says = says(hasher, &narrow(&batch, &schema)?)?;
                names.extend(hasher.short_hashes(&batch, &identity)?.into_iter().zip(says).map(<[u64; 2]>::from));
            }
            if let Some(join) = join.as_deref().filter(|_| self.joins.is_some()) {
                joins.extend(hasher.short_hashes(&batch, &[join])?);
            }
            if names.len().max(joins.len()) >= HASHES_AT_A_TIME {
                self.add(std::mem::take(&mut names), std::mem::take(&mut joins))?;
            }
        }
        self.add(names, joins)?;
        Ok(self)
    }

    /// Names with what they say, and join keys.
    pub fn add(&mut self, names: Vec<[u64; 2]>, joins: Vec<u64>) -> Result<()> {
        self.names.add(names)?;
        match &mut self.joins {
            Some(known) => known.add(joins.into_iter().map(|key| [key])),
            None => Ok(()),
        }
    }
}

/// The columns that views name, in the types that they have there.
pub(super) fn narrow(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| {
        let column = rows.column_by_name(field.name()).with_context(|| format!("no column {}", field.name()))?;
        Ok(compute::cast(column, field.data_type())?)
    });
    // Of a stream of which views name no column rows are counted.
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns.collect::<Result<_>>()?, &options)?)
}

/// A hash of what each row says to views.
pub(super) fn says(hasher: &NameHasher, own: &RecordBatch) -> Result<Vec<u64>> {
    let columns: Vec<&str> = own.schema_ref().fields().iter().map(|f| f.name().as_str()).collect();
    hasher.short_hashes(own, &columns)
}
