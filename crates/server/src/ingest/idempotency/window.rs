//! The keys of late, of all topics: bounded by age and by memory, oldest first to go.
//!
//! A topic's keys are read from the log's tail before the first of them is looked up. Where an
//! append's outcome is not known, its partition is read again from there before the next look: what
//! is not in the log by then is not stored, since what failed is cut off before anything is appended
//! after it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::{EventLog, LogError, Offset, Timestamp, TopicName, TopicPartition, config::IngestConfig};

use super::{
    Request,
    mark::Prints,
    tail::{self, Found},
};
use crate::error::KafkaError;

/// What an entry and a run weigh in memory, with what maps need.
const ENTRY_BYTES: usize = 320;
const RUN_BYTES: usize = 48;

pub(in crate::ingest) struct Window {
    max_age_ms: i64,
    max_bytes: usize,
    max_read_bytes: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    topics: HashMap<TopicName, Known>,
    /// Every entry by its age, the oldest first.
    by_age: BTreeMap<Age, (TopicName, Arc<str>)>,
    n_bytes: usize,
    n_made: u64,
}

type Age = (Timestamp, u64);

/// What is known of a topic.
#[derive(Default)]
struct Known {
    /// Tells it from another topic that had this name before.
    generation: u64,
    entries: HashMap<Arc<str>, Entry>,
    is_read: bool,
    /// From where partitions are to be read again.
    doubts: BTreeMap<u32, Doubt>,
    /// Held by whoever reads.
    reading: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Doubt {
    from: Offset,
    /// How many appends came into doubt.
    n: u32,
}

struct Entry {
    prints: Prints,
    age: Age,
    /// By the place of the first record of each.
    runs: BTreeMap<u32, Run>,
    is_busy: bool,
    n_bytes: usize,
}

/// Records of a request that lie next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    n: u32,
    partition: u32,
    offset: Offset,
}

impl Known {
    fn doubt(&mut self, partition: u32, from: Offset) {
        let doubt = self.doubts.entry(partition).or_insert(Doubt { from, n: 0 });
        *doubt = Doubt { from: doubt.from.min(from), n: doubt.n + 1 };
    }

    /// These were read; what came into doubt meanwhile stays so.
    fn settle(&mut self, read: &BTreeMap<u32, Doubt>) {
        self.doubts.retain(|partition, doubt| read.get(partition) != Some(doubt));
    }
}

impl Entry {
    fn at(&self) -> Timestamp {
        self.age.0
    }

    fn add(&mut self, place: u32, partition: u32, offset: Offset) {
        if let Some((first, run)) = self.runs.range_mut(..=place).next_back() {
            match place - first {
                i if i < run.n => return,
                i if i == run.n && run.partition == partition && run.offset.0 + u64::from(i) == offset.0 => {
                    run.n += 1;
                    return;
                }
                _ => {}
            }
        }
        self.runs.insert(place, Run { n: 1, partition, offset });
    }
}

/// A request that may go on: nobody else does anything for its key as long as `busy` lives.
pub(in crate::ingest) struct Begun {
    pub(in crate::ingest) busy: Busy,
    /// When the request came first.
    pub(in crate::ingest) at: Timestamp,
    runs: BTreeMap<u32, Run>,
}

impl Begun {
    /// Where the record of this place is, if it is stored.
    pub(in crate::ingest) fn stored(&self, place: u32) -> Option<(u32, Offset)> {
        let (first, run) = self.runs.range(..=place).next_back()?;
        let i = place - first;
        (i < run.n).then(|| (run.partition, run.offset.plus(i as usize)))
    }
}

/// A key in use. Dropped without `finish`, what it was about to append is in doubt.
pub(in crate::ingest) struct Busy {
    window: Arc<Window>,
    topic: TopicName,
    generation: u64,
    key: Arc<str>,
    doubts: Vec<(u32, Offset)>,
}

impl Busy {
    /// Something is about to be appended to these partitions, at these offsets or above.
    pub(in crate::ingest) fn doubt(&mut self, from: Vec<(u32, Offset)>) {
        self.doubts = from;
    }

