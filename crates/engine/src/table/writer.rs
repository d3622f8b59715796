//! Parquet files for a table: written on several threads, in the types that Delta keeps, and
//! named by no commit until `Table::commit` names them.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU64,
    sync::Arc,
};

use anyhow::{Result, bail};
use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, RecordBatch},
        compute,
        datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
        row::{RowConverter, SortField},
    },
    parquet::{
        basic::Compression,
        file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder},
        schema::types::ColumnPath,
    },
};
use deltalake_core::{
    datafile::writer::{DeltaWriter, WriterConfig},
    kernel::Add,
    operations::get_num_idx_cols_and_stats_columns,
};
use model::config::BatchConfig;
use object_store::ObjectStore;
use tokio::{runtime::Handle, task::JoinSet};

/// Values of a column that are looked at to see whether they repeat, and the least that tell.
const SAMPLE_VALUES: usize = 8192;
const FEW_VALUES: usize = 1024;

/// Files written for a table that no commit names yet.
#[derive(Default)]
pub struct Pending {
    pub(super) adds: Vec<Add>,
    pub n_rows: u64,
}

/// How files are made.
#[derive(Clone, Copy, Debug)]
pub struct Files {
    pub row_group_rows: usize,
    pub target_bytes: usize,
    /// Written at a time, each on a thread of its own.
    pub n_at_a_time: usize,
}

impl Files {
    /// One file whatever its size.
    pub const ONE: Self = Self { row_group_rows: usize::MAX, target_bytes: usize::MAX, n_at_a_time: 1 };

    pub fn of(config: &BatchConfig, n_at_a_time: usize) -> Self {
        Self { row_group_rows: config.row_group_rows, target_bytes: config.target_file_bytes, n_at_a_time }
    }
}

/// Writes files that no commit names yet.
pub struct TableWriter {
    schema: SchemaRef,
    files: Files,
    /// Known once there are rows to look at.
    config: Option<WriterConfig>,
    store: Arc<dyn ObjectStore>,
    idle: Vec<DeltaWriter>,
    busy: JoinSet<Result<DeltaWriter>>,
    n_rows: u64,
}

impl TableWriter {
    pub(super) fn begin(store: Arc<dyn ObjectStore>, schema: &SchemaRef, files: Files) -> Self {
        let (idle, busy) = (Vec::new(), JoinSet::new());
        Self { schema: stored_schema(schema), files, config: None, store, idle, busy, n_rows: 0 }
    }

    /// Takes a batch; when it cannot be written, this says so, or a later call.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.n_rows += batch.num_rows() as u64;
        while let Some(done) = self.busy.try_join_next() {
            self.idle.push(done??);
        }
        if self.idle.is_empty() && self.busy.len() == self.files.n_at_a_time.max(1) {
            self.idle.extend(self.busy.join_next().await.transpose()?.transpose()?);
        }
        let config = match &self.config {
            Some(config) => config,
            None => self.config.insert(config(&self.schema, self.files, batch)?),
        };
        let mut writer = self.idle.pop().unwrap_or_else(|| DeltaWriter::new(self.store.clone(), config.clone()));
        let (batch, schema) = (batch.clone(), self.schema.clone());
        self.busy.spawn_blocking(move || {
            let stored = to_stored(&batch, &schema)?;
            Handle::current().block_on(writer.write(&stored))?;
            Ok(writer)
        });
        Ok(())
    }

    pub async fn finish(mut self) -> Result<Pending> {
        let mut adds = Vec::new();
        let mut closing = JoinSet::new();
        let mut close = |writer: DeltaWriter| closing.spawn_blocking(|| Handle::current().block_on(writer.close()));
        for writer in self.idle.drain(..) {
            close(writer);
        }
        while let Some(done) = self.busy.join_next().await {
            close(done??);
        }
        while let Some(closed) = closing.join_next().await {
            adds.extend(closed??);
        }
        Ok(Pending { adds, n_rows: self.n_rows })
    }
}

/// How files are encoded whose first rows these are.
fn config(schema: &SchemaRef, files: Files, first: &RecordBatch) -> Result<WriterConfig> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(files.row_group_rows));
    for (field, values) in schema.fields().iter().zip(first.columns()) {
        // Texts come in no order: their least and greatest let no reader skip anything, and cost
        // a comparison each.
        if field.data_type() == &DataType::Utf8 && field.name() != "_topic" {
            let column = ColumnPath::from(field.name().as_str());
            properties = properties.set_column_statistics_enabled(column, EnabledStatistics::None);
        }
        properties = encode(properties, vec![field.name().clone()], field, values)?;
    }
    let (n_indexed, stats) = get_num_idx_cols_and_stats_columns(None, HashMap::new());
    let file_bytes = NonZeroU64::new(files.target_bytes as u64);
    Ok(WriterConfig::new(schema.clone(), vec![], Some(properties.build()), file_bytes, None, n_indexed, stats))
}

