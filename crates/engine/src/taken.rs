//! Whether the layers have taken all of a topic, asked by whoever deletes it.
//!
//! Of a topic that is gone, batch runs find the landing objects, and questions find in the real-time
//! tables what the batch tables lack; so it is taken once landing and the speed layer have come to its
//! end, each as far as it runs in this process: nobody waits for a layer that nobody runs. Batch runs
//! are not waited for, they may be a day away. It asks the stores, as the layers do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use async_trait::async_trait;
use model::{Behind, Bounds, Checkpoint, EventLog, Layers, LogId, Offset, TopicName, TopicPartition};

use crate::{cleaning::Cleaning, definitions::Definitions, haste::Haste, landing::Landing, table::Tables};

/// Between two looks at layers that are behind. They are woken with each of so many looks: one that
/// fails waits before it tries again, and that has its reason.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
const LOOKS_PER_WAKE: usize = 20;
/// Partitions that are named as behind; of more it says that there are more.
const MAX_TOLD: usize = 3;

pub struct Taken {
    pub log: Arc<dyn EventLog>,
    /// Asked, not run; None where landing does not run in this process.
    pub landing: Option<Landing>,
    /// None where the speed layer does not.
    pub tables: Option<Tables>,
    pub definitions: Arc<Definitions>,
    /// The same that the layers have.
    pub haste: Haste,
    /// Has them look.
    pub wake: Box<dyn Fn() + Send + Sync>,
}

/// A partition that holds something.
struct Held {
    partition: TopicPartition,
    bounds: Bounds,
}

#[async_trait]
impl Layers for Taken {
    async fn take(&self, topic: &TopicName, patience: Duration) -> Result<u64, Behind> {
        let deadline = Instant::now() + patience;
        let _hurried = self.haste.with(topic);
        let mut n_looks: usize = 0;
        let mut taken = BTreeMap::new();
        loop {
            let behind = match self.look(topic, &mut taken).await {
                Ok((sum_of_ends, behind)) if behind.is_empty() => return Ok(sum_of_ends),
                Ok((_, behind)) => told(&behind),
                Err(e) => format!("Whether the layers have taken them is not known: {e:#}"),
            };
            if Instant::now() >= deadline {
                return Err(Behind(behind));
            }
            if n_looks.is_multiple_of(LOOKS_PER_WAKE) {
                (self.wake)();
            }
            n_looks += 1;
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

fn told(behind: &[String]) -> String {
    let (told, rest) = behind.split_at(behind.len().min(MAX_TOLD));
    let more = if rest.is_empty() { String::new() } else { format!("; and {} more", rest.len()) };
    format!("Behind are {}{more}", told.join("; "))
}

impl Taken {
    /// The sum of the log end offsets, and which layer is behind where. Partitions that are `taken`
    /// up to their ends are not looked at again.
    async fn look(
        &self,
        topic: &TopicName,
        taken: &mut BTreeMap<TopicPartition, Offset>,
    ) -> Result<(u64, Vec<String>)> {
        let description = self.log.describe().await?;
        let n_partitions = description.topics.get(topic).copied().unwrap_or_default();
        let (mut sum_of_ends, mut held) = (0, Vec::new());
        for number in 0..n_partitions {
            let partition = TopicPartition::new(topic.clone(), number);
            let bounds = match self.log.bounds(&partition).await {
                // Another was faster.
                Err(e) if e.is_gone() => return Ok((0, vec![])),
                bounds => bounds?,
            };
            sum_of_ends += bounds.end.0;
            if bounds.start < bounds.end && taken.get(&partition) != Some(&bounds.end) {
                held.push(Held { partition, bounds });
            }
        }
        if held.is_empty() {
            return Ok((sum_of_ends, vec![]));
        }
        // Rows and rejects are mostly behind together.
        let mut behind: BTreeSet<(String, &TopicPartition)> = BTreeSet::new();
        let partitions: Vec<TopicPartition> = held.iter().map(|held| held.partition.clone()).collect();
        if let Some(landing) = &self.landing {
            let mut at = Checkpoint::start_of(description.id);
            for partition in &partitions {
                at.next.insert(partition.clone(), landing.position(description.id, partition).await?);
            }
            behind.extend(held.iter().filter_map(|held| held.behind("landing", &at)));
        }
        if let Some(tables) = &self.tables {
            for cleaning in self.definitions.streams.iter().filter(|c| c.stream().takes(topic.as_str())) {
                let layer = format!("the speed layer of stream {}", cleaning.stream().name);
                for name in [cleaning.stream().name.clone(), cleaning.stream().rejected()] {
                    let at = in_tables(tables, cleaning, &name, description.id, &partitions).await?;
                    behind.extend(held.iter().filter_map(|held| held.behind(&layer, &at)));
                }
            }
        }
        for Held { partition, bounds } in &held {
            if !behind.iter().any(|(_, lags)| *lags == partition) {
                taken.insert(partition.clone(), bounds.end);
            }
        }
        Ok((sum_of_ends, behind.into_iter().map(|(told, _)| told).collect()))
    }
}

impl Held {
    /// What to tell of a layer that is behind.
    fn behind(&self, layer: &str, at: &Checkpoint) -> Option<(String, &TopicPartition)> {
        let (next, Bounds { start, end }) = (at.next_of(&self.partition), self.bounds);
        let behind = || format!("{layer}, which is at {} of {} [{start}, {end})", next.max(start), self.partition);
        (next < end).then(|| (behind(), &self.partition))
    }
}

/// How far the further one of a relation's two tables reaches.
async fn in_tables(
    tables: &Tables,
    cleaning: &Cleaning,
    name: &str,
    log: LogId,
    partitions: &[TopicPartition],
) -> Result<Checkpoint> {
    let mut furthest = Checkpoint::start_of(log);
    for layer in ["batch", "realtime"] {
        let Some(mut table) = tables.open(&format!("{layer}/{name}")).await? else { continue };
        // Real-time rows of another definition are given up. The batch table's are made anew from the
        // landing objects, so that it counts.
        if layer == "realtime" && table.definition() != Some(cleaning.definition()) {
            continue;
        }
        let at = table.checkpoint(log, partitions).await?;
        for (partition, next) in at.next {
            let reached = furthest.next.entry(partition).or_default();
            *reached = (*reached).max(next);
        }
    }
    Ok(furthest)
}
