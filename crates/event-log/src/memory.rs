//! The log in memory: for tests, and for trying things out. Durable for as long as the process.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use model::{
    Bounds, Ended, EventLog, LogDescription, LogError, LogId, Offset, OffsetRange, Record, StoredRecord, TopicChange,
    TopicName, TopicPartition,
};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    embedded::check_sizes,
    topics::{Planned, check_ends, end_at, plan},
};

/// What a record costs beside its own bytes: without it, empty records would have no limit.
const RECORD_OVERHEAD_BYTES: usize = 16;
const MAX_RECORD_BYTES: usize = 1 << 20;

pub struct MemoryLog {
    id: LogId,
    max_record_bytes: usize,
    topics: Mutex<Topics>,
    moved: watch::Sender<u64>,
}

#[derive(Default)]
struct Topics {
    held: BTreeMap<TopicName, Vec<Held>>,
    ended: Ended,
}

struct Held {
    start: Offset,
    records: VecDeque<Record>,
}

impl Held {
    fn bounds(&self) -> Bounds {
        Bounds { start: self.start, end: self.start.plus(self.records.len()) }
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLog {
    /// An empty log with an identity of its own, for records of up to 1 MiB.
    pub fn new() -> Self {
        Self::with_max_record_bytes(MAX_RECORD_BYTES)
    }

    pub fn with_max_record_bytes(max_record_bytes: usize) -> Self {
        let id = LogId { id: Uuid::new_v4(), epoch: 0 };
        Self { id, max_record_bytes, topics: Mutex::default(), moved: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, id: &TopicPartition, act: impl FnOnce(&mut Held) -> Result<T, LogError>) -> Result<T, LogError> {
        let mut topics = self.lock();
        let partitions = topics.held.get_mut(&id.topic).ok_or_else(|| LogError::UnknownTopic(id.topic.clone()))?;
        act(partitions.get_mut(id.partition as usize).ok_or_else(|| LogError::UnknownPartition(id.clone()))?)
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    async fn describe(&self) -> Result<LogDescription, LogError> {
        let topics = self.lock();
        let ended = topics.ended.clone();
        let topics = topics.held.iter().map(|(topic, held)| (topic.clone(), held.len() as u32)).collect();
        Ok(LogDescription { id: self.id, topics, ended })
    }

    async fn change_topic(&self, topic: &TopicName, change: TopicChange) -> Result<(), LogError> {
        let topics = &mut *self.lock();
        match plan(topic, change, topics.held.get(topic).map(|partitions| partitions.len() as u32))? {
            Planned::Nothing => return Ok(()),
            Planned::Add(numbers) => {
                let ended = topics.ended.get(topic).map(Vec::as_slice).unwrap_or_default();
                let starts = numbers.map(|p| ended.get(p as usize).copied().unwrap_or_default());
                let added = starts.map(|start| Held { start, records: VecDeque::new() });
                topics.held.entry(topic.clone()).or_default().extend(added);
            }
            Planned::Delete { sum_of_ends } => {
                let partitions = topics.held.get(topic).map(Vec::as_slice).unwrap_or_default();
                let ends: Vec<Offset> = partitions.iter().map(|held| held.bounds().end).collect();
                check_ends(topic, &ends, sum_of_ends)?;
                topics.held.remove(topic);
                end_at(Arc::make_mut(&mut topics.ended).entry(topic.clone()).or_default(), &ends);
            }
        }
        self.moved.send_modify(|n| *n += 1);
        Ok(())
    }

    async fn append(&self, partition: &TopicPartition, records: Vec<Record>) -> Result<OffsetRange, LogError> {
        let n_records = records.len();
        let start = self.with(partition, |held| {
            check_sizes(&records, self.max_record_bytes)?;
            let start = held.bounds().end;
            held.records.extend(records);
            Ok(start)
        })?;
        if n_records > 0 {
            self.moved.send_modify(|n| *n += 1);
        }
        Ok(OffsetRange { partition: partition.clone(), start, end: start.plus(n_records) })
    }

    async fn fetch(
        &self,
        partition: &TopicPartition,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Vec<StoredRecord>, LogError> {
        self.with(partition, |held| {
            let bounds = held.bounds();
            if from < bounds.start || from > bounds.end {
                return Err(LogError::OutOfRange { partition: partition.clone(), asked: from, bounds });
            }
            let (mut records, mut n_bytes) = (Vec::new(), 0);
            for record in held.records.range((from.0 - bounds.start.0) as usize..) {
                n_bytes += record.size_bytes() + RECORD_OVERHEAD_BYTES;
                if !records.is_empty() && n_bytes > max_bytes {
                    break;
                }
                records.push(StoredRecord { offset: from.plus(records.len()), record: record.clone() });
            }
            Ok(records)
        })
    }

    async fn bounds(&self, partition: &TopicPartition) -> Result<Bounds, LogError> {
        self.with(partition, |held| Ok(held.bounds()))
    }

    async fn trim(&self, partition: &TopicPartition, before: Offset) -> Result<(), LogError> {
        self.with(partition, |held| {
            let before = before.min(held.bounds().end);
            let n_forgotten = before.0.saturating_sub(held.start.0);
            held.records.drain(..n_forgotten as usize);
            held.start = held.start.max(before);
            Ok(())
        })
    }

    fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }
}