/// A dictionary is for values that repeat: of others each is looked for, and found to be new, until the
/// dictionary is full and given up, in every row group.
fn encode(
    properties: WriterPropertiesBuilder,
    mut path: Vec<String>,
    field: &Field,
    values: &ArrayRef,
) -> Result<WriterPropertiesBuilder> {
    if let (DataType::List(item), Some(list)) = (field.data_type(), values.as_list_opt::<i32>()) {
        path.extend(["list".to_owned(), item.name().clone()]);
        return encode(properties, path, item, list.values());
    }
    let repeats = repeats(values)?;
    Ok(properties.set_column_dictionary_enabled(ColumnPath::new(path), repeats))
}

fn repeats(values: &ArrayRef) -> Result<bool> {
    let sample = values.slice(0, values.len().min(SAMPLE_VALUES));
    let n_values = sample.len() - sample.null_count();
    if n_values < FEW_VALUES {
        return Ok(true);
    }
    let rows = RowConverter::new(vec![SortField::new(sample.data_type().clone())])?.convert_columns(&[sample])?;
    let n_different = rows.iter().collect::<HashSet<_>>().len();
    Ok(n_different <= n_values / 2)
}

/// The types that Delta tables keep: plain text instead of views.
pub fn stored_schema(schema: &SchemaRef) -> SchemaRef {
    let stored = |f: &Arc<Field>| f.as_ref().clone().with_data_type(stored_type(f.data_type()));
    Arc::new(Schema::new(schema.fields().iter().map(stored).collect::<Vec<_>>()))
}

fn stored_type(kind: &DataType) -> DataType {
    match kind {
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Dictionary(_, _) => DataType::Utf8,
        DataType::UInt64 => DataType::Int64,
        DataType::UInt32 => DataType::Int32,
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::List(item) => DataType::List(Arc::new(Field::new("element", stored_type(item.data_type()), true))),
        other => other.clone(),
    }
}

fn to_stored(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.num_columns() != schema.fields().len() {
        bail!("{} columns for a table of {}", batch.num_columns(), schema.fields().len());
    }
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(c, f)| compute::cast(c, f.data_type())).collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::{
        array::{Float64Builder, Int64Array, ListBuilder, StringArray},
        datatypes::Fields,
    };

    use super::*;

    #[test]
    fn only_values_that_repeat_get_a_dictionary() {
        let item = Arc::new(Field::new("element", DataType::Float64, true));
        let mut pairs = ListBuilder::new(Float64Builder::new()).with_field(item.clone());
        for i in 0..FEW_VALUES {
            pairs.append_value([Some(i as f64), Some(-1.0 - i as f64)]);
        }
        let numbers = |of: fn(usize) -> Option<i64>| Arc::new((0..FEW_VALUES).map(of).collect::<Int64Array>());
        let texts = |of: fn(usize) -> String| Arc::new((0..FEW_VALUES).map(|i| Some(of(i))).collect::<StringArray>());
        let columns: [(&str, DataType, ArrayRef, &[&str], bool); 6] = [
            ("id", DataType::Utf8, texts(|i| i.to_string()), &["id"], false),
            ("category", DataType::Utf8, texts(|i| (i % 7).to_string()), &["category"], true),
            ("at", DataType::Int64, numbers(|i| Some(i as i64)), &["at"], false),
            // Of those that are there too few to tell.
            ("rare", DataType::Int64, numbers(|i| (i % 2 == 0).then_some(i as i64)), &["rare"], true),
            ("none", DataType::Int64, numbers(|_| None), &["none"], true),
            ("pairs", DataType::List(item), Arc::new(pairs.finish()), &["pairs", "list", "element"], false),
        ];
        let fields: Fields = columns.iter().map(|(name, kind, ..)| Field::new(*name, kind.clone(), true)).collect();
        let mut properties = WriterProperties::builder();
        for (field, (name, _, values, ..)) in fields.iter().zip(&columns) {
            properties = encode(properties, vec![(*name).to_owned()], field, values).expect("sampled");
        }
        let properties = properties.build();
        for (name, _, _, path, repeats) in columns {
            let path = ColumnPath::new(path.iter().map(|part| (*part).to_owned()).collect());
            assert_eq!(properties.dictionary_enabled(&path), repeats, "{name}");
        }
    }
}
