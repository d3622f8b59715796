//! Micro-batches kept in memory, shared by clones: what tests look into.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use model::{Checkpoint, LogId, TopicPartition};

use super::{CommitError, Committed, MicroBatch, Sink};

#[derive(Clone)]
pub struct MemorySink(Arc<Mutex<State>>);

struct State {
    checkpoint: Checkpoint,
    batches: Vec<MicroBatch>,
}

impl MemorySink {
    pub fn new(log: LogId) -> Self {
        Self(Arc::new(Mutex::new(State { checkpoint: Checkpoint::start_of(log), batches: Vec::new() })))
    }

    /// Everything committed, in order.
    pub fn batches(&self) -> Vec<MicroBatch> {
        self.state().batches.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Sink for MemorySink {
    async fn checkpoint(&mut self, partitions: &[TopicPartition]) -> anyhow::Result<Checkpoint> {
        let mut checkpoint = self.state().checkpoint.clone();
        checkpoint.next.retain(|p, _| partitions.contains(p));
        Ok(checkpoint)
    }

    async fn commit(&mut self, batch: MicroBatch) -> Result<Committed, CommitError> {
        let mut state = self.state();
        let known = |p: &TopicPartition| state.checkpoint.next.get(p).copied();
        if batch.ranges.iter().all(|r| known(&r.partition).is_some_and(|next| r.end <= next)) {
            return Ok(Committed::AlreadyThere);
        }
        for range in &batch.ranges {
            let next = known(&range.partition).unwrap_or(range.start);
            if range.start != next {
                return Err(CommitError::NotAdjacent { table: "memory".to_owned(), range: range.clone(), next });
            }
        }
        for range in &batch.ranges {
            state.checkpoint.next.insert(range.partition.clone(), range.end);
        }
        state.batches.push(batch);
        Ok(Committed::Done)
    }
}