    /// What was stored, by place. What else there was is not stored, for certain.
    pub(in crate::ingest) fn finish(mut self, stored: impl Iterator<Item = (u32, u32, Offset)>, is_certain: bool) {
        if is_certain {
            self.doubts.clear();
        }
        let mut state = self.window.lock();
        if let Some(entry) = state.entry(&self.topic, self.generation, &self.key) {
            for (place, partition, offset) in stored {
                entry.add(place, partition, offset);
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.window.lock();
        let state = &mut *state;
        let Some(known) = state.topics.get_mut(&self.topic).filter(|k| k.generation == self.generation) else { return };
        for (partition, from) in self.doubts.drain(..) {
            known.doubt(partition, from);
        }
        let Some(entry) = known.entries.get_mut(&self.key) else { return };
        entry.is_busy = false;
        if entry.runs.is_empty() {
            state.remove(&self.topic, &self.key);
        } else {
            state.weigh(&self.topic, &self.key);
        }
        self.window.evict(state);
    }
}

impl State {
    fn entry(&mut self, topic: &TopicName, generation: u64, key: &str) -> Option<&mut Entry> {
        self.topics.get_mut(topic).filter(|known| known.generation == generation)?.entries.get_mut(key)
    }

    fn known(&mut self, topic: &TopicName) -> &mut Known {
        if !self.topics.contains_key(topic) {
            self.n_made += 1;
            self.topics.insert(topic.clone(), Known { generation: self.n_made, ..Known::default() });
        }
        self.topics.get_mut(topic).expect("it was just made")
    }

    fn insert(&mut self, topic: &TopicName, key: Arc<str>, prints: Prints, at: Timestamp, is_busy: bool) {
        self.n_made += 1;
        let age = (at, self.n_made);
        self.by_age.insert(age, (topic.clone(), key.clone()));
        let entry = Entry { prints, age, runs: BTreeMap::new(), is_busy, n_bytes: 0 };
        if let Some(known) = self.topics.get_mut(topic) {
            known.entries.insert(key, entry);
        }
    }

    fn remove(&mut self, topic: &TopicName, key: &str) {
        let Some(entry) = self.topics.get_mut(topic).and_then(|known| known.entries.remove(key)) else { return };
        self.by_age.remove(&entry.age);
        self.n_bytes -= entry.n_bytes;
    }

    /// Counts what the entry weighs now.
    fn weigh(&mut self, topic: &TopicName, key: &str) {
        let Some(entry) = self.topics.get_mut(topic).and_then(|known| known.entries.get_mut(key)) else { return };
        let n_bytes = ENTRY_BYTES + key.len() + entry.runs.len() * RUN_BYTES;
        self.n_bytes = self.n_bytes - entry.n_bytes + n_bytes;
        entry.n_bytes = n_bytes;
    }
}

impl Window {
    pub(in crate::ingest) fn new(config: &IngestConfig) -> Self {
        Self {
            max_age_ms: i64::try_from(config.idempotency_window_ms).unwrap_or(i64::MAX),
            max_bytes: config.idempotency_memory_bytes,
            max_read_bytes: config.idempotency_read_bytes,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins what was asked for, once all is known that the log knows.
    pub(in crate::ingest) async fn begin(
        self: &Arc<Self>,
        log: &dyn EventLog,
        topic: &TopicName,
        request: &Request,
    ) -> Result<Begun, KafkaError> {
        loop {
            if let Some(begun) = self.begin_known(topic, request)? {
                return Ok(begun);
            }
            if let Err(e) = self.read(log, topic).await {
                if e.is_gone() {
                    self.forget(topic);
                }
                return Err(KafkaError::of_log(&e));
            }
        }
    }

    /// None if the log has to be read first.
    fn begin_known(self: &Arc<Self>, topic: &TopicName, request: &Request) -> Result<Option<Begun>, KafkaError> {
        let mut state = self.lock();
        self.evict(&mut state);
        let known = state.known(topic);
        if !known.is_read || !known.doubts.is_empty() {
            return Ok(None);
        }
        let generation = known.generation;
        let key: Arc<str> = request.key.as_str().into();
        let (at, runs) = match known.entries.get_mut(&key) {
            Some(entry) if !entry.prints.agree(request.prints) => return Err(KafkaError::key_reused(&request.key)),
            Some(entry) if entry.is_busy => return Err(KafkaError::key_in_use(&request.key)),
            Some(entry) => {
                entry.is_busy = true;
                (entry.at(), entry.runs.clone())
            }
            None => {
                state.insert(topic, key.clone(), request.prints, request.now, true);
                state.weigh(topic, &key);
                (request.now, BTreeMap::new())
            }
        };
        let busy = Busy { window: self.clone(), topic: topic.clone(), generation, key, doubts: Vec::new() };
        Ok(Some(Begun { busy, at, runs }))
    }

    /// Reads what is not known of the topic; one at a time does.
    async fn read(&self, log: &dyn EventLog, topic: &TopicName) -> Result<(), LogError> {
        let reading = self.lock().known(topic).reading.clone();
        let _reading = reading.lock().await;
        let (generation, is_read, doubts) = {
            let mut state = self.lock();
            let known = state.known(topic);
            (known.generation, known.is_read, known.doubts.clone())
        };
        if !is_read {
            let n_partitions = log.describe().await?.topics.get(topic).copied().unwrap_or(0);
            let max_bytes = self.max_read_bytes / u64::from(n_partitions.max(1));
            for partition in (0..n_partitions).map(|p| TopicPartition::new(topic.clone(), p)) {
                let take = &mut |found| self.absorb(topic, generation, found);
                tail::read_back(log, &partition, max_bytes, take).await?;
            }
        }
        for (partition, doubt) in &doubts {
            let partition = TopicPartition::new(topic.clone(), *partition);
            let end = log.bounds(&partition).await?.end;
            let take = &mut |found| {
                self.absorb(topic, generation, found);
            };
            tail::read(log, &partition, doubt.from, end, take).await?;
        }
        let mut state = self.lock();
        let known = state.known(topic);
        if known.generation == generation {
            known.is_read = true;
            known.settle(&doubts);
        }
        Ok(())
    }

    /// Takes over what the log says. Whether it is older than anyone asks for.
    fn absorb(&self, topic: &TopicName, generation: u64, found: Vec<Found>) -> bool {
        let oldest = Timestamp(Timestamp::now().0.saturating_sub(self.max_age_ms));
        let (mut state, mut is_old) = (self.lock(), false);
        for Found { mark, partition, offset } in found {
            if mark.at < oldest {
                is_old = true;
                continue;
            }
            match state.entry(topic, generation, &mark.key) {
                // The key was used for something else before.
                Some(entry) if mark.at < entry.at() => continue,
                Some(entry) if mark.at == entry.at() || entry.is_busy => {}
                _ => {
                    state.remove(topic, &mark.key);
                    state.insert(topic, mark.key.as_str().into(), mark.prints, mark.at, false);
                }
            }
            if let Some(entry) = state.entry(topic, generation, &mark.key) {
                entry.add(mark.place, partition, offset);
            }
            state.weigh(topic, &mark.key);
            self.evict(&mut state);
        }
        is_old
    }

    /// Forgets a topic that is no more, with its keys.
    pub(in crate::ingest) fn forget(&self, topic: &TopicName) {
        let state = &mut *self.lock();
        for entry in state.topics.remove(topic).into_iter().flat_map(|known| known.entries.into_values()) {
            state.by_age.remove(&entry.age);
            state.n_bytes -= entry.n_bytes;
        }
    }

    /// Forgets what is too old, and the oldest of what is too much. What is under way stays.
    fn evict(&self, state: &mut State) {
        let oldest = Timestamp(Timestamp::now().0.saturating_sub(self.max_age_ms));
        loop {
            let is_too_much = state.n_bytes > self.max_bytes;
            let mut entries = state.by_age.iter().take_while(|((at, _), _)| is_too_much || *at < oldest);
            let is_busy = |topic: &TopicName, key: &str| {
                state.topics.get(topic).and_then(|known| known.entries.get(key)).is_some_and(|entry| entry.is_busy)
            };
            let Some((_, (topic, key))) = entries.find(|(_, (topic, key))| !is_busy(topic, key)) else { return };
            let (topic, key) = (topic.clone(), key.clone());
            state.remove(&topic, &key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_into_doubt_during_a_read_is_read_again() {
        let mut known = Known::default();
        known.doubt(3, Offset(100));
        let read = known.doubts.clone();
        known.doubt(3, Offset(200));
        known.settle(&read);
        assert_eq!(known.doubts.len(), 1);
        let read = known.doubts.clone();
        known.settle(&read);
        assert!(known.doubts.is_empty());
    }
}
