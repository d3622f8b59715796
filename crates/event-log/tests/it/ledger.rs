//! A child process that appends as fast as it can, and a ledger of what it was told is stored.
//!
//! The child is this test binary once more, told its folder by the environment. It prints a line
//! per acknowledged append. Beside the topic that it fills it has one that comes and goes. What its parent then does to it, or to the disk below it, is the
//! business of `kill` and `power_cut`; the ledger says whether the log kept its word.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{self, Command, Stdio},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use event_log::EmbeddedLog;
use model::{EventLog, LogError, Record, StoredRecord, Timestamp, TopicChange, TopicPartition, config::LogConfig};
use tokio::task::JoinSet;

use crate::{
    sim::Random,
    support::{MAX_RECORD_BYTES, partition, read_over_damage, small},
};

const FOLDER: &str = "EVENT_LOG_CHILD_FOLDER";
const ROUND: &str = "EVENT_LOG_CHILD_ROUND";
const TOPIC: &str = "ledger";
/// Created, grown and deleted all the time.
const FLEETING: &str = "fleeting";
const N_PARTITIONS: u32 = 3;
const N_APPENDERS: u64 = 8;
/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(60);

/// Which record it is: the `n`-th of an appender in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    round: u64,
    appender: u64,
    n: u64,
}

/// The text says who wrote it, and what follows is derived from that.
fn written(name: Name) -> Record {
    let Name { round, appender, n } = name;
    let mut random = Random(round << 40 | appender << 32 | n);
    let noise: String = (0..random.below(20)).map(|_| format!("{:x}", random.next())).collect();
    let value = format!("{round} {appender} {n} {noise}");
    Record { value: Some(value.into()), timestamp: Timestamp(n as i64), ..Record::default() }
}

fn name_in(stored: &StoredRecord) -> Name {
    let text = stored.record.value.as_deref().map(String::from_utf8_lossy).unwrap();
    let fields: Vec<u64> = text.split(' ').take(3).map(|field| field.parse().unwrap()).collect();
    Name { round: fields[0], appender: fields[1], n: fields[2] }
}

fn partition_of(appender: u64) -> TopicPartition {
    partition(&format!("{TOPIC}-{}", appender % u64::from(N_PARTITIONS)))
}

/// Rounds take turns: small segments and appends, which roll all the time, and larger ones.
fn load_of(round: u64) -> (LogConfig, &'static [u64]) {
    let larger =
        LogConfig { segment_bytes: 1 << 20, mark_interval_bytes: 256 << 10, max_group_bytes: 256 << 10, ..small() };
    if round.is_multiple_of(2) { (small(), &[1, 7, 1, 40]) } else { (larger, &[1, 500, 40, 1500]) }
}

/// Does nothing unless a parent starts it.
#[test]
fn child() {
    let (Ok(folder), Ok(round)) = (env::var(FOLDER), env::var(ROUND)) else { return };
    let round: u64 = round.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    if let Err(refusal) = runtime.block_on(append_for_ever(Path::new(&folder), round)) {
        print_line(&format!("refused {refusal}"));
    }
}

/// Until something is refused, which it gives back.
async fn append_for_ever(folder: &Path, round: u64) -> Result<(), Box<dyn Error + Send + Sync>> {
    let log = Arc::new(EmbeddedLog::open(folder, &load_of(round).0, MAX_RECORD_BYTES)?);
    if !log.describe().await?.topics.contains_key(TOPIC) {
        log.change_topic(&TOPIC.parse()?, TopicChange::Create { n_partitions: N_PARTITIONS }).await?;
    }
    print_line("ready");
    let mut appenders = JoinSet::new();
    for appender in 0..N_APPENDERS {
        let (log, id) = (Arc::clone(&log), partition_of(appender));
        appenders.spawn(async move {
            let mut n = 0;
            for size in load_of(round).1.iter().cycle() {
                let records = (n..n + size).map(|n| written(Name { round, appender, n })).collect();
                let range = log.append(&id, records).await?;
                print_line(&format!("{appender} {n} {} {}", range.start, range.end));
                n += size;
            }
            Ok::<_, LogError>(())
        });
    }
    appenders.spawn(come_and_go(log, round));
    Ok(appenders.join_all().await.into_iter().collect::<Result<(), LogError>>()?)
}

async fn come_and_go(log: Arc<EmbeddedLog>, round: u64) -> Result<(), LogError> {
    let id = TopicPartition::new(FLEETING.parse()?, 0);
    for n in 0.. {
        match log.change_topic(&id.topic, TopicChange::Create { n_partitions: 1 }).await {
            // The process before left it.
            Ok(()) | Err(LogError::TopicExists(_)) => {}
            Err(e) => return Err(e),
        }
        for _ in 0..3 {
            let range = log.append(&id, vec![written(Name { round, appender: N_APPENDERS, n })]).await?;
            print_line(&format!("{FLEETING} {} {}", range.start, range.end));
        }
        match log.change_topic(&id.topic, TopicChange::Grow { n_partitions: 2 + n as u32 % 3 }).await {
            Ok(()) | Err(LogError::FewerPartitions { .. }) => {}
            Err(e) => return Err(e),
        }
        log.change_topic(&id.topic, TopicChange::Delete).await?;
    }
    Ok(())
}

/// In one write, so that a kill leaves whole lines but for the last.
fn print_line(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n@{line}.\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

#[derive(Clone, Copy)]
struct Acknowledged {
    round: u64,
    appender: u64,
    first: u64,
    start: u64,
    end: u64,
    heard: Instant,
}

/// What a child said until its end.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) is_ready: bool,
    acknowledged: Vec<Acknowledged>,
    /// Offsets given to records of the topic that comes and goes, and when that was heard.
    fleeting: Vec<(u64, u64, Instant)>,
    pub(crate) refused: Vec<String>,
}

