//! State that every process on one log agrees on: commands in an internal topic of one partition,
//! applied in the log's order. Whoever may append to the log may submit; the order decides.
//!
//! A record's key says what it is, its value is the command as JSON. Now and then the state itself
//! is appended (in parts, a few at a time, each far below the limits of a record and of an append;
//! commands may come in between, and without its last part it counts for nothing), and what lies
//! below the snapshot before that is trimmed: so a start reads two snapshots' worth at most, and who
//! lags behind a little still finds every command. Nothing here runs by itself: state moves on when
//! someone asks.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use model::{
    Bounds, EventLog, LogError, Offset, OffsetRange, Record, StoredRecord, Timestamp, TopicChange, TopicName,
    TopicPartition,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracing::warn;

/// Read at a time while catching up.
const FETCH_BYTES: usize = 1 << 20;
/// A snapshot is taken after so many bytes of commands at least, or twice its own size: so it never
/// costs more than the commands do.
const SNAPSHOT_AFTER_BYTES: usize = 256 << 10;
/// Snapshots are cut into records of this size, of which so many are appended at once, or as many
/// as the log takes.
const PART_BYTES: usize = 16 << 10;
const PARTS_AT_ONCE: usize = 64;
/// What a record costs beside its value, so that many tiny commands count, too.
const RECORD_OVERHEAD_BYTES: usize = 100;

/// What the commands of one topic mean.
pub trait StateMachine: Default + Serialize + DeserializeOwned + Send + 'static {
    type Command: Serialize + DeserializeOwned + Send + Sync;
    type Outcome: Send;
    /// Begins with `__`.
    const TOPIC: &'static str;

    /// Must be deterministic: the same commands in the same order make the same state in every
    /// process. `at` is the wall clock of whoever submitted, and the only time there is; it may
    /// go back from one command to the next.
    fn apply(&mut self, command: Self::Command, at: Timestamp) -> Self::Outcome;
}

/// A state machine, and how far this process has brought it along the log.
pub struct Replicated<S: StateMachine> {
    log: Arc<dyn EventLog>,
    partition: TopicPartition,
    /// Drawn at random: who submits here. With a number it names a command.
    process: u64,
    snapshot_after_bytes: usize,
    state: Mutex<State<S>>,
    /// Held by the one who catches up, over the reads of the log.
    catching_up: tokio::sync::Mutex<()>,
    /// Held by the one who appends a snapshot.
    taking_snapshot: tokio::sync::Mutex<()>,
}

struct State<S: StateMachine> {
    machine: S,
    /// The next offset to apply.
    next: Offset,
    /// Bytes of commands since the last snapshot, and how large that was.
    bytes_since_snapshot: usize,
    snapshot_bytes: usize,
    /// Up to where the last whole snapshot that was met reaches.
    last_snapshot: Option<Offset>,
    n_submitted: u64,
    /// The outcomes that someone here waits for, by the number of the command.
    awaited: HashMap<u64, Option<S::Outcome>>,
}

impl<S: StateMachine> Default for State<S> {
    fn default() -> Self {
        Self {
            machine: S::default(),
            next: Offset::ZERO,
            bytes_since_snapshot: 0,
            snapshot_bytes: 0,
            last_snapshot: None,
            n_submitted: 0,
            awaited: HashMap::new(),
        }
    }
}

/// A record's key, as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Command {
        by: u64,
        n: u64,
    },
    /// One part of the state after all commands below `through`; the last one makes it count.
    Snapshot {
        through: Offset,
        part: usize,
        n_parts: usize,
    },
}

impl Kind {
    fn record(self, value: impl Into<Bytes>) -> Record {
        let key = serde_json::to_vec(&self).expect("numbers and ids are JSON");
        Record { key: Some(key.into()), ..Record::of_value(value) }
    }
}

/// A record that was read and understood.
enum Entry<C> {
    Command { by: u64, n: u64, command: C, at: Timestamp },
    Snapshot { through: Offset, is_first: bool, is_last: bool },
}

