//! What is in the log, as producers know it and as the log itself says after each death.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender},
    },
};

use event_log::EmbeddedLog;
use model::{EventLog, Offset, TopicPartition, config::LogConfig};
use serde_json::json;

use crate::{
    http::eventually,
    posts::{Producer, Rows, STREAMS},
    random::Random,
};

const TOPICS: [&str; 2] = ["m0", "m1"];
const MAX_RECORDS_PER_REQUEST: u64 = 6;
/// As large as any record here.
const MAX_RECORD_BYTES: usize = 4096;
/// Bytes read from the log at a time.
const READ_BYTES: usize = 1 << 20;

type Position = (TopicPartition, u64);

#[derive(Default)]
pub(super) struct Ledger {
    state: Mutex<State>,
    n_allowed: AtomicUsize,
    n_acknowledged: AtomicUsize,
}

#[derive(Default)]
struct State {
    acknowledged: BTreeMap<Position, String>,
    /// Records whose outcome was unknown, and which are there.
    found: BTreeMap<Position, String>,
    /// Everything that was ever sent.
    sent: BTreeSet<String>,
}

impl Ledger {
    /// Posts rows of the pool at random, one request per turn, each until it is acknowledged.
    pub(super) fn post(&self, pool: &Rows, mut random: Random, turns: &Mutex<Receiver<()>>, mut to_servers: Producer) {
        while turns.lock().unwrap().recv().is_ok() {
            let stream = random.below(STREAMS.len() as u64) as usize;
            let topic = format!("{}.{}", random.pick(&TOPICS), STREAMS[stream]);
            let n_records = 1 + random.below(MAX_RECORDS_PER_REQUEST);
            let values: Vec<&str> = (0..n_records).map(|_| random.pick(&pool[stream]).as_str()).collect();
            self.state.lock().unwrap().sent.extend(values.iter().map(|v| (*v).to_owned()));
            let Some(produced) = to_servers.produce(&topic, &values) else { return };
            let mut state = self.state.lock().unwrap();
            for ((partition, offset), value) in produced.positions.into_iter().zip(values) {
                let partition = TopicPartition::new(topic.parse().unwrap(), u32::try_from(partition).unwrap());
                let before = state.acknowledged.insert((partition.clone(), offset), value.to_owned());
                assert_eq!(before, None, "offset {offset} of {partition} was given out twice");
            }
            drop(state);
            self.n_acknowledged.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Allows `n` more requests, and waits until so many more than before are acknowledged.
    pub(super) fn allow(&self, turns: &Sender<()>, n: u64, n_acknowledged: u64) {
        let target = self.n_acknowledged.load(Ordering::SeqCst) + n_acknowledged as usize;
        (0..n).for_each(|_| turns.send(()).unwrap());
        self.n_allowed.fetch_add(n as usize, Ordering::SeqCst);
        eventually("posts", || (self.n_acknowledged.load(Ordering::SeqCst) >= target).then_some(()));
    }

    /// Waits until no request is under way.
    pub(super) fn wait_for_all(&self) {
        let target = self.n_allowed.load(Ordering::SeqCst);
        eventually("posts", || (self.n_acknowledged.load(Ordering::SeqCst) == target).then_some(()));
    }

    /// Reads the log with the eyes of its next owner, while there is none. What was acknowledged
    /// is there; what else is there was sent, and from now on it stays.
    pub(super) fn look_into(&self, folder: &Path, config: &LogConfig) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let log = EmbeddedLog::open(folder, config, MAX_RECORD_BYTES).unwrap();
            let description = log.describe().await.unwrap();
            for partition in description.partitions().filter(|p| !p.topic.is_internal()) {
                self.look_at(&log, &partition).await;
            }
        });
    }

    async fn look_at(&self, log: &EmbeddedLog, partition: &TopicPartition) {
        let bounds = log.bounds(partition).await.unwrap();
        let mut next = bounds.start;
        while next < bounds.end {
            for stored in log.fetch(partition, next, READ_BYTES).await.unwrap() {
                let text = String::from_utf8(stored.record.value.unwrap().to_vec()).unwrap();
                self.state.lock().unwrap().see((partition.clone(), stored.offset.0), text);
                next = stored.offset.plus(1);
            }
        }
        let state = self.state.lock().unwrap();
        let all = (partition.clone(), 0)..=(partition.clone(), u64::MAX);
        let end = state.acknowledged.range(all).next_back().map_or(0, |((_, offset), _)| offset + 1);
        assert!(Offset(end) <= bounds.end, "{partition} ends at {}, acknowledged was up to {end}", bounds.end);
        for offset in 0..bounds.end.0 {
            let position = (partition.clone(), offset);
            let is_known = state.acknowledged.contains_key(&position) || state.found.contains_key(&position);
            assert!(is_known, "{partition} was trimmed beyond {offset}, which nobody has seen");
        }
    }

    pub(super) fn n_records(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.acknowledged.len(), state.found.len())
    }

    /// Everything that is in the log or was trimmed from it, one JSON array per line.
    pub(super) fn write(&self, path: &Path) {
        let state = self.state.lock().unwrap();
        let mut lines = Vec::new();
        for ((partition, offset), text) in state.acknowledged.iter().chain(&state.found) {
            writeln!(lines, "{}", json!([partition.topic.as_str(), partition.partition, offset, text])).unwrap();
        }
        fs::write(path, lines).unwrap();
    }
}

impl State {
    fn see(&mut self, position: Position, text: String) {
        if let Some(known) = self.acknowledged.get(&position).or(self.found.get(&position)) {
            assert_eq!(known, &text, "{position:?} is not what it was");
            return;
        }
        assert!(self.sent.contains(&text), "{position:?} holds {text}, which nobody sent");
        self.found.insert(position, text);
    }
}
