//! DataFusion sessions with bounded memory that spill to the data folder.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use datafusion::{
    execution::{
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::FairSpillPool,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    prelude::{SessionConfig, SessionContext},
};
use uuid::Uuid;

/// Rows handled at a time where memory is short: a sort needs room for a few such batches.
const SMALL_BATCH_ROWS: usize = 1024;

/// How joins are done: by hash tables, which must fit in memory, or by sorting, which spills
/// and shares the memory among as few sorts as can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joins {
    InMemory,
    Spilling,
}

/// The memory and the spill folder that sessions share.
pub fn runtime(memory_bytes: usize, spill: &Path) -> Result<Arc<RuntimeEnv>> {
    std::fs::create_dir_all(spill).with_context(|| format!("the spill folder {}", spill.display()))?;
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Directories(vec![spill.to_owned()]));
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(memory_bytes)))
        .with_disk_manager_builder(disk)
        .build_arc()?;
    Ok(runtime)
}

/// A session of its own for one question or one run.
pub fn session(runtime: Arc<RuntimeEnv>, joins: Joins) -> SessionContext {
    let mut config = SessionConfig::new().with_information_schema(false);
    let options = config.options_mut();
    options.optimizer.prefer_hash_join = joins == Joins::InMemory;
    options.execution.parquet.pushdown_filters = true;
    // Sorted runs are merged with this much set aside; the default would be most of a small pool.
    options.execution.sort_spill_reservation_bytes = 1 << 20;
    // Views of text share buffers that each batch is charged for anew.
    options.execution.parquet.schema_force_view_types = joins == Joins::InMemory;
    if joins == Joins::Spilling {
        config = config.with_batch_size(SMALL_BATCH_ROWS).with_target_partitions(1);
    }
    SessionContext::new_with_config_rt(config, runtime)
}

/// A folder of one run or one question for what does not fit in memory, removed with it.
pub struct Scratch {
    folder: PathBuf,
    /// The memory that those who write here share.
    pub memory_bytes: usize,
}

impl Scratch {
    pub fn within(spill: &Path, memory_bytes: usize) -> Result<Self> {
        let folder = spill.join(format!("rows-{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { folder, memory_bytes })
    }

    /// A file for the rows of a table.
    pub fn file(&self, table: &str) -> PathBuf {
        self.folder.join(format!("{table}.parquet"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), error = %e, "the spill folder keeps files of what has ended");
        }
    }
}

/// A name as it stands in SQL, whatever characters it has.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