impl<S: StateMachine> Replicated<S> {
    /// The state of the topic `S::TOPIC` of `log`. Nothing is read until someone asks.
    pub fn new(log: Arc<dyn EventLog>) -> Self {
        let topic: TopicName = S::TOPIC.parse().expect("the name of a state machine's topic is one");
        assert!(topic.is_internal(), "the topic {topic} would be open to producers");
        Self {
            log,
            partition: TopicPartition::new(topic, 0),
            process: RandomState::new().hash_one(S::TOPIC),
            snapshot_after_bytes: SNAPSHOT_AFTER_BYTES,
            state: Mutex::default(),
            catching_up: tokio::sync::Mutex::default(),
            taking_snapshot: tokio::sync::Mutex::default(),
        }
    }

    /// Appends the command durably and applies all up to it; returns what came of this one. After
    /// an error that says that the outcome is unknown it may still be applied.
    pub async fn submit(&self, command: S::Command) -> Result<S::Outcome, LogError> {
        let value = serde_json::to_vec(&command)
            .map_err(|e| LogError::unavailable(format!("a command for {} is not JSON: {e}", S::TOPIC)))?;
        let awaiting = Awaiting::new(self);
        let record = Kind::Command { by: self.process, n: awaiting.n }.record(value);
        let range = self.append(vec![record]).await?;
        self.catch_up(range.end).await.map_err(|e| LogError::Unavailable {
            reason: format!("command {} of {} was stored, but not applied: {e}", range.start, self.partition),
            outcome_unknown: true,
        })?;
        let outcome = awaiting.take().ok_or_else(|| LogError::Unavailable {
            reason: format!("command {} of {} was applied, its outcome is lost", range.start, self.partition),
            outcome_unknown: true,
        });
        self.snapshot_if_due().await;
        outcome
    }

    /// Looks at the state after all that is in the log now.
    pub async fn read<R>(&self, look: impl FnOnce(&S) -> R + Send) -> Result<R, LogError> {
        match self.log.bounds(&self.partition).await {
            Ok(bounds) => self.catch_up(bounds.end).await?,
            // Nobody has submitted anything yet.
            Err(LogError::UnknownTopic(_)) => {}
            Err(e) => return Err(e),
        }
        Ok(self.peek(look))
    }

    /// Looks at the state as far as this process has brought it.
    pub fn peek<R>(&self, look: impl FnOnce(&S) -> R) -> R {
        look(&self.lock().machine)
    }

