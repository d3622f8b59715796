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
mod tests {
    #![allow(clippy::unwrap_used)]

    use event_log::{EmbeddedLog, MemoryLog};
    use futures::future::join_all;
    use model::config::{Config, LogConfig};
    use proptest::prelude::*;

    use super::*;

    /// Numbers in the order in which they came; the outcome is how many were there before.
    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Ledger {
        n: u64,
        sum: u64,
        last: Vec<(u64, i64)>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Enter {
        Number(u64),
        Panic,
    }

    impl StateMachine for Ledger {
        type Command = Enter;
        type Outcome = u64;
        const TOPIC: &'static str = "__ledger";

        fn apply(&mut self, command: Enter, at: Timestamp) -> u64 {
            self.n += 1;
            let Enter::Number(number) = command else { panic!("asked to") };
            self.sum = self.sum.wrapping_mul(31).wrapping_add(number);
            self.last.push((number, at.0));
            if self.last.len() > 10 {
                self.last.remove(0);
            }
            self.n - 1
        }
    }

    fn ledger(log: &Arc<impl EventLog + 'static>, snapshot_after_bytes: usize) -> Replicated<Ledger> {
        Replicated { snapshot_after_bytes, ..Replicated::new(log.clone()) }
    }

    async fn whole(ledger: &Replicated<Ledger>) -> (u64, u64, Vec<(u64, i64)>) {
        ledger.read(|l| (l.n, l.sum, l.last.clone())).await.unwrap()
    }

    async fn bounds(log: &impl EventLog) -> Bounds {
        log.bounds(&TopicPartition::new("__ledger".parse().unwrap(), 0)).await.unwrap()
    }

    async fn append(log: &impl EventLog, key: &str, value: &str) {
        let record = Record { key: Some(key.to_owned().into()), ..Record::of_value(value.to_owned()) };
        log.append(&TopicPartition::new("__ledger".parse().unwrap(), 0), vec![record]).await.unwrap();
    }

    #[tokio::test]
    async fn racing_instances_get_each_command_s_own_outcome_and_agree() {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(EmbeddedLog::open(dir.path(), &Config::defaults().log, 1 << 20).unwrap());
        let (a, b) = (ledger(&log, 2000), ledger(&log, 2000));
        assert_eq!(whole(&a).await, (0, 0, vec![]), "nothing is made by a look");
        let submits = (0..200).map(|i| if i % 3 == 0 { &a } else { &b }.submit(Enter::Number(i)));
        let mut outcomes: Vec<u64> = join_all(submits).await.into_iter().map(Result::unwrap).collect();
        outcomes.sort_unstable();
        assert_eq!(outcomes, (0..200).collect::<Vec<_>>());
        assert_eq!(whole(&a).await, whole(&b).await);
        assert!(a.lock().awaited.is_empty() && b.lock().awaited.is_empty());
        log.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_restart_reads_a_snapshot_and_what_came_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Arc::new(EmbeddedLog::open(dir.path(), &Config::defaults().log, 1 << 20).unwrap());
        let log = open();
        let first = ledger(&log, 2000);
        for i in 0..200 {
            assert_eq!(first.submit(Enter::Number(i)).await.unwrap(), i);
        }
        let before = whole(&first).await;
        let kept = bounds(&*log).await;
        assert!(kept.start > Offset(100), "{kept:?}");
        log.close().await.unwrap();
        drop((first, log));
        let log = open();
        let again = ledger(&log, 2000);
        assert_eq!(whole(&again).await, before);
        assert_eq!(again.submit(Enter::Number(1)).await.unwrap(), 200);
        log.close().await.unwrap();
    }

    #[tokio::test]
    async fn who_lags_behind_a_trim_goes_on_from_a_snapshot() {
        let log = Arc::new(MemoryLog::new());
        let (quick, slow) = (ledger(&log, 1000), ledger(&log, usize::MAX));
        slow.submit(Enter::Number(7)).await.unwrap();
        for i in 0..100 {
            quick.submit(Enter::Number(i)).await.unwrap();
        }
        assert!(bounds(&*log).await.start > Offset(1));
        assert_eq!(slow.peek(|l| l.n), 1);
        assert_eq!(slow.submit(Enter::Number(8)).await.unwrap(), 101);
        assert_eq!(whole(&quick).await, whole(&slow).await);
    }

    #[tokio::test]
    async fn a_snapshot_does_not_hide_commands_that_came_before_it_was_written() {
        let log = Arc::new(MemoryLog::new());
        let first = ledger(&log, usize::MAX);
        first.submit(Enter::Number(1)).await.unwrap();
        let text = first.peek(|l| serde_json::to_string(l).unwrap());
        first.submit(Enter::Number(2)).await.unwrap();
        append(&*log, r#"{"snapshot":{"through":1,"part":0,"n_parts":1}}"#, &text).await;
        first.submit(Enter::Number(3)).await.unwrap();
        log.trim(&TopicPartition::new("__ledger".parse().unwrap(), 0), Offset(1)).await.unwrap();
        assert_eq!(whole(&ledger(&log, usize::MAX)).await, whole(&first).await);
    }

    #[tokio::test]
    async fn a_state_larger_than_a_record_is_kept_in_parts() {
        let log = Arc::new(MemoryLog::with_max_record_bytes(32 << 10));
        let texts = Replicated::<Texts>::new(log.clone());
        for i in 1..=200 {
            assert_eq!(texts.submit("x".repeat(10_000)).await.unwrap(), i);
        }
        let partition = TopicPartition::new("__texts".parse().unwrap(), 0);
        assert!(log.bounds(&partition).await.unwrap().start > Offset(0));
        assert_eq!(Replicated::<Texts>::new(log).read(|t| t.0.len()).await.unwrap(), 200);
        let too_large = texts.submit("x".repeat(40_000)).await;
        assert!(matches!(too_large, Err(LogError::TooLarge { .. })));
    }

    #[derive(Default, Serialize, Deserialize)]
    struct Texts(Vec<String>);

    impl StateMachine for Texts {
        type Command = String;
        type Outcome = usize;
        const TOPIC: &'static str = "__texts";

        fn apply(&mut self, text: String, _: Timestamp) -> usize {
            self.0.push(text);
            self.0.len()
        }
    }

    #[tokio::test]
    async fn a_state_larger_than_an_append_is_kept_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let config = LogConfig { segment_bytes: 80 << 10, ..Config::defaults().log };
        let log = Arc::new(EmbeddedLog::open(dir.path(), &config, 40 << 10).unwrap());
        let texts = Replicated::<Texts>::new(log.clone());
        let partition = TopicPartition::new("__texts".parse().unwrap(), 0);
        for i in 1..=100 {
            assert_eq!(texts.submit("x".repeat(20_000)).await.unwrap(), i);
        }
        assert!(log.bounds(&partition).await.unwrap().start > Offset(0));
        assert_eq!(Replicated::<Texts>::new(log.clone()).read(|t| t.0.len()).await.unwrap(), 100);
        log.close().await.unwrap();
    }

    /// The process may end before the last part, and another may take a snapshot at the same time.
    #[tokio::test]
    async fn a_snapshot_counts_when_its_last_part_is_there_whatever_lies_between() {
        let log = Arc::new(MemoryLog::new());
        let first = ledger(&log, usize::MAX);
        let part = async |through: u64, part: usize, text: &str| {
            let key = format!(r#"{{"snapshot":{{"through":{through},"part":{part},"n_parts":2}}}}"#);
            append(&*log, &key, text).await;
        };
        first.submit(Enter::Number(1)).await.unwrap();
        let one = first.peek(|l| serde_json::to_string(l).unwrap());
        part(1, 0, &one[..9]).await;
        first.submit(Enter::Number(2)).await.unwrap();
        let two = first.peek(|l| serde_json::to_string(l).unwrap());
        part(3, 0, &two[..5]).await;
        part(1, 1, "no part of the other").await;
        first.submit(Enter::Number(3)).await.unwrap();
        assert_eq!(first.lock().last_snapshot, Some(Offset(1)));
        part(3, 1, &two[5..]).await;
        part(7, 0, "cut off").await;
        first.submit(Enter::Number(4)).await.unwrap();
        assert_eq!(first.lock().last_snapshot, Some(Offset(3)));
        log.trim(&TopicPartition::new("__ledger".parse().unwrap(), 0), Offset(2)).await.unwrap();
        assert_eq!(whole(&ledger(&log, usize::MAX)).await, whole(&first).await);
    }

    #[tokio::test]
    async fn what_is_no_command_is_an_error_that_names_topic_and_offset() {
        let command = r#"{"command":{"by":1,"n":0}}"#;
        for (key, value) in [("", ""), ("x", "1"), (command, ""), (command, r#"{"new_command":1}"#), (command, "\u{0}")]
        {
            let log = Arc::new(MemoryLog::new());
            let ledger = ledger(&log, 1000);
            ledger.submit(Enter::Number(1)).await.unwrap();
            append(&*log, key, value).await;
            let error = ledger.read(|l| l.n).await.unwrap_err().to_string();
            assert!(error.contains("__ledger-0 [1, 2) is corrupt"), "{error}");
            assert_eq!(ledger.peek(|l| l.n), 1);
            let error = ledger.submit(Enter::Number(1)).await.unwrap_err();
            assert!(matches!(error, LogError::Unavailable { outcome_unknown: true, .. }), "{error}");
        }
        let log = Arc::new(MemoryLog::new());
        let ledger = ledger(&log, usize::MAX);
        ledger.submit(Enter::Number(1)).await.unwrap();
        log.trim(&TopicPartition::new("__ledger".parse().unwrap(), 0), Offset(1)).await.unwrap();
        let error = Replicated::<Ledger>::new(log).read(|l| l.n).await.unwrap_err().to_string();
        assert!(error.contains("__ledger-0 [1, 1)") && error.contains("no snapshot is left"), "{error}");
    }

    #[tokio::test]
    async fn a_panic_leaves_nothing_half_applied() {
        let log = Arc::new(MemoryLog::new());
        let ledger = Arc::new(ledger(&log, usize::MAX));
        ledger.submit(Enter::Number(1)).await.unwrap();
        let looking = ledger.clone();
        let look = tokio::spawn(async move { looking.read(|_| panic!("asked to")).await });
        assert!(look.await.is_err());
        assert_eq!(whole(&ledger).await.0, 1);
        let submitting = ledger.clone();
        assert!(tokio::spawn(async move { submitting.submit(Enter::Panic).await }).await.is_err());
        assert_eq!(ledger.peek(|l| l.n), 0, "until someone reads the log again");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Two instances that submit, look and begin anew in any order, with snapshots in between.
        #[test]
        fn instances_always_agree(steps in prop::collection::vec((0..3_usize, 0..4_u8, any::<u64>()), 0..60)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async move {
                let log = Arc::new(MemoryLog::new());
                let mut instances: Vec<_> = [500, 900, usize::MAX].map(|bytes| ledger(&log, bytes)).into();
                let mut n = 0;
                for (i, act, number) in steps {
                    match act {
                        0 => instances[i] = ledger(&log, 700),
                        1 => assert_eq!(whole(&instances[i]).await.0, n),
                        _ => {
                            assert_eq!(instances[i].submit(Enter::Number(number)).await.unwrap(), n);
                            n += 1;
                        }
                    }
                }
                let fresh = whole(&ledger(&log, usize::MAX)).await;
                for instance in &instances {
                    assert_eq!(whole(instance).await, fresh);
                }
            });
        }
    }
}
