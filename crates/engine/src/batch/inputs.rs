//! What the views of a run are computed from: the batch tables, each with the rows that count.
//!
//! Which rows count is found once per table and not once per view: where a stream is
//! deduplicated, the rows that are left go to a file in the spill folder, which is removed at
//! the end of the run.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    dataframe::DataFrameWriteOptions,
    execution::runtime_env::RuntimeEnv,
    prelude::{ParquetReadOptions, SessionContext},
};
use model::ViewDef;
use uuid::Uuid;

use super::Batch;
use crate::{
    relation::{self, Parts, Relation},
    serving::is_out_of_memory,
    session::{self, Joins},
};

pub struct Inputs<'a> {
    batch: &'a Batch,
    runtime: Arc<RuntimeEnv>,
    folder: PathBuf,
    /// Files with the rows that count, by table.
    deduplicated: BTreeMap<String, PathBuf>,
}

impl<'a> Inputs<'a> {
    pub async fn prepare(batch: &'a Batch) -> Result<Self> {
        let folder = batch.spill.join(format!("inputs-{}", Uuid::new_v4().simple()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let runtime = session::runtime(batch.config.memory_bytes, &batch.spill)?;
        let mut inputs = Self { batch, runtime, folder, deduplicated: BTreeMap::new() };
        for relation in inputs.relations().iter().filter(|r| !r.identity.is_empty()) {
            let file = inputs.folder.join(format!("{}.parquet", relation.name));
            match inputs.deduplicate(relation, &file, Joins::InMemory).await {
                Err(e) if is_out_of_memory(&e) => inputs.deduplicate(relation, &file, Joins::Spilling).await,
                done => done,
            }
            .with_context(|| format!("table {}", relation.name))?;
            inputs.deduplicated.insert(relation.name.clone(), file);
        }
        Ok(inputs)
    }

    /// Computes a view.
    pub async fn evaluate(&self, view: &ViewDef, joins: Joins) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let context = session::session(self.runtime.clone(), joins);
        let wanted = relation::tables_of(&context, &view.sql)?;
        for relation in self.relations().iter().filter(|r| wanted.contains(&r.name)) {
            match self.deduplicated.get(&relation.name) {
                Some(file) => {
                    let name = relation::quoted(&relation.name);
                    context.register_parquet(name, text(file)?, ParquetReadOptions::default()).await?;
                }
                None => self.register_table(&context, relation).await?,
            }
        }
        let frame = relation::plan(&context, &view.sql).await?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        Ok((schema, frame.collect().await?))
    }

    fn relations(&self) -> Vec<Relation<'a>> {
        let of_stream = |cleaning: &'a Arc<crate::cleaning::Cleaning>| {
            let dedup = self.batch.dedup.unwrap_or(cleaning.stream().dedup);
            [Relation::rows(cleaning, dedup), Relation::rejects(cleaning)]
        };
        self.batch.definitions.streams.iter().flat_map(of_stream).collect()
    }

    async fn deduplicate(&self, relation: &Relation<'_>, file: &Path, joins: Joins) -> Result<()> {
        let context = session::session(self.runtime.clone(), joins);
        self.register_table(&context, relation).await?;
        let rows = context.table(relation::quoted(&relation.name)).await?;
        rows.write_parquet(text(file)?, DataFrameWriteOptions::new().with_single_file_output(true), None).await?;
        Ok(())
    }

    async fn register_table(&self, context: &SessionContext, relation: &Relation<'_>) -> Result<()> {
        let batch = match self.batch.tables.open(&format!("batch/{}", relation.name)).await? {
            Some(table) => Some(table.scan(context).await?),
            None => None,
        };
        relation.register(context, Parts { batch, ..Parts::default() }).await
    }
}

impl Drop for Inputs<'_> {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), error = %e, "the spill folder keeps files of an ended run");
        }
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
