//! Rows as people and programs take them: JSON, CSV, Arrow.

use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use datafusion::arrow::{
    array::{ArrayRef, AsArray, RecordBatch, StringArray},
    compute, csv,
    datatypes::{DataType, Field, Schema, SchemaRef},
    ipc::writer::StreamWriter,
    json::{WriterBuilder, writer::JsonArray},
};
use model::query::RowFormat;

/// Encodes an answer in the asked format.
pub fn encode(format: RowFormat, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Bytes> {
    match format {
        RowFormat::Json => json(batches),
        RowFormat::Csv => csv(schema, batches),
        RowFormat::Arrow => arrow(schema, batches),
    }
}

fn json(batches: &[RecordBatch]) -> Result<Bytes> {
    let builder = WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = builder.build::<_, JsonArray>(Vec::new());
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    let text = writer.into_inner();
    // Without a batch nothing was begun.
    Ok(if text.is_empty() { Bytes::from_static(b"[]") } else { text.into() })
}

fn csv(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Bytes> {
    let is_text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let is_nested = |kind: &DataType| kind.is_nested();
    let as_text = |f: &Arc<Field>| match f.data_type() {
        kind if is_text(kind) || is_nested(kind) => f.as_ref().clone().with_data_type(DataType::Utf8),
        _ => f.as_ref().clone(),
    };
    let schema = Arc::new(Schema::new(schema.fields().iter().map(as_text).collect::<Vec<_>>()));
    let mut writer = csv::WriterBuilder::new().with_header(true).build(Vec::new());
    // The header comes with the first batch, so there is always one.
    writer.write(&RecordBatch::new_empty(schema.clone()))?;
    for batch in batches {
        let columns = batch.columns().iter().map(|column| match column.data_type() {
            kind if is_text(kind) => Ok(guarded(&compute::cast(column, &DataType::Utf8)?)),
            kind if is_nested(kind) => compute::cast(column, &DataType::Utf8),
            _ => Ok(column.clone()),
        });
        writer.write(&RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, _>>()?)?)?;
    }
    Ok(writer.into_inner().into())
}

/// A spreadsheet runs a cell that begins like a formula; `'` in front keeps it text.
fn guarded(column: &ArrayRef) -> ArrayRef {
    let guard = |text: &str| match text.as_bytes().first() {
        Some(b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r' | 0) => format!("'{text}"),
        _ => text.to_owned(),
    };
    let texts = column.as_string::<i32>().iter();
    Arc::new(texts.map(|t| t.map(guard)).collect::<StringArray>())
}

fn arrow(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Bytes> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(writer.into_inner()?.into())
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::Int64Array;

    use super::*;

    fn answer() -> (SchemaRef, Vec<RecordBatch>) {
        let schema = Arc::new(Schema::new(vec![
            Field::new("text", DataType::Utf8, true),
            Field::new("n", DataType::Int64, true),
        ]));
        let texts = StringArray::from(vec![Some("=1+1"), Some("a\"b,c\nd"), None]);
        let batch = RecordBatch::try_new(
            schema.clone(),
            vec![Arc::new(texts), Arc::new(Int64Array::from(vec![Some(-1), None, Some(3)]))],
        );
        (schema, vec![batch.expect("columns fit")])
    }

    #[test]
    fn json_keeps_the_columns_order_and_says_null() {
        let (schema, batches) = answer();
        let text = encode(RowFormat::Json, &schema, &batches).expect("json");
        assert_eq!(
            text,
            "[{\"text\":\"=1+1\",\"n\":-1},{\"text\":\"a\\\"b,c\\nd\",\"n\":null},{\"text\":null,\"n\":3}]"
        );
        assert_eq!(encode(RowFormat::Json, &schema, &[]).expect("json"), "[]");
    }

    #[test]
    fn csv_guards_formulas_and_leaves_numbers_alone() {
        let (schema, batches) = answer();
        let text = encode(RowFormat::Csv, &schema, &batches).expect("csv");
        assert_eq!(text, "text,n\n'=1+1,-1\n\"a\"\"b,c\nd\",\n,3\n");
        assert_eq!(encode(RowFormat::Csv, &schema, &[]).expect("csv"), "text,n\n");
    }
}