impl Said {
    /// Takes no word for what was heard later.
    pub(crate) fn until(mut self, moment: Instant) -> Self {
        self.acknowledged.retain(|ack| ack.heard < moment);
        self.fleeting.retain(|(_, _, heard)| *heard < moment);
        self
    }

    fn note(&mut self, line: &str, round: u64) {
        if line == "ready" {
            self.is_ready = true;
        } else if let Some(reason) = line.strip_prefix("refused ") {
            self.refused.push(reason.to_owned());
        } else if let Some((start, end)) = line.strip_prefix(FLEETING).and_then(|range| range.trim().split_once(' ')) {
            self.fleeting.push((start.parse().unwrap(), end.parse().unwrap(), Instant::now()));
        } else {
            let fields: Vec<u64> = line.split(' ').map(|field| field.parse().unwrap()).collect();
            let (appender, first, start, end) = (fields[0], fields[1], fields[2], fields[3]);
            let heard = Instant::now();
            self.acknowledged.push(Acknowledged { round, appender, first, start, end, heard });
        }
    }
}

pub(crate) struct Child {
    process: process::Child,
    ready: mpsc::Receiver<()>,
    listener: JoinHandle<Said>,
}

impl Child {
    pub(crate) fn start(folder: &Path, round: u64) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["ledger::child", "--exact", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder)
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map(|line| line.unwrap_or_default());
        let (tell, ready) = mpsc::channel();
        let listener = thread::spawn(move || {
            let mut said = Said::default();
            for line in lines {
                let Some(line) = line.strip_prefix('@').and_then(|line| line.strip_suffix('.')) else { continue };
                said.note(line, round);
                if line == "ready" {
                    // Not every parent waits for it.
                    let _ = tell.send(());
                }
            }
            said
        });
        Self { process, ready, listener }
    }

    pub(crate) fn wait_until_ready(&self) {
        self.ready.recv_timeout(START).expect("the child starts");
    }

    pub(crate) fn kill(mut self) -> Said {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.listener.join().unwrap()
    }
}

/// What the children in one folder were told, and what was shown to readers between them.
#[derive(Default)]
pub(crate) struct Ledger {
    acknowledged: Vec<Acknowledged>,
    fleeting: Vec<(u64, u64)>,
    shown: BTreeMap<TopicPartition, Vec<Name>>,
}

impl Ledger {
    pub(crate) fn add(&mut self, said: Said) {
        self.acknowledged.extend(said.acknowledged);
        self.fleeting.extend(said.fleeting.into_iter().map(|(start, end, _)| (start, end)));
    }

    pub(crate) fn n_acknowledged(&self) -> u64 {
        self.acknowledged.iter().map(|a| a.end - a.start).sum()
    }

    /// Reads everything with the eyes of the next owner, which ends without a close.
    pub(crate) fn check(&mut self, folder: &Path, round: u64) {
        let log = EmbeddedLog::open(folder, &load_of(round).0, MAX_RECORD_BYTES).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let found = log.describe().await.unwrap();
            self.check_fleeting(&log, found.topics.contains_key(FLEETING)).await;
            let partitions: Vec<_> = found.partitions().filter(|id| id.topic.as_str() == TOPIC).collect();
            assert!(self.acknowledged.is_empty() || partitions.len() == N_PARTITIONS as usize, "the topic is lost");
            for id in partitions {
                self.check_partition(&log, id).await;
            }
        });
    }

    /// Of what is deleted all the time only the offsets stay: none was given twice.
    async fn check_fleeting(&mut self, log: &EmbeddedLog, is_there: bool) {
        self.fleeting.sort_unstable();
        let twice = self.fleeting.windows(2).find(|two| two[0].1 > two[1].0);
        assert_eq!(twice, None, "an offset names one record");
        if is_there {
            let id = partition(&format!("{FLEETING}-0"));
            assert_eq!(read_over_damage(log, &id).await.corrupt, []);
            let end = log.bounds(&id).await.unwrap().end.0;
            assert!(
                self.fleeting.last().is_none_or(|last| last.1 <= end),
                "{id} ends at {end}: {:?}",
                self.fleeting.last()
            );
        }
    }

    async fn check_partition(&mut self, log: &EmbeddedLog, id: TopicPartition) {
        let reading = read_over_damage(log, &id).await;
        assert_eq!(reading.corrupt, []);
        let names: Vec<Name> = reading.records.iter().map(name_in).collect();
        let mut last = BTreeMap::new();
        for (stored, name) in reading.records.iter().zip(&names) {
            assert_eq!(stored.record, written(*name), "what is there is what was written");
            assert_eq!(partition_of(name.appender), id);
            let before = last.insert(name.appender, *name);
            let expected = before.map_or(0, |before| if before.round == name.round { before.n + 1 } else { 0 });
            assert_eq!(name.n, expected, "an appender's records keep their order, without gaps");
            assert!(before.is_none_or(|before| before.round <= name.round), "and nothing is there twice");
        }
        for ack in self.acknowledged.iter().filter(|a| partition_of(a.appender) == id) {
            let expected = (ack.first..).map(|n| Name { round: ack.round, appender: ack.appender, n });
            let there = names.get(ack.start as usize..ack.end as usize);
            let there = there.unwrap_or_else(|| {
                panic!("{id} ends at {}, and [{}, {}) was acknowledged", names.len(), ack.start, ack.end)
            });
            assert!(there.iter().copied().eq(expected.take(there.len())), "where it was acknowledged");
        }
        let shown = self.shown.insert(id, names.clone()).unwrap_or_default();
        assert!(names.starts_with(&shown), "what a reader was shown once stays");
    }
}
