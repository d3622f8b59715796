//! `corkboard inspect`: what stands in a data folder, layer by layer. It takes no lock and
//! writes nothing, so it may be used while a server runs.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use engine::{
    batch::manifest,
    landing::{marker, objects},
};
use event_log::inspect::{self, Depth};
use model::{Checkpoint, LogId, Offset, TopicPartition, config::Config};
use serde_json::{Value, json};

use crate::{
    data::{self, DataFolder},
    show::{self, Format, Row},
};

#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    #[command(subcommand)]
    what: Option<What>,

    /// How to print it.
    #[arg(long, value_enum, default_value_t, global = true)]
    format: Format,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Partitions, segments and their state; with --verify every byte is checked.
    Log {
        /// Read everything and report what is damaged.
        #[arg(long)]
        verify: bool,
    },
    /// Records as they stand in the log.
    Records {
        /// For example pin-0.
        partition: TopicPartition,
        /// The first offset.
        #[arg(long, default_value_t = 0)]
        from: u64,
        #[arg(long, default_value_t = 10)]
        count: usize,
    },
    /// Landing objects per partition, and foreign ones.
    Landing,
    /// How far each layer has taken each partition.
    Checkpoints,
    /// The last batch run.
    Manifest,
}

type Rows = Vec<Row>;

pub async fn run(args: InspectArgs, folder: &DataFolder, config: &Config) -> Result<()> {
    folder.existing()?;
    let rows = match args.what {
        None | Some(What::Checkpoints) => checkpoints(folder, config).await?,
        Some(What::Log { verify }) => log(folder, if verify { Depth::Verify } else { Depth::Quick })?,
        Some(What::Records { partition, from, count }) => records(folder, &partition, Offset(from), count)?,
        Some(What::Landing) => landing(folder).await?,
        Some(What::Manifest) => {
            let manifest = manifest::latest(&folder.open_tables(config)?).await?;
            let manifest = manifest.context("there was no batch run yet: `corkboard batch run`")?;
            println!("{}", serde_json::to_string_pretty(&manifest)?);
            return Ok(());
        }
    };
    print(&rows, args.format)
}

fn print(rows: &Rows, format: Format) -> Result<()> {
    match format {
        Format::Json => println!("{}", serde_json::to_string(rows)?),
        Format::Table if rows.is_empty() => println!("nothing"),
        Format::Table => println!("{}", show::table(rows)),
        Format::Csv => {
            if let Some(first) = rows.first() {
                println!("{}", first.0.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(","));
            }
            for row in rows {
                let cells = row.0.iter().map(|(_, v)| v.as_str().map_or_else(|| v.to_string(), quoted));
                println!("{}", cells.collect::<Vec<_>>().join(","));
            }
        }
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

macro_rules! row {
    ($($name:literal: $value:expr),+ $(,)?) => {
        Row(vec![$(($name.to_owned(), json!($value))),+])
    };
}

fn log(folder: &DataFolder, depth: Depth) -> Result<Rows> {
    let report = inspect::describe(&folder.log(), depth)?;
    let mut rows = Rows::new();
    for partition in &report.partitions {
        for segment in &partition.segments {
            rows.push(row! {
                "partition": partition.partition.to_string(),
                "segment": segment.path.file_name().map(|n| n.to_string_lossy().into_owned()),
                "start": segment.base,
                "end": segment.end,
                "size_bytes": segment.size_bytes,
                "first_timestamp_ms": segment.first_timestamp_ms,
                "last_timestamp_ms": segment.last_timestamp_ms,
                "damaged": segment.damaged.len() + partition.quarantined.len(),
            });
        }
    }
    Ok(rows)
}

fn records(folder: &DataFolder, partition: &TopicPartition, from: Offset, count: usize) -> Result<Rows> {
    // A dump ends with a segment; the next begins with another.
    let mut records = inspect::dump(&folder.log(), partition, from, count)?;
    while let Some(last) = records.last().filter(|_| records.len() < count) {
        let more = inspect::dump(&folder.log(), partition, last.offset.plus(1), count - records.len())?;
        if more.is_empty() {
            break;
        }
        records.extend(more);
    }
    // Through text, which keeps the fields in their order.
    Ok(serde_json::from_str(&serde_json::to_string(&records)?)?)
}

async fn landing(folder: &DataFolder) -> Result<Rows> {
    let store = folder.open_landing()?;
    let listing = objects::list(&store, None, &Checkpoint::start_of(LogId::NONE)).await?;
    let mut rows = Rows::new();
    for object in &listing.objects {
        rows.push(row! {
            "partition": object.partition.to_string(),
            "start": object.start,
            "size_bytes": object.size_bytes,
            "object": object.key.to_string(),
            "problem": Value::Null,
        });
    }
    for foreign in &listing.foreign {
        rows.push(row! {
            "partition": Value::Null,
            "start": Value::Null,
            "size_bytes": Value::Null,
            "object": foreign.key.to_string(),
            "problem": foreign.reason,
        });
    }
    Ok(rows)
}

/// Per partition: the log's ends and how far landing, batch and real-time have come.
async fn checkpoints(folder: &DataFolder, config: &Config) -> Result<Rows> {
    let store = folder.open_landing()?;
    let landed = engine::landing::Landing::checkpoint(&store).await?;
    let id = match marker::read(store.objects().as_ref()).await? {
        Some(marker) => LogId { id: marker.log, epoch: 0 },
        None => LogId::NONE,
    };
    let mut bounds: BTreeMap<TopicPartition, Option<model::Bounds>> =
        landed.next.keys().map(|p| (p.clone(), None)).collect();
    let mut log = id;
    if folder.log().is_dir() {
        let report = inspect::describe(&folder.log(), Depth::Quick)?;
        log = LogId { id: report.id, epoch: report.epoch };
        // No layer takes internal topics.
        let taken = report.partitions.into_iter().filter(|p| !p.partition.topic.is_internal());
        bounds.extend(taken.map(|p| (p.partition, Some(p.bounds))));
    }
    let definitions = data::definitions(config).await?;
    let tables = folder.open_tables(config)?;
    let mut rows = Rows::new();
    for (partition, bounds) in bounds {
        let stream = definitions.stream_of(partition.topic.as_str()).map(|c| c.stream().name.clone());
        let mut taken = BTreeMap::new();
        for layer in ["batch", "realtime"] {
            let Some(stream) = &stream else { continue };
            let Some(mut table) = tables.open(&format!("{layer}/{stream}")).await? else { continue };
            let at = table.checkpoint(log, std::slice::from_ref(&partition)).await?;
            taken.insert(layer, at.next.get(&partition).copied());
        }
        rows.push(row! {
            "partition": partition.to_string(),
            "stream": stream,
            "log_start": bounds.map(|b| b.start),
            "log_end": bounds.map(|b| b.end),
            "landed": landed.next.get(&partition),
            "batch": taken.get("batch").copied().flatten(),
            "realtime": taken.get("realtime").copied().flatten(),
        });
    }
    Ok(rows)
}
