//! `corkboard view` and `corkboard views`: answers in a terminal, or for the next program.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use engine::serving::Serving;
use event_log::{OpenError, open_read_only};
use model::{
    EventLog, Query, Scope,
    config::Config,
    query::{Ask, Boundary, RowFormat},
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;

use crate::{
    data::{self, DataFolder},
    say::{self, say},
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people, with a line that says how far the answer reaches.
    #[default]
    Table,
    /// An array of objects.
    Json,
    /// RFC 4180 with a header line.
    Csv,
}

/// A serving layer over a data folder that another process may be running on.
pub async fn over_data(folder: &DataFolder, config: &Config, spill: &Path) -> Result<Serving> {
    let log = match open_read_only(&folder.existing()?.log()) {
        Ok(log) => Some(Arc::new(log) as Arc<dyn EventLog>),
        Err(OpenError::NoLog { .. }) => None,
        Err(e) => return Err(e.into()),
    };
    serving(log, &folder.tables(), config, spill).await
}

/// A serving layer over a tables folder alone.
pub async fn over_tables(tables: &Path, config: &Config, spill: &Path) -> Result<Serving> {
    if !tables.is_dir() {
        bail!("{} is no folder: name one that `corkboard batch run --tables` wrote", tables.display());
    }
    serving(None, tables, config, spill).await
}

async fn serving(log: Option<Arc<dyn EventLog>>, tables: &Path, config: &Config, spill: &Path) -> Result<Serving> {
    let definitions = data::definitions(config).await?;
    Serving::new(log, data::look_at_tables(tables, config)?, definitions, None, config.serving.clone(), spill)
}

/// Asks for a view and prints it.
pub async fn view(serving: &dyn Query, name: &str, scope: Scope, format: Format) -> Result<()> {
    let row_format = if format == Format::Csv { RowFormat::Csv } else { RowFormat::Json };
    let answer = serving.query(&Ask { view: name.to_owned(), scope, format: row_format }).await?;
    if format == Format::Table {
        let rows: Vec<Row> = serde_json::from_slice(&answer.body).context("the answer's rows")?;
        if answer.n_rows == 0 {
            say!("no rows")?;
        } else {
            say!("{}", table(&rows))?;
        }
        eprintln!("{}", reach(&answer.boundary));
    } else {
        say::bytes(&answer.body)?;
        if format == Format::Json {
            say!("")?;
        }
    }
    Ok(())
}

/// A row with its columns in the order of the answer, which a `Map` would sort.
#[derive(Clone, Debug, Default)]
pub struct Row(pub Vec<(String, Value)>);

impl Row {
    pub fn get(&self, column: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == column).map(|(_, value)| value)
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RowVisitor)
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = Row;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
        let mut row = Row::default();
        while let Some(cell) = map.next_entry()? {
            row.0.push(cell);
        }
        Ok(row)
    }
}

/// Rows as columns with a head; numbers to the right.
pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    if let Some(first) = rows.first() {
        table.set_header(first.0.iter().map(|(name, _)| name));
    }
    for row in rows {
        table.add_row(row.0.iter().map(|(_, value)| cell(value)));
    }
    table
}

fn cell(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::new("–"),
        Value::String(text) => Cell::new(text),
        number @ Value::Number(_) => Cell::new(number).set_alignment(CellAlignment::Right),
        other => Cell::new(other),
    }
}

/// How far an answer reaches, in words.
pub fn reach(boundary: &Boundary) -> String {
    let sum = |next: &std::collections::BTreeMap<_, model::Offset>| next.values().map(|o| o.0).sum::<u64>();
    let age = |ms: Option<u64>| ms.map_or("never".to_owned(), |ms| format!("{:.1} s ago", ms as f64 / 1000.0));
    let batch = format!("batch through {} records ({})", sum(&boundary.batch_through), age(boundary.batch_age_ms));
    if boundary.scope == Scope::Batch {
        return format!("scope batch: {batch}");
    }
    format!(
        "scope {}: {batch}, real-time through {} ({}), tail through {}{}",
        boundary.scope,
        sum(&boundary.realtime_through),
        age(boundary.realtime_age_ms),
        sum(&boundary.tail_through),
        if boundary.complete { "" } else { ": the tail is longer than serving.max_tail_bytes and was cut" }
    )
}

/// Prints what can be asked for.
pub fn views(serving: &dyn Query, format: Format) -> Result<()> {
    let views = serving.views();
    if format == Format::Table {
        let width = views.iter().map(|v| v.name.len()).max().unwrap_or_default();
        for view in views {
            say!("{:width$}  {}", view.name, view.question)?;
        }
        return Ok(());
    }
    let rows: Vec<Value> = views
        .iter()
        .map(|v| serde_json::json!({"name": v.name, "title": v.title, "question": v.question, "chart": v.chart}))
        .collect();
    say!("{}", serde_json::to_string(&rows)?)
}
