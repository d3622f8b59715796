//! Two processes on one log, restarts, and logs that are trimmed or no log of ours.
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
    for (key, value) in [("", ""), ("x", "1"), (command, ""), (command, r#"{"new_command":1}"#), (command, "\u{0}")] {
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