    /// A panic may have left half of a command behind: then the state is made anew from the log.
    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(|poisoned| {
            self.state.clear_poison();
            let mut state = poisoned.into_inner();
            *state = State { n_submitted: state.n_submitted, ..State::default() };
            state
        })
    }

    async fn append(&self, records: Vec<Record>) -> Result<OffsetRange, LogError> {
        match self.log.append(&self.partition, records.clone()).await {
            Err(LogError::UnknownTopic(_)) => {}
            appended => return appended,
        }
        match self.log.change_topic(&self.partition.topic, TopicChange::Create { n_partitions: 1 }).await {
            Ok(()) | Err(LogError::TopicExists(_)) => self.log.append(&self.partition, records).await,
            Err(e) => Err(e),
        }
    }

    /// Applies everything below `until`, and what else has come.
    async fn catch_up(&self, until: Offset) -> Result<(), LogError> {
        if self.lock().next >= until {
            return Ok(());
        }
        let _catching_up = self.catching_up.lock().await;
        loop {
            let next = self.lock().next;
            if next >= until {
                return Ok(());
            }
            match self.log.fetch(&self.partition, next, FETCH_BYTES).await {
                Ok(records) if records.is_empty() => {
                    return Err(LogError::unavailable(format!("{} ends at {next}, before {until}", self.partition)));
                }
                Ok(records) => self.apply(&records)?,
                // Others took snapshots and trimmed; or this is the start, and they did long ago.
                Err(LogError::OutOfRange { bounds, .. }) if next < bounds.start => self.restore(bounds).await?,
                Err(e) => return Err(e),
            }
        }
    }

    fn apply(&self, records: &[StoredRecord]) -> Result<(), LogError> {
        let (mut entries, mut problem) = (Vec::with_capacity(records.len()), None);
        for stored in records {
            match self.entry(stored) {
                Ok(entry) => entries.push((stored.offset, stored.record.size_bytes(), entry)),
                Err(e) => {
                    problem = Some(e);
                    break;
                }
            }
        }
        let mut state = self.lock();
        for (offset, n_bytes, entry) in entries {
            // A panic elsewhere may have begun the state anew meanwhile.
            if offset != state.next {
                return Ok(());
            }
            state.apply(entry, n_bytes, self.process);
        }
        problem.map_or(Ok(()), Err)
    }

    fn entry(&self, stored: &StoredRecord) -> Result<Entry<S::Command>, LogError> {
        let Record { value, timestamp, .. } = &stored.record;
        match self.kind(stored)? {
            Kind::Snapshot { through, part, n_parts } => {
                Ok(Entry::Snapshot { through, is_first: part == 0, is_last: part + 1 == n_parts })
            }
            Kind::Command { by, n } => {
                let command = serde_json::from_slice(value.as_deref().unwrap_or_default());
                let command = command.map_err(|e| self.corrupt(stored.offset, format!("an unknown command: {e}")))?;
                Ok(Entry::Command { by, n, command, at: *timestamp })
            }
        }
    }

    fn kind(&self, stored: &StoredRecord) -> Result<Kind, LogError> {
        let kind = serde_json::from_slice(stored.record.key.as_deref().unwrap_or_default());
        kind.map_err(|e| self.corrupt(stored.offset, format!("neither a command nor a snapshot: {e}")))
    }

    fn corrupt(&self, offset: Offset, reason: String) -> LogError {
        let range = OffsetRange { partition: self.partition.clone(), start: offset, end: offset.plus(1) };
        LogError::Corrupt { range, reason }
    }

    /// Takes the first snapshot that reaches at least to the log start offset.
    async fn restore(&self, bounds: Bounds) -> Result<(), LogError> {
        // By where they reach: two processes may have taken one at the same time.
        let mut collected: BTreeMap<Offset, (Vec<u8>, usize)> = BTreeMap::new();
        let mut next = bounds.start;
        while next < bounds.end {
            let records = match self.log.fetch(&self.partition, next, FETCH_BYTES).await {
                // Trimmed once more: whoever catches up learns the new bounds.
                Err(LogError::OutOfRange { bounds, .. }) if next < bounds.start => return Ok(()),
                records => records?,
            };
            let Some(last) = records.last() else { break };
            next = last.offset.plus(1);
            for stored in &records {
                let Kind::Snapshot { through, part, n_parts } = self.kind(stored)? else { continue };
                if through < bounds.start {
                    continue;
                }
                let (text, n_collected) = collected.entry(through).or_default();
                if part == 0 {
                    (*text, *n_collected) = (Vec::new(), 0);
                }
                // The log may begin within the parts of one.
                if part != *n_collected {
                    continue;
                }
                text.extend_from_slice(stored.record.value.as_deref().unwrap_or_default());
                *n_collected += 1;
                if *n_collected == n_parts {
                    let machine = serde_json::from_slice(text);
                    let machine = machine.map_err(|e| self.corrupt(stored.offset, format!("a bad snapshot: {e}")))?;
                    self.lock().begin_at(through, machine, text.len());
                    return Ok(());
                }
            }
        }
        let range = OffsetRange { partition: self.partition.clone(), start: bounds.start, end: bounds.end };
        let reason = "what came before was trimmed, and no snapshot is left".to_owned();
        Err(LogError::Corrupt { range, reason })
    }

    /// Whoever submits pays for a snapshot now and then. One that fails is tried again later: it is
    /// nothing that the command waits for.
    async fn snapshot_if_due(&self) {
        let Ok(_taking) = self.taking_snapshot.try_lock() else { return };
        let Some((through, text, before)) = self.lock().take_snapshot(self.snapshot_after_bytes) else { return };
        let text = match text {
            Ok(text) => Bytes::from(text),
            Err(e) => return warn!("the state of {} is not JSON: {e}", self.partition),
        };
        let n_parts = text.len().div_ceil(PART_BYTES);
        let part = |part: usize| {
            let end = text.len().min((part + 1) * PART_BYTES);
            Kind::Snapshot { through, part, n_parts }.record(text.slice(part * PART_BYTES..end))
        };
        let taken = self.append_in_pieces((0..n_parts).map(part).collect()).await;
        // The one before stays, for those who are between the two.
        let trimmed = match (&taken, before) {
            (Ok(_), Some(before)) => self.log.trim(&self.partition, before).await,
            _ => Ok(()),
        };
        if let Err(e) = taken.and(trimmed) {
            warn!("cannot take a snapshot of {}: {e}; the next start reads more", self.partition);
        }
    }

    async fn append_in_pieces(&self, parts: Vec<Record>) -> Result<(), LogError> {
        let (mut rest, mut n_at_once) = (&parts[..], PARTS_AT_ONCE);
        while !rest.is_empty() {
            let (piece, then) = rest.split_at(rest.len().min(n_at_once));
            match self.append(piece.to_vec()).await {
                Ok(_) => rest = then,
                Err(LogError::LimitExceeded { .. }) if piece.len() > 1 => n_at_once = piece.len() / 2,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl<S: StateMachine> State<S> {
    fn apply(&mut self, entry: Entry<S::Command>, n_bytes: usize, process: u64) {
        match entry {
            Entry::Command { by, n, command, at } => {
                let outcome = self.machine.apply(command, at);
                if by == process
                    && let Some(awaited) = self.awaited.get_mut(&n)
                {
                    *awaited = Some(outcome);
                }
                self.bytes_since_snapshot += n_bytes + RECORD_OVERHEAD_BYTES;
            }
            Entry::Snapshot { through, is_first, is_last } => {
                if is_first {
                    (self.bytes_since_snapshot, self.snapshot_bytes) = (0, 0);
                }
                self.snapshot_bytes += n_bytes;
                if is_last {
                    self.last_snapshot = Some(through);
                }
            }
        }
        self.next = self.next.plus(1);
    }

    /// Goes on from a snapshot; what came between is passed over, with outcomes that are awaited.
    fn begin_at(&mut self, through: Offset, machine: S, snapshot_bytes: usize) {
        (self.machine, self.next) = (machine, through);
        (self.bytes_since_snapshot, self.snapshot_bytes) = (0, snapshot_bytes);
        self.last_snapshot = Some(through);
    }

    /// The state as text if it is time: up to where, and up to where the snapshot before reaches.
    #[allow(clippy::type_complexity)]
    fn take_snapshot(&mut self, after_bytes: usize) -> Option<(Offset, serde_json::Result<Vec<u8>>, Option<Offset>)> {
        if self.bytes_since_snapshot < after_bytes.max(2 * self.snapshot_bytes) {
            return None;
        }
        self.bytes_since_snapshot = 0;
        Some((self.next, serde_json::to_vec(&self.machine), self.last_snapshot))
    }
}

/// A command whose outcome someone waits for; forgotten when they no longer do.
struct Awaiting<'r, S: StateMachine> {
    of: &'r Replicated<S>,
    n: u64,
}

impl<'r, S: StateMachine> Awaiting<'r, S> {
    fn new(of: &'r Replicated<S>) -> Self {
        let mut state = of.lock();
        let n = state.n_submitted;
        state.n_submitted += 1;
        state.awaited.insert(n, None);
        Self { of, n }
    }

    fn take(&self) -> Option<S::Outcome> {
        self.of.lock().awaited.get_mut(&self.n)?.take()
    }
}

impl<S: StateMachine> Drop for Awaiting<'_, S> {
    fn drop(&mut self) {
        self.of.lock().awaited.remove(&self.n);
    }
}

#[cfg(test)]
mod tests;
