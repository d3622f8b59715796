//! Micro-batches into a Delta table. It asks the table every time and remembers nothing.

use anyhow::Context;
use async_trait::async_trait;
use model::{Checkpoint, LogId, TopicPartition, config::BatchConfig};
use serde_json::json;

use super::{CommitError, Committed, MicroBatch, Sink};
use crate::table::{Change, Files, Table, TableDef, Tables};

pub struct DeltaSink {
    tables: Tables,
    def: TableDef,
    config: BatchConfig,
    /// An open table; it is brought up to date before each use.
    table: Option<Table>,
}

impl DeltaSink {
    pub fn new(tables: Tables, def: TableDef, config: BatchConfig) -> Self {
        Self { tables, def, config, table: None }
    }

    pub fn def(&self) -> &TableDef {
        &self.def
    }

    /// The table as it is now, created if it is not there.
    pub async fn table(&mut self) -> anyhow::Result<&mut Table> {
        match self.table.take() {
            Some(mut table) => {
                table.refresh().await?;
                self.table = Some(table);
            }
            None => self.table = Some(self.tables.open_or_create(&self.def).await?),
        }
        self.table.as_mut().context("the table was just opened")
    }

    /// Empties the table and sets its definition and where it goes on. For a table whose rows
    /// another definition made.
    pub async fn restart_at(&mut self, at: &Checkpoint) -> anyhow::Result<()> {
        let def = self.def.clone();
        let ranges: Vec<_> = at
            .next
            .iter()
            .map(|(partition, next)| model::OffsetRange { partition: partition.clone(), start: *next, end: *next })
            .collect();
        let table = self.table().await?;
        table.commit(&def, &ranges, Default::default(), Change::Replace, &json!("definition changed")).await?;
        Ok(())
    }
}

#[async_trait]
impl Sink for DeltaSink {
    async fn checkpoint(&mut self, partitions: &[TopicPartition]) -> anyhow::Result<Checkpoint> {
        let log = LogId { id: self.def.log, epoch: 0 };
        self.table().await?.checkpoint(log, partitions).await
    }

    async fn commit(&mut self, batch: MicroBatch) -> Result<Committed, CommitError> {
        let files = Files::of(&self.config, 1);
        let def = self.def.clone();
        let table = self.table().await?;
        let mut writer = table.writer(&def.schema, files);
        writer.write(&batch.rows).await?;
        let pending = writer.finish().await?;
        table.commit(&def, &batch.ranges, pending, Change::Append, &json!("speed")).await
    }
}
