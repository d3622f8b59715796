//! DataFusion sessions with bounded memory that spill to the data folder.

use std::{
    fmt::{self, Display, Formatter},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use datafusion::{
    common::{
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode},
    },
    execution::{
        SessionStateBuilder,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::{FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation},
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties, coalesce_partitions::CoalescePartitionsExec,
        repartition::RepartitionExec,
    },
    prelude::{SessionConfig, SessionContext},
};
use uuid::Uuid;

/// Rows handled at a time where memory is short: a sort needs room for a few such batches.
const SMALL_BATCH_ROWS: usize = 1024;

/// How a session works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// On all cores and in memory alone: what does not fit fails, and is asked again in another
    /// mode.
    InMemory,
    /// The same, for one share of what is joined after the other (`Split::groups_by_shares`).
    ByShares,
    /// On one core, in small batches. Sorts and groups spill; what is joined must fit.
    Spilling,
    /// Joins sort what they join, and so spill, too.
    SortingJoins,
}

impl Mode {
    pub fn is_by_shares(self) -> bool {
        matches!(self, Self::ByShares | Self::Spilling)
    }
}

/// The memory and the spill folder that sessions share.
#[derive(Debug)]
pub struct Resources {
    in_memory: Arc<RuntimeEnv>,
    spilling: Arc<RuntimeEnv>,
}

impl Resources {
    pub fn new(memory_bytes: usize, spill: &Path) -> Result<Arc<Self>> {
        std::fs::create_dir_all(spill).with_context(|| format!("the spill folder {}", spill.display()))?;
        let pool: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(memory_bytes));
        let with = |pool: Arc<dyn MemoryPool>, mode| {
            let disk = DiskManagerBuilder::default().with_mode(mode);
            RuntimeEnvBuilder::new().with_memory_pool(pool).with_disk_manager_builder(disk).build_arc()
        };
        let of_first_come = FirstCome(MemoryConsumer::new("in memory").register(&pool));
        let in_memory = with(Arc::new(of_first_come), DiskManagerMode::Disabled)?;
        let spilling = with(pool, DiskManagerMode::Directories(vec![spill.to_owned()]))?;
        Ok(Arc::new(Self { in_memory, spilling }))
    }

    /// A session of its own for one question or one run.
    pub fn session(&self, mode: Mode) -> SessionContext {
        let mut config = SessionConfig::new().with_information_schema(false);
        let options = config.options_mut();
        options.optimizer.prefer_hash_join = mode != Mode::SortingJoins;
        options.execution.parquet.pushdown_filters = true;
        // Sorted runs are merged with this much set aside; the default would be most of a small pool.
        options.execution.sort_spill_reservation_bytes = 1 << 20;
        // Views of text share buffers that each batch is charged for anew.
        options.execution.parquet.schema_force_view_types = mode == Mode::InMemory;
        let small = |config: SessionConfig| config.with_batch_size(SMALL_BATCH_ROWS);
        match mode {
            Mode::InMemory | Mode::ByShares => SessionContext::new_with_config_rt(config, self.in_memory.clone()),
            Mode::Spilling => {
                SessionContext::new_with_config_rt(small(config).with_target_partitions(1), self.spilling.clone())
            }
            Mode::SortingJoins => {
                // With one partition joins are by hash, whatever is preferred.
                let state = SessionStateBuilder::new()
                    .with_config(small(config).with_target_partitions(2))
                    .with_runtime_env(self.spilling.clone())
                    .with_default_features()
                    .with_physical_optimizer_rule(Arc::new(OneWriterPerPartition))
                    .build();
                SessionContext::new_with_state(state)
            }
        }
    }
}

/// What is left of a fair pool, for work that cannot spill: who comes first has it, to the last byte. As a part
/// of its own in the pool, each sort and each aggregate would be held to an equal share, used or not.
#[derive(Debug)]
struct FirstCome(MemoryReservation);

impl MemoryPool for FirstCome {
    fn name(&self) -> &str {
        "first come"
    }

    fn grow(&self, _: &MemoryReservation, n_bytes: usize) {
        self.0.grow(n_bytes);
    }

    fn shrink(&self, _: &MemoryReservation, n_bytes: usize) {
        self.0.shrink(n_bytes);
    }

    fn try_grow(&self, _: &MemoryReservation, n_bytes: usize) -> datafusion::error::Result<()> {
        self.0.try_grow(n_bytes)
    }

    fn reserved(&self) -> usize {
        self.0.size()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Unknown
    }
}

impl Display for FirstCome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(reserved: {})", self.name(), self.reserved())
    }
}

/// Has one task alone divide rows among partitions: when two of them spill, DataFusion 55.2 may
/// wait for ever.
#[derive(Debug)]
struct OneWriterPerPartition;

impl PhysicalOptimizerRule for OneWriterPerPartition {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        let one_writer = plan.transform_up(|node| {
            let Some(repartition) = node.downcast_ref::<RepartitionExec>() else {
                return Ok(Transformed::no(node));
            };
            let input = repartition.input();
            if repartition.preserve_order() || input.output_partitioning().partition_count() <= 1 {
                return Ok(Transformed::no(node));
            }
            let one: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(input.clone()));
            let repartition = RepartitionExec::try_new(one, repartition.partitioning().clone())?;
            Ok(Transformed::yes(Arc::new(repartition)))
        })?;
        Ok(one_writer.data)
    }

    fn name(&self) -> &'static str {
        "one_writer_per_partition"
    }

    fn schema_check(&self) -> bool {
        true
    }
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

/// DataFusion's word for a pool that is too small, wherever in the chain it stands. Some
/// operators pass it on as text only.
pub fn is_out_of_memory(error: &anyhow::Error) -> bool {
    use datafusion::error::DataFusionError;
    error.chain().any(|cause| {
        let root = cause.downcast_ref::<DataFusionError>().map(DataFusionError::find_root);
        matches!(root, Some(DataFusionError::ResourcesExhausted(_)))
            || cause.to_string().contains("Resources exhausted")
    })
}

/// A name as it stands in SQL, whatever characters it has.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
