//! The process is killed at random moments under load, again and again on the same folder: what
//! it had acknowledged is there, in order, unaltered and dense.
//!
//! The child is this test binary once more, told its folder by the environment. It prints a line
//! per acknowledged append; the parent kills it, opens the folder and checks.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use event_log::EmbeddedLog;
use model::{EventLog, Record, Timestamp, TopicPartition};

use crate::{
    sim::Random,
    support::{MAX_RECORD_BYTES, partition, read_over_damage, small},
};

const FOLDER: &str = "EVENT_LOG_KILL_FOLDER";
const ROUND: &str = "EVENT_LOG_KILL_ROUND";
const N_ROUNDS: u64 = 30;
const N_PARTITIONS: u32 = 3;
const N_APPENDERS: u64 = 8;

/// `n`-th record of an appender in a round; the text says who wrote it, and what follows is
/// derived from that.
fn written(round: u64, appender: u64, n: u64) -> Record {
    let mut random = Random(round << 40 | appender << 32 | n);
    let noise: String = (0..random.below(20)).map(|_| format!("{:x}", random.next())).collect();
    let value = format!("{round} {appender} {n} {noise}");
    Record { value: Some(value.into()), timestamp: Timestamp(n as i64), ..Record::default() }
}

fn partition_of(appender: u64) -> TopicPartition {
    partition(&format!("killed-{}", appender % u64::from(N_PARTITIONS)))
}

/// Does nothing unless the parent below starts it.
#[test]
fn child() {
    let (Ok(folder), Ok(round)) = (env::var(FOLDER), env::var(ROUND)) else { return };
    let round: u64 = round.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let log = Arc::new(EmbeddedLog::open(Path::new(&folder), &small(), MAX_RECORD_BYTES).unwrap());
        if log.describe().await.unwrap().topics.is_empty() {
            log.create_topic(&"killed".parse().unwrap(), N_PARTITIONS).await.unwrap();
        }
        print_line("ready");
        let appenders: Vec<_> =
            (0..N_APPENDERS).map(|a| tokio::spawn(append_for_ever(Arc::clone(&log), round, a))).collect();
        for appender in appenders {
            appender.await.unwrap();
        }
    });
}

async fn append_for_ever(log: Arc<EmbeddedLog>, round: u64, appender: u64) {
    let id = partition_of(appender);
    let mut n = 0;
    for size in [1, 7, 1, 40].into_iter().cycle() {
        let records = (n..n + size).map(|n| written(round, appender, n)).collect();
        let range = log.append(&id, records).await.unwrap();
        print_line(&format!("{appender} {n} {} {}", range.start, range.end));
        n += size;
    }
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
}

/// Starts the child, kills it after `delay`, and gives what it had acknowledged.
fn run_and_kill(folder: &Path, round: u64, delay: Duration) -> Vec<Acknowledged> {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["kill::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap_or_default());
    assert!(lines.any(|line| line == "@ready."), "the child did not start");
    let reader = thread::spawn(move || {
        let whole = lines.filter_map(|line| Some(line.strip_prefix('@')?.strip_suffix('.')?.to_owned()));
        let parse = |line: String| {
            let fields: Vec<u64> = line.split(' ').map(|field| field.parse().unwrap()).collect();
            Acknowledged { round, appender: fields[0], first: fields[1], start: fields[2], end: fields[3] }
        };
        whole.map(parse).collect()
    });
    thread::sleep(delay);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut random = Random(20_261_121);
    let mut acknowledged = Vec::new();
    for round in 0..N_ROUNDS {
        let delay = Duration::from_millis(5 + random.below(56));
        acknowledged.extend(run_and_kill(dir.path(), round, delay));
        // Reading with the eyes of the next owner; it is dropped without a close, as after a kill.
        let log = EmbeddedLog::open(dir.path(), &small(), MAX_RECORD_BYTES).unwrap();
        runtime.block_on(check(&log, &acknowledged));
    }
    let n_records: u64 = acknowledged.iter().map(|a| a.end - a.start).sum();
    assert!(n_records > 10 * N_ROUNDS, "only {n_records} records were acknowledged");
}

async fn check(log: &EmbeddedLog, acknowledged: &[Acknowledged]) {
    for p in 0..N_PARTITIONS {
        let id = partition(&format!("killed-{p}"));
        let reading = read_over_damage(log, &id).await;
        assert_eq!(reading.corrupt, []);
        let mut last = std::collections::BTreeMap::new();
        for stored in &reading.records {
            let text = stored.record.value.as_deref().map(String::from_utf8_lossy).unwrap();
            let fields: Vec<u64> = text.split(' ').take(3).map(|field| field.parse().unwrap()).collect();
            let (round, appender, n) = (fields[0], fields[1], fields[2]);
            assert_eq!(stored.record, written(round, appender, n), "what is there is what was written");
            assert_eq!(partition_of(appender), id);
            let before = last.insert(appender, (round, n));
            let expected = before.map_or(0, |(r, n)| if r == round { n + 1 } else { 0 });
            assert_eq!(n, expected, "an appender's records keep their order, without gaps");
        }
        for ack in acknowledged.iter().filter(|a| partition_of(a.appender) == id) {
            for i in 0..ack.end - ack.start {
                let stored = reading.records.get((ack.start + i) as usize).expect("what was acknowledged is there");
                assert_eq!(stored.record, written(ack.round, ack.appender, ack.first + i), "where it was acknowledged");
            }
        }
    }
}
